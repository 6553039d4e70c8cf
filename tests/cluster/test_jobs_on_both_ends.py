"""Following and fetching on this side, the checks on the cluster's side; the head is made up."""

import errno
import hashlib
import io
import json
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from actors.jobs import following, pulling, start
from actors.jobs.following import LiveLog, follow, last_progress, plain, progress_of
from actors.jobs.head import Job
from actors.jobs.pulling import pull
from actors.jobs.shown import exit_code, job_record, jobs_table
from actors.jobs.trouble import HeadUnreachable
from forecast.errors import ForecastError, NoDataError
from forecast.progress import ScoringProgress

Usage = namedtuple("Usage", "total used free")


def job(status: str = "SUCCEEDED", code: int | None = None, **metadata: str) -> Job:
    return Job("forecast-x-1", status, code, "", None, 10.0, None, "node", dict(metadata))


class MadeUpHead:
    """Answers with one (status, log) after the other; an exception is raised instead."""

    url = "http://head:8265"

    def __init__(self, *scenes: tuple[str, str] | Exception, files: dict[str, bytes] | None = None) -> None:
        self.scenes = list(scenes)
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


def test_progress_is_read_as_scoring_prints_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    with ScoringProgress(Console(file=log, width=160), 12, 1000) as progress:
        monkeypatch.setattr("forecast.progress._SECONDS_BETWEEN_LINES", 0.0)
        progress.advance("a (first), 3-bit", 50_000, 400)
        halfway = last_progress(log.getvalue())
    assert halfway is not None and (halfway.done, halfway.units) == (1, 12)
    assert halfway.candidate == "a (first), 3-bit" and halfway.tokens_per_second > 0

    read = progress_of("3/40 units, 1,234 tokens/s, 1:02:03 left (base @ 4000)")
    assert read is not None
    assert (read.tokens_per_second, read.seconds_left, read.candidate) == (1234.0, 3723.0, "base @ 4000")
    bare = progress_of("40/40 units, 9 tokens/s")
    assert bare is not None and (bare.seconds_left, bare.candidate) == (None, None)
    assert progress_of("candidate 'x': 3/40 units, 1 tokens/s") is None
    newest = last_progress("1/4 units, 1 tokens/s\n2/4 units, 1 tokens/s\nother\n")
    assert newest is not None and newest.done == 2
    assert last_progress("nothing") is None


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
    Console(file=screen, width=160).print(
        jobs_table([{**record, "progress": progress}, {**record, "progress": None}])
    )
    text = screen.getvalue()
    assert "1/4" in text and "1:01" in text and "stopped" in text


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
    from forecast import storage

    output = f"{bucket}/out"
    for name in (*FILES, "lake/c/u.parquet", "lake/x.json", ".hidden.json", "notes.txt"):
        storage.write_bytes(storage.join(output, name), FILES.get(name, b"data"))
    listed = {entry["name"]: entry["bytes"] for entry in start._remote_results(output)}
    assert listed == {name: len(data) for name, data in FILES.items()}
