"""Jobs sent from processes of their own to a real Ray head on loopback, which asks for a token."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from driving import wait_for_files

from actors.jobs.package import file_sha256
from forecast.runs.status_file import read_runs
from forecast.warehouse.connect import open_warehouse

Make = Callable[..., Path]

# As `forecast`, wherever it is called from; {} takes what a test changes first.
pytestmark = pytest.mark.slow  # a head of its own: a minute

FORECAST = """
import importlib.metadata as m, sys
from forecast.cli import main
sys.argv[0] = "forecast"
{}
main.main()
"""
OTHER_VERSION = "v = m.version; m.version = lambda name: '0.0.1' if name == 'proxy-forecast' else v(name)"


@dataclass
class Cluster:
    """A head of its own: its address, its token, and where it may write results."""

    address: str
    token: Path
    folder: Path

    def start(
        self, *arguments: str | Path, cwd: Path, first: str = "pass", **environment: str
    ) -> subprocess.Popen[str]:
        """`forecast` with the head's address and token in its environment, from a folder of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", FORECAST.format(first), *map(str, arguments)],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "RAY_API_SERVER_ADDRESS": self.address,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(self.token),
                **environment,
            },
        )

    def run(self, *arguments: str | Path, cwd: Path, **more: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        process = self.start(*arguments, cwd=cwd, **more)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Started by `ray start`, with all listeners on loopback, and ended by its process id."""
    folder = tmp_path_factory.mktemp("cluster")
    token = folder / "token"
    token.write_text(uuid.uuid4().hex)
    bin_ = Path(sys.executable).parent
    port = free_port()
    command = [str(bin_ / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=true", "--dashboard-host=127.0.0.1"]
    command += [
        f"--port={free_port()}",
        f"--dashboard-port={port}",
        f"--ray-client-server-port={free_port()}",
    ]
    command += [f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=128000000"]
    # Paths of Unix sockets are short.
    temporary = Path("/tmp") / f"forecast-{uuid.uuid4().hex[:8]}"
    environment = {
        **os.environ,
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(
            [*command, f"--temp-dir={temporary}"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    family: list[psutil.Process] = []
    try:
        wait_for_head(f"http://127.0.0.1:{port}/api/version", head, folder / "head.log")
        yield Cluster(f"http://127.0.0.1:{port}", token, folder)
    finally:
        family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
        head.terminate()
        _, alive = psutil.wait_procs(family, timeout=40)
        for process in alive:
            process.kill()
        head.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def wait_for_head(url: str, head: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        assert head.poll() is None and time.monotonic() < deadline, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError as answer:
            if answer.code == 401:
                return
        except OSError:
            pass
        time.sleep(0.2)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"ended without {text!r}")


def status_of(cluster: Cluster, job: str, cwd: Path) -> dict[str, Any]:
    code, out, err = cluster.run("jobs", "--json", cwd=cwd)
    assert code == 0, err
    (record,) = (r for r in json.loads(out)["jobs"] if r["job"] == job)
    return dict(record)


def test_job_continues_without_its_submitter_and_is_found_again(
    cluster: Cluster, make_config: Make, tmp_path: Path, elsewhere: Path
) -> None:
    (tmp_path / "scores.csv").write_text("candidate,task,metric,value\na,sums,acc,0.3\nb,sums,acc,0.4\n")
    config = make_config(
        {"a": "fake://1?delay=1", "b": "fake://2?delay=1"},
        "outlives",
        measured_scores=[{"format": "csv", "path": "scores.csv"}],
    )
    output = cluster.folder / "outlives"
    command = ("submit", config, "--output", output)

    # Ctrl-C leaves the job running and says how to come back.
    submitter = cluster.start(*command, cwd=elsewhere)
    wait_for_line(submitter, "Running entrypoint")
    submitter.send_signal(signal.SIGINT)
    out, err = submitter.communicate(timeout=60)
    assert submitter.returncode == 130, err
    found = re.search(
        r"interrupted; (forecast-outlives-\w+) goes on\. the same command follows it again", err
    )
    assert found, err
    job = found[1]
    wait_for_files(output, 1)
    watched = status_of(cluster, job, elsewhere)
    assert watched["status"] == "RUNNING"
    assert (watched["run"]["job"], watched["run"]["state"]) == (job, "running")
    assert (watched["run"]["units"], watched["progress"]["units"]) == (6, 6)
    assert [c["units"] for c in watched["run"]["candidates"]] == [3, 3]

    # Nothing of it is needed any more: a copy of the run in another folder is the same run.
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (config.name, "solutions.jsonl", "scores.csv"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
        (tmp_path / name).unlink()
    code, out, err = cluster.run("submit", config.name, "--output", output, "--json", cwd=copy)
    record = json.loads(out)
    assert code == 0, err
    assert (record["how"], record["job"], record["status"]) == ("reattached", job, "SUCCEEDED")
    assert "2 candidates by" in err and "6/6 units" in err
    assert len(list((output / "lake").rglob("*.parquet"))) == 6
    code, out, err = cluster.run("jobs", job, "--json", cwd=elsewhere)
    (watched,) = json.loads(out)["jobs"]
    (status,) = read_runs(str(output))
    assert (code, watched["run"]) == (0, status), err
    assert (status["state"], status["committed"], status["states"]["done"]) == ("done", 6, 2)

    # Done is done, unless one says so.
    code, out, err = cluster.run("submit", config.name, "--output", output, cwd=copy)
    assert (code, f"already done: {job}" in err) == (0, True), err

    # The results come through the head, byte by byte; the second time they are there.
    for fetched in (4, 0):
        arguments = ("pull", config.name, "--through-head", "--json")
        code, out, err = cluster.run(*arguments, cwd=copy)
        assert code == 0, err
        assert len(json.loads(out)["fetched"]) == fetched
    pulled = copy / "out-outlives"
    names = sorted(p.relative_to(pulled).as_posix() for p in pulled.rglob("*") if p.is_file())
    assert names == ["failures.json", "ranking.json", f"runs/{status['run']}.json", "warehouse.duckdb"]
    for name in names:
        assert file_sha256(pulled / name) == file_sha256(output / name)
    ranking = json.loads((pulled / "ranking.json").read_text())
    assert [c["candidate"] for c in ranking["candidates"]] == ["b", "a"]

    # What was pulled serves here.
    with open_warehouse(str(pulled)) as db:
        assert db.sql("SELECT candidate FROM candidates ORDER BY candidate").fetchall() == [("a",), ("b",)]

    # A later job with the same output leaves other bytes: the earlier one's results are no longer these.
    (output / "ranking.json").write_text("{}")
    code, out, err = cluster.run("pull", job, "--through-head", "--to", "new", cwd=elsewhere)
    assert code == 1 and "ranking.json is not what" in err
    assert not list((elsewhere / "new").glob(".*")), "something half-fetched was left"


def test_stopped_job_resumes_when_submitted_again(
    cluster: Cluster, make_config: Make, elsewhere: Path
) -> None:
    candidates = {"slow": "fake://1?delay=0.5", "unloadable": "fake://1?fail=load"}
    config = make_config(candidates, "stopped", shard_trajectories=1, cluster={"actors": 1})
    output = cluster.folder / "stopped"
    command = ("submit", config, "--output", output, "--command", "score")
    code, out, err = cluster.run(*command, "--no-wait", cwd=elsewhere)
    assert code == 0, err
    job = out.strip()
    wait_for_files(output, 1)
    code, out, err = cluster.run("stop", job, "--json", cwd=elsewhere)
    assert code == 0, err
    assert json.loads(out)["was_running"] and json.loads(out)["status"] == "STOPPED"
    written = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    assert 0 < len(written) < 12
    code, out, err = cluster.run("pull", job, "--through-head", cwd=elsewhere)
    assert code == 1 and "left no list of results" in err

    # The same command is a second attempt; its exit code is that of the run.
    code, out, err = cluster.run(*command, "--json", cwd=elsewhere)
    record = json.loads(out)
    assert code == 3, err
    assert (record["how"], record["job"], record["exit_code"]) == ("submitted", f"{job}.2", 3)
    assert "the one before is stopped" in err and "asked to fail while loading" in err
    for path, changed in written.items():
        assert path.stat().st_mtime_ns == changed, "a finished unit was done again"
    assert len(list(output.rglob("*.parquet"))) == 12

    # `logs` knows the latest attempt by the id of the run, and ends as the job did.
    code, out, err = cluster.run("logs", job, "--follow", cwd=elsewhere)
    assert (code, f"Running entrypoint for job {job}.2" in out) == (3, True), err
    assert cluster.run(*command, cwd=elsewhere)[0] == 3


def test_installed_package_of_another_version_is_refused(
    cluster: Cluster, make_config: Make, elsewhere: Path
) -> None:
    config = make_config({"a": "fake://1"}, "versions")
    arguments = ("submit", config, "--output", cluster.folder / "versions", "--installed")
    code, _, err = cluster.run(*arguments, cwd=elsewhere, first=OTHER_VERSION)
    assert code == 1, err
    assert "proxy-forecast is 0.0.1 there and" in err and "--any-version" in err
    assert not (cluster.folder / "versions").exists()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "asks for a token, and none was sent: set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN_PATH": "{folder}/none"}, "none (RAY_AUTH_TOKEN_PATH) is missing or empty"),
        ({"RAY_AUTH_TOKEN_PATH": "{folder}/other"}, "refuses the token of the file"),
    ],
)
def test_submit_with_a_wrong_token_is_one_error(
    cluster: Cluster, elsewhere: Path, environment: dict[str, str], said: str
) -> None:
    (elsewhere / "other").write_text(uuid.uuid4().hex)
    changed = {key: value.format(folder=elsewhere) for key, value in environment.items()}
    code, out, err = cluster.run("jobs", cwd=elsewhere, **changed)
    assert (code, out) == (1, "")
    assert said in err and "Traceback" not in err
    assert cluster.token.read_text() not in err


def test_full_disk_of_the_cluster_is_one_error(cluster: Cluster, make_config: Make, elsewhere: Path) -> None:
    small = cluster.folder / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        config = make_config({"a": "fake://1"}, "full")
        code, _, err = cluster.run("submit", config, "--output", small / "out", cwd=elsewhere)
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert code == 1, err
    assert f"the cluster's disk is full: 1 MB are free for {small}/out" in err
    assert "submit with another --output" in err and "Traceback" not in err


def test_results_on_an_object_store_are_not_pulled(
    cluster: Cluster, make_config: Make, elsewhere: Path, bucket: str
) -> None:
    config = make_config({"a": "fake://1", "b": "fake://2"}, "store", output=f"{bucket}/store")
    variables = [name for name in os.environ if name.startswith("AWS_")]
    forwarded = [part for name in variables for part in ("--env", name)]
    code, out, err = cluster.run("submit", config, *forwarded, "--report", "--json", cwd=elsewhere)
    assert code == 0, err
    assert json.loads(out)["output"] == f"{bucket}/store"
    code, out, err = cluster.run("pull", config, "--json", cwd=elsewhere)
    record = json.loads(out)
    assert code == 0, err
    assert record["source"] == f"{bucket}/store"
    names = {Path(name).name for name in record["fetched"]}
    assert {"ranking.json", "report.html", "warehouse.duckdb"} <= names
    assert (elsewhere / record["folder"] / "ranking.json").exists()
