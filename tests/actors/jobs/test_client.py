"""Errors of the way to a cluster's head, each said with its remedy and soon; the head is made up."""

import errno
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from actors.jobs import client as head_module
from actors.jobs.client import DIGEST_KEY, Head, Job, Versions, head_url, own_versions
from actors.jobs.errors import HeadUnreachable
from actors.jobs.package import Package, pack
from actors.jobs.submit import Settings, entrypoint, read_runtime_env, submit
from forecast.config.loader import load_config
from forecast.errors import ConfigError, ForecastError

Make = Callable[..., Path]
Answers = dict[tuple[str, str], tuple[int, Any]]


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def answers() -> Answers:
    """By method and beginning of the path; of these versions unless a test says otherwise."""
    own = own_versions()
    return {
        ("GET", "/api/version"): (200, {"version": "4", "ray_version": own.ray}),
        ("GET", "/api/v0/cluster_metadata"): (200, {"data": {"pythonVersion": f"{own.python}.99"}}),
        ("GET", "/api/jobs/"): (200, []),
        ("GET", "/api/packages/"): (404, "no such package"),
        ("PUT", "/api/packages/"): (200, ""),
    }


@pytest.fixture
def address(answers: Answers) -> Iterator[str]:
    """A server on loopback that gives these answers."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = [
                known for known in answers if known[0] == self.command and self.path.startswith(known[1])
            ]
            status, body = answers[max(found, key=lambda known: len(known[1]))] if found else (404, "nothing")
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def package(make_config: Make) -> Package:
    return pack(load_config(make_config({"a": "fake://1"})), "/shared/out", with_code=False)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://head:8265", "http://head:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("head", "http://head:8265"),
        ("10.0.0.1:80", "http://10.0.0.1:80"),
        ("https://ray.example.org/team", "https://ray.example.org/team"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_address_forms_are_normalised(text: str, url: str) -> None:
    assert head_url(text) == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ray://head:10001", "jobs go to the head's dashboard: http://head:8265"),
        ("s3://bucket", "expected http://HOST:8265"),
        ("http://head:port", "expected http://HOST:8265"),
        ("", "expected http://HOST:8265"),
    ],
)
def test_invalid_addresses_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        head_url(text)


def test_closed_port_is_one_error() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(HeadUnreachable, match=rf"{port} \(connection refused\); check --address"):
            Head(f"127.0.0.1:{port}")
    with pytest.raises(HeadUnreachable, match="the host is not known"):
        Head("http://no-such-host.invalid:8265")


def test_silent_server_is_given_up_after_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "ANSWER_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(HeadUnreachable, match="no answer within"):
            Head(f"127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize("body", [(200, "<html>a proxy's page</html>"), (404, "none"), (200, {"other": 1})])
def test_server_that_is_not_ray_is_named(address: str, answers: Answers, body: tuple[int, Any]) -> None:
    answers["GET", "/api/version"] = body
    with pytest.raises(ForecastError, match="is no Ray dashboard"):
        Head(address)


def test_address_option_overrides_the_environment(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert Head(address).jobs() == []
    assert head_module.os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


def test_submit_refuses_other_versions_of_ray_or_python(
    address: str, answers: Answers, package: Package
) -> None:
    own = own_versions()
    answers["GET", "/api/v0/cluster_metadata"] = (200, {"data": {"pythonVersion": "3.9.18"}})
    with pytest.raises(ForecastError) as refused:
        submit(Head(address), package, Settings())
    assert f"Python is {own.python} here and 3.9 on the cluster: use Python 3.9 here" in str(refused.value)
    assert "Ray is" not in str(refused.value) and "--any-version" in str(refused.value)

    answers["GET", "/api/version"] = (200, {"version": "4", "ray_version": "2.9.0"})
    with pytest.raises(ForecastError, match=r"on the cluster: install 'ray\[default\]==2.9.0' here"):
        submit(Head(address), package, Settings())
    # An old head that does not tell is not charged with anything.
    assert own.differences(Versions(own.ray, None)) == []
    # Told not to mind, it goes on to submit.
    with pytest.raises(ForecastError, match="refused"):
        submit(Head(address), package, Settings(any_version=True))


def test_full_disk_of_the_head_is_one_error(address: str, answers: Answers, package: Package) -> None:
    trace = "Traceback (most recent call last):\n...\nOSError: [Errno 28] No space left on device"
    answers["PUT", "/api/packages/"] = (500, trace)
    with pytest.raises(ForecastError, match=r"the disk of the head at .* is full .*make room there"):
        submit(Head(address), package, Settings())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk of this machine is full"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory"), "No usable temporary directory"),
    ],
)
def test_unwritable_temporary_folder_is_one_error(
    error: OSError, said: str, address: str, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Package, archive: Path, job_id: str) -> None:
        raise error

    monkeypatch.setattr(Package, "write", full)
    with pytest.raises(ForecastError, match=rf"{said}.*: .*TMPDIR"):
        submit(Head(address), package, Settings())


def details(job_id: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "SUBMISSION",
        "submission_id": job_id,
        "status": status,
        "entrypoint": "x",
        "message": "",
        "start_time": 1000 * int(time.time()),
        "metadata": {DIGEST_KEY: "d"},
        **more,
    }


@pytest.mark.parametrize(
    ("before", "again", "how", "job"),
    [
        ([], False, "submitted", "{}"),
        ([("{}", "PENDING", None)], False, "reattached", "{}"),
        ([("{}", "RUNNING", None)], True, "reattached", "{}"),
        ([("{}", "SUCCEEDED", 0)], False, "already done", "{}"),
        ([("{}", "FAILED", 3)], False, "already done", "{}"),
        ([("{}", "FAILED", 3)], True, "submitted", "{}.2"),
        ([("{}", "FAILED", 1)], False, "submitted", "{}.2"),
        ([("{}", "FAILED", None)], False, "submitted", "{}.2"),
        (
            [("{}", "FAILED", 1), ("{}.10", "STOPPED", None), ("{}.9", "SUCCEEDED", 0)],
            False,
            "submitted",
            "{}.11",
        ),
    ],
)
def test_same_command_follows_retries_or_reports_the_earlier_job(
    address: str,
    answers: Answers,
    package: Package,
    before: list[tuple[str, str, int | None]],
    again: bool,
    how: str,
    job: str,
) -> None:
    records = [
        details(name.format(package.job_id), status, driver_exit_code=code) for name, status, code in before
    ]
    wanted = job.format(package.job_id)
    foreign = details("raysubmit_1", "RUNNING", metadata={})
    answers["GET", "/api/jobs/"] = (200, [foreign, *records])
    answers["POST", "/api/jobs/"] = (200, {"job_id": wanted, "submission_id": wanted})
    answers["GET", f"/api/jobs/{wanted}"] = (200, details(wanted, "PENDING"))
    found = submit(Head(address), package, Settings(), again)
    assert (found.how, found.job.job_id) == (how, wanted)


def test_concurrent_submits_start_one_job(address: str, answers: Answers, package: Package) -> None:
    text = f"ValueError: Job with submission_id {package.job_id} already exists. Please use a different one."
    answers["POST", "/api/jobs/"] = (400, text)
    answers["GET", f"/api/jobs/{package.job_id}"] = (200, details(package.job_id, "RUNNING"))
    assert submit(Head(address), package, Settings()).how == "reattached"


def test_job_is_found_by_prefix_of_its_id(address: str, answers: Answers) -> None:
    ours = ("forecast-a-11", "forecast-a-11.2", "forecast-b-22")
    names = (*ours, "forecast-a-11/../../x", "/etc/forecast-a-11", "..", "forecast-a-11\n")
    answers["GET", "/api/jobs/"] = (200, [details(name, "SUCCEEDED") for name in names])
    head = Head(address)
    assert head.find("forecast-b").job_id == "forecast-b-22"
    assert head.find("forecast-a").job_id == "forecast-a-11.2"
    assert head.find("forecast-a-11").job_id == "forecast-a-11.2"
    with pytest.raises(ForecastError, match="several jobs: forecast-a-11, forecast-b-22"):
        head.find("forecast")
    with pytest.raises(ForecastError, match=r"no job 'x' .* its latest: forecast-a-11, forecast-a-11.2"):
        head.find("x")


def test_runtime_environment_holds_code_and_variables(tmp_path: Path) -> None:
    path = tmp_path / "env.yaml"
    path.write_text("pip: [polars]\nenv_vars: {A: '1', B: '2'}\n")
    env = read_runtime_env(str(path), ["B=3", "HOME"], {"HOME": "/root"})
    assert env == {"pip": ["polars"], "env_vars": {"A": "1", "B": "3", "HOME": "/root"}}
    assert read_runtime_env(None, [], {}) == {}
    with pytest.raises(ConfigError, match="--env NONE: it is not set here"):
        read_runtime_env(None, ["NONE"], {})
    path.write_text("py_modules: [https://host/m.zip, ./mine]\n")
    with pytest.raises(ConfigError, match=r"\./mine is a path of this machine"):
        read_runtime_env(str(path), [], {})
    for key in ("working_dir", "image_uri", "container", "excludes"):
        path.write_text(f"{key}: x\n")
        with pytest.raises(ConfigError, match=f"{key} cannot be used"):
            read_runtime_env(str(path), [], {})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_runtime_env(str(tmp_path / "none"), [], {})


def test_entrypoint_is_quoted_for_the_shell(make_config: Make) -> None:
    package = pack(load_config(make_config({"a": "fake://1"})), "/shared/my $(out)", with_code=False)
    command = entrypoint("id", package, Settings(command="score", installed="0.1.0", report=True), "ab")
    assert "--output '/shared/my $(out)'" in command
    assert "--command score" in command and "--installed 0.1.0" in command and "--report" in command


def test_job_is_running_or_done_by_status_and_exit_code() -> None:
    def job(status: str, code: int | None) -> Job:
        return Job("x.3", status, code, "", None, None, None, None, {})

    assert job("RUNNING", None).running and not job("RUNNING", None).done
    assert job("FAILED", 3).done and not job("FAILED", 1).done and not job("STOPPED", None).running
    assert job("FAILED", 3).base == "x"
