"""Following and fetching on this side, the checks on the cluster's side; the head is made up."""

import errno
import hashlib
import io
import json
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from actors.jobs import following, pulling, start
from actors.jobs.following import (
    LiveLog,
    follow,
    last_progress,
    plain,
    progress_now,
    progress_of,
    run_of,
)
from actors.jobs.head import Job
from actors.jobs.pulling import pull
from actors.jobs.shown import candidates_table, exit_code, job_record, jobs_table
from actors.jobs.trouble import HeadUnreachable
from forecast import cli, cli_jobs, storage
from forecast.errors import ForecastError, NoDataError

Usage = namedtuple("Usage", "total used free")


def job(status: str = "SUCCEEDED", code: int | None = None, **metadata: str) -> Job:
    return Job("forecast-x-1", status, code, "", None, 10.0, None, "node", dict(metadata))


class MadeUpHead:
    """Answers with one (status, log) after the other; an exception is raised instead."""

    url = "http://head:8265"

    def __init__(
        self, *scenes: tuple[str, str] | Exception, files: dict[str, bytes] | None = None, tail: str = ""
    ) -> None:
        self.scenes = list(scenes)
        self.tail = tail
        self.files = files or {}
        self.asked: list[str] = []

    def job(self, job_id: str) -> Job:
        if isinstance(self.scenes[0], Exception):
            error = self.scenes[0]
            if len(self.scenes) > 1:
                self.scenes.pop(0)
            raise error
        return job(self.scenes[0][0], 0)

    def log(self, job_id: str) -> str:
        scene = self.scenes[0]
        assert not isinstance(scene, Exception)
        if len(self.scenes) > 1:
            self.scenes.pop(0)
        return scene[1]

    def log_tail(self, job: Job, lines: int) -> str:
        return self.tail

    def served_file(self, node_id: str, name: str, lines: int = -1) -> Iterator[bytes]:
        self.asked.append(name)
        if name not in self.files:
            raise FileNotFoundError(name)
        data = self.files[name]
        yield from (data[i : i + 7] for i in range(0, len(data), 7))


def followed(head: Any) -> tuple[Job, list[str], list[str], list[float]]:
    texts: list[str] = []
    troubles: list[str] = []
    sleeps: list[float] = []
    end = follow(head, "x", texts.append, troubles.append, sleeps.append)
    return end, texts, troubles, sleeps


def test_a_log_is_shown_once_and_by_whole_lines() -> None:
    end, texts, troubles, _ = followed(
        MadeUpHead(
            ("PENDING", ""),
            ("RUNNING", "one\ntw"),
            ("RUNNING", "one\ntw"),
            ("RUNNING", "one\ntwo\n"),
            ("SUCCEEDED", "one\ntwo\nthree, without an end"),
        )
    )
    assert end.status == "SUCCEEDED" and not troubles
    assert texts == ["one\n", "two\n", "three, without an end"]


def test_a_lost_connection_is_taken_up_where_it_was() -> None:
    away = HeadUnreachable("away")
    scenes = [("RUNNING", "one\n"), away, away, away, ("RUNNING", "one\ntwo\n"), ("FAILED", "one\ntwo\nx")]
    end, texts, troubles, sleeps = followed(MadeUpHead(*scenes))
    assert end.status == "FAILED"
    assert texts == ["one\n", "two\n", "x"]
    assert len(troubles) == 2 and "the job goes on" in troubles[0] and troubles[1] == "connected again"
    assert sleeps[1:4] == [1.0, 2.0, 4.0], "asks less and less often"


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 400))
    monkeypatch.setattr(following.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(HeadUnreachable):
        followed(MadeUpHead(HeadUnreachable("away")))


def test_what_the_head_refuses_is_not_retried() -> None:
    with pytest.raises(ForecastError, match="token"):
        followed(MadeUpHead(ForecastError("the token is refused")))


def test_progress_is_read_from_a_log() -> None:
    read = progress_of("3/40 units, 1,234 tokens/s, 1:02:03 left (base @ 4000)")
    assert read is not None
    assert (read.tokens_per_second, read.seconds_left, read.candidate) == (1234.0, 3723.0, "base @ 4000")
    bare = progress_of("40/40 units, 9 tokens/s")
    assert bare is not None and (bare.seconds_left, bare.candidate) == (None, None)
    unknown = progress_of("0/40 units")
    assert unknown is not None and (unknown.units, unknown.tokens_per_second) == (40, None)
    assert progress_of("candidate 'x': 3/40 units, 1 tokens/s") is None
    newest = last_progress("1/4 units, 1 tokens/s\n2/4 units, 1 tokens/s\nother\n")
    assert newest is not None and newest.done == 2
    assert last_progress("nothing") is None


def run_status(**fields: Any) -> dict[str, Any]:
    """A status with a candidate in each state."""
    one = {
        "also": [],
        "candidate_id": "1",
        "units": 4,
        "committed": 1,
        "already_done": 1,
        "tokens_read": 2000,
        "tokens_per_second": 1500.0,
        "seconds_left": 61.0,
        "retries": 2,
        "error": None,
    }
    unknown = {"tokens_per_second": None, "seconds_left": None}
    candidates = [
        {**one, "candidate": "third", "state": "done", "seconds_left": 0.0},
        {**one, **unknown, "candidate": "second", "state": "failed", "error": "no weights\nat all"},
        {**one, "candidate": "[b] \x1b[31mfirst", "also": ["or so"], "state": "scoring"},
    ]
    return {
        "schema": 1,
        "name": "n",
        "run": "r",
        "state": "running",
        "error": None,
        "updated_at": "2026-01-01T00:00:00.000+00:00",
        "units": 12,
        "committed": 7,
        "tokens_per_second": 30.0,
        "seconds_left": 3700.0,
        "retries": 2,
        "restarts": 1,
        "candidates": candidates,
        **fields,
    }


STATUS = "forecast-results/forecast-x-1/.jobs/status.json"


def test_progress_comes_from_the_status_that_the_job_left() -> None:
    head: Any = MadeUpHead(files={STATUS: json.dumps(run_status()).encode()})
    progress, run = progress_now(head, job("RUNNING"))
    assert progress is not None and run == run_status(), "the clock of this machine is not asked"
    assert progress.as_record() == {
        "done": 7,
        "units": 12,
        "tokens_per_second": 30.0,
        "seconds_left": 3700.0,
        "candidate": "[b] \x1b[31mfirst",
    }
    # A job that has ended cannot still be at it.
    _, run = progress_now(head, job("STOPPED"))
    assert run is not None and run["state"] == "lost" and run["seconds_left"] is None
    assert "forecast logs forecast-x-1" in run["error"]
    assert run_of(head, job("SUCCEEDED"))["state"] == "lost"  # type: ignore[index]
    ended: Any = MadeUpHead(files={STATUS: json.dumps(run_status(state="done")).encode()})
    assert run_of(ended, job()) == run_status(state="done")


def test_without_a_status_progress_comes_from_the_log() -> None:
    older: Any = MadeUpHead(tail="5/6 units, 7 tokens/s, 0:10 left (a)\n")
    progress, run = progress_now(older, job("RUNNING"))
    assert progress is not None and (progress.done, run) == (5, None)
    damaged: Any = MadeUpHead(tail="5/6 units, 7 tokens/s\n", files={STATUS: b'{"schema'})
    progress, run = progress_now(damaged, job("RUNNING"))
    assert progress is not None and run is not None and (progress.done, run["state"]) == (5, "unreadable")
    pending = Job("x", "PENDING", None, "", None, None, None, None, {})
    assert progress_now(older, pending)[1] is None


def test_a_machine_that_is_gone_spoils_no_list() -> None:
    class Gone(MadeUpHead):
        def served_file(self, node_id: str, name: str, lines: int = -1) -> Iterator[bytes]:
            raise ForecastError("no agent on that node")

    class Away(MadeUpHead):
        def served_file(self, node_id: str, name: str, lines: int = -1) -> Iterator[bytes]:
            raise HeadUnreachable("away")

    gone: Any = Gone()
    assert progress_now(gone, job("RUNNING")) == (None, None)
    away: Any = Away()
    with pytest.raises(HeadUnreachable):
        progress_now(away, job("RUNNING"))


def test_a_table_of_candidates() -> None:
    screen = io.StringIO()
    Console(file=screen, width=160).print(candidates_table(run_status()))
    text = screen.getvalue()
    assert "n: running, 7 of 12 units, 30 tokens/s, 1:01:40 left, 2 retries, 1 restarts" in text
    assert text.index("[b] first, or so") < text.index("second") < text.index("third")
    assert "1/4" in text and "1:01" in text and "1,500" in text and "no weights" in text
    assert "at all" not in text and "\x1b" not in text


def test_the_jobs_command(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Job("forecast-y-2", "FAILED", 3, "", None, 10.0, 20.0, "node", {})

    class Two(MadeUpHead):
        def jobs(self) -> list[Job]:
            return [job("RUNNING"), ended]

        def find(self, wanted: str) -> Job:
            return next(one for one in self.jobs() if one.job_id.startswith(wanted))

    other = STATUS.replace("x-1", "y-2")
    statuses = {STATUS: run_status(), other: run_status(state="done", committed=11, seconds_left=0.0)}
    head = Two(files={name: json.dumps(record).encode() for name, record in statuses.items()})
    monkeypatch.setattr(cli_jobs, "_head", lambda address: head)

    def answer(*arguments: str) -> str:
        said = CliRunner().invoke(cli.app, ["jobs", *arguments, "--address", "http://head:8265"])
        assert said.exit_code == 0, said.output
        return said.stdout

    first, second = json.loads(answer("--json"))["jobs"]
    assert first["run"] == run_status() and first["progress"]["done"] == 7
    assert second["run"] is second["progress"] is None, "of those that have ended nothing is fetched"
    assert head.asked == [STATUS]
    (one,) = json.loads(answer("forecast-y", "--json"))["jobs"]
    assert (one["job"], one["run"]["committed"]) == ("forecast-y-2", 11)
    assert "no weights" in answer("forecast-y") and "no weights" not in answer()
    head.files.clear()
    head.tail = "5/6 units, 7 tokens/s\n"
    assert "it has left no account of its candidates" in answer("forecast-x")


def test_a_terminal_shows_a_bar_instead_of_lines() -> None:
    lines = "hello [b]\n1/4 units, 1,000 tokens/s, 2:00 left (a)\n"
    for terminal in (True, False):
        screen = io.StringIO()
        with LiveLog(Console(file=screen, force_terminal=terminal, width=120)) as live:
            live.show(lines)
            live.say("connection lost")
        text = plain(screen.getvalue())
        assert "hello [b]" in text and "connection lost" in text
        assert ("tokens/s, 2:00 left (a)" in text) == (not terminal)


def test_logs_do_not_steer_the_terminal() -> None:
    assert plain("\x1b[31mred\x1b[0m\x1b]0;title\x07\x07 tab\there\r\n\x1b(Bü") == "red tab\there\nBü"


def test_exit_codes_and_records() -> None:
    codes = [("SUCCEEDED", 0), ("FAILED", 3), ("FAILED", 2), ("FAILED", 137), ("FAILED", None)]
    assert [exit_code(job(status, code)) for status, code in codes] == [0, 3, 2, 1, 1]
    assert exit_code(job("STOPPED")) == 1 and exit_code(job("RUNNING")) == 0
    record = job_record(job("STOPPED", forecast_output="/o", forecast_name="n"))
    assert record["started"] == "1970-01-01T00:00:10+00:00" and record["ended"] is None
    progress = {"done": 1, "units": 4, "tokens_per_second": 10.0, "seconds_left": 61.0, "candidate": "a"}
    screen = io.StringIO()
    unknown = {**progress, "done": 2, "tokens_per_second": None, "seconds_left": None}
    Console(file=screen, width=160).print(
        jobs_table([{**record, "progress": told} for told in (progress, unknown, None)])
    )
    text = screen.getvalue()
    assert "1/4" in text and "2/4" in text and "1:01" in text and "stopped" in text


def manifest(files: dict[str, bytes]) -> bytes:
    entries = [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    ]
    return json.dumps({"job": "forecast-x-1", "files": entries}).encode()


def serving(files: dict[str, bytes], listed: dict[str, bytes] | None = None) -> MadeUpHead:
    below = "forecast-results/forecast-x-1"
    served = {f"{below}/{name}": data for name, data in files.items()}
    return MadeUpHead(files={**served, f"{below}/.jobs/forecast-x-1.json": manifest(listed or files)})


FILES = {"ranking.json": b"{}", "reports/day.html": b"<html>" * 10, "empty.md": b""}


def test_pulling_checks_every_byte_and_goes_on(tmp_path: Path) -> None:
    head: Any = serving(FILES)
    seen: list[tuple[int, int]] = []
    (tmp_path / "ranking.json").write_bytes(b"[]")
    pulled = pull(head, job(), tmp_path, lambda done, total: seen.append((done, total)))
    arrived = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert arrived == FILES
    assert seen[-1] == (62, 62) and len(pulled.fetched) == 3
    head.asked.clear()
    assert pull(head, job(), tmp_path).fetched == ()
    assert len(head.asked) == 1, "only the list was asked for"


def test_pulling_what_is_not_what_was_written(tmp_path: Path) -> None:
    head: Any = serving({**FILES, "ranking.json": b"cut o"}, FILES)
    (tmp_path / "ranking.json").write_bytes(b"old")
    with pytest.raises(ForecastError, match=r"ranking.json is not what forecast-x-1 wrote"):
        pull(head, job(), tmp_path)
    assert (tmp_path / "ranking.json").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["ranking.json"]


@pytest.mark.parametrize("name", ["../out.json", "/etc/out.json", "reports/../../out.json"])
def test_pulling_writes_nowhere_else(tmp_path: Path, name: str) -> None:
    head: Any = serving({name: b"x"})
    with pytest.raises(ForecastError, match="outside its folder"):
        pull(head, job(), tmp_path / "to")
    assert not list(tmp_path.iterdir())


def test_nothing_to_pull(tmp_path: Path) -> None:
    nothing: Any = MadeUpHead()
    with pytest.raises(NoDataError, match="still runs"):
        pull(nothing, job("RUNNING"), tmp_path)
    with pytest.raises(NoDataError, match="left no list of results"):
        pull(nothing, job("STOPPED"), tmp_path)
    gone: Any = serving({}, FILES)
    with pytest.raises(NoDataError, match=r"ranking.json of forecast-x-1 is gone"):
        pull(gone, job(), tmp_path)


def test_pulling_to_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head: Any = serving(FILES)
    with monkeypatch.context() as patch:
        patch.setattr(pulling.shutil, "disk_usage", lambda path: Usage(100, 90, 10))
        with pytest.raises(ForecastError, match="disk of this machine is full: the results need"):
            pull(head, job(), tmp_path)
    assert not list(tmp_path.iterdir())

    # It fills up meanwhile.
    def full(*_: object) -> Iterator[bytes]:
        yield b"{"
        raise OSError(errno.ENOSPC, "No space left on device")

    def read(name: str) -> Any:
        return [manifest(FILES)] if ".jobs" in name else full()

    with monkeypatch.context() as patch:
        patch.setattr(pulling, "_source", lambda *_: ("head", read))
        with pytest.raises(ForecastError, match="disk of this machine is full"):
            pull(head, job(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_both_share_is_read_there(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / ".jobs").mkdir(parents=True)
    (shared / "ranking.json").write_bytes(b"{}")
    (shared / ".jobs" / "forecast-x-1.json").write_bytes(manifest({"ranking.json": b"{}"}))
    nothing: Any = MadeUpHead()
    pulled = pull(nothing, job(forecast_output=str(shared)), tmp_path / "to")
    assert pulled.source == str(shared) and (tmp_path / "to" / "ranking.json").read_bytes() == b"{}"
    with pytest.raises(NoDataError):
        pull(nothing, job(forecast_output=str(shared)), tmp_path / "to", through_head=True)


def said(capsys: pytest.CaptureFixture[str], call: Callable[[], Any]) -> str:
    with pytest.raises(SystemExit) as left:
        call()
    assert left.value.code == 1
    return capsys.readouterr().err


def test_the_cluster_compares_versions(capsys: pytest.CaptureFixture[str]) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    ray, forecast = start._version("ray"), start._version("proxy-forecast")
    assert ray is not None
    start._check_versions(here, ray, forecast)
    start._check_versions(here, ray, None)
    text = said(capsys, lambda: start._check_versions("3.9", "2.9.0", "0.0.1"))
    assert f"Python is 3.9 there and {here} here" in text
    assert f"ray is 2.9.0 there and {ray} here" in text
    assert f"proxy-forecast is 0.0.1 there and {forecast} here" in text


def test_the_cluster_looks_at_its_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start._check_output(str(tmp_path / "new" / "folder"), [])
    assert (tmp_path / "new" / "folder").is_dir()
    start._check_output("s3://bucket/x", [])
    monkeypatch.setattr(start.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1_000_000))
    text = said(capsys, lambda: start._check_output(str(tmp_path), []))
    assert f"the cluster's disk is full: 1 MB are free for {tmp_path}" in text
    start._say_if_full(str(tmp_path))
    assert "the cluster's disk is full" in capsys.readouterr().err
    start._say_if_full("s3://bucket/x")
    assert capsys.readouterr().err == ""


def test_the_cluster_writes_where_it_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    text = said(capsys, lambda: start._check_output(str(tmp_path / "file" / "out"), []))
    assert "cannot be written on the cluster" in text


def test_a_folder_that_not_all_nodes_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def see(nodes: Sequence[str], path: str) -> list[bool]:
        assert Path(path).exists()
        return [node != "b" for node in nodes]

    nodes = {"a": "10.0.0.1", "b": "10.0.0.2"}
    assert start.nodes_without(str(tmp_path / "out"), nodes, see) == ["10.0.0.2"]
    assert not list((tmp_path / "out").iterdir()), "the probe was left"
    text = said(capsys, lambda: start._check_output(str(tmp_path / "out"), ["10.0.0.2"]))
    assert "is not shared by all nodes of the cluster: 10.0.0.2 do not see" in text


def test_results_are_listed_and_the_lake_is_not(tmp_path: Path) -> None:
    for name in (*FILES, "warehouse.duckdb", "lake/c/u.parquet", "lake/x.json", ".hidden.json", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(FILES.get(name, b"data"))
    listed = {entry["name"]: entry for entry in start._local_results(str(tmp_path))}
    assert set(listed) == {*FILES, "warehouse.duckdb"}
    assert listed["ranking.json"]["sha256"] == hashlib.sha256(b"{}").hexdigest()


def test_results_on_an_object_store_are_listed_alike(bucket: str) -> None:
    output = f"{bucket}/out"
    for name in (*FILES, "lake/c/u.parquet", "lake/x.json", ".hidden.json", "notes.txt"):
        storage.write_bytes(storage.join(output, name), FILES.get(name, b"data"))
    listed = {entry["name"]: entry["bytes"] for entry in start._remote_results(output)}
    assert listed == {name: len(data) for name, data in FILES.items()}


def test_a_job_publishes_its_own_runs(tmp_path: Path) -> None:
    runs = {"1": ("me", "done"), "2": ("other", "done"), "3": ("me", "running"), "4": (None, "done")}
    for run, (of, state) in runs.items():
        now = datetime.now(UTC).isoformat()
        record = run_status(run=run, job=of, state=state, updated_at=now)
        storage.write_bytes(str(tmp_path / "runs" / f"{run}.json"), json.dumps(record).encode())
    storage.write_bytes(str(tmp_path / "runs" / "5.json"), b"damaged")
    (entry,) = start._own_runs("me", str(tmp_path))
    assert entry["name"] == "runs/1.json"
    assert entry["sha256"] == hashlib.sha256((tmp_path / "runs" / "1.json").read_bytes()).hexdigest()
    assert start._own_runs("me", str(tmp_path / "none")) == []
