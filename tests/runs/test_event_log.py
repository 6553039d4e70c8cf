"""Structured logs: every line is JSON and says which run, candidate and unit it is about."""

import json
from pathlib import Path
from typing import Any

import pytest
from watched import Clock, plan_of, receipt, units_of

from forecast import storage
from forecast.plan import Failure
from forecast.runs import event_log
from forecast.runs.event_log import AppendedFile, RunLog, StoredTail, log_file, log_line
from forecast.runs.events import Subscribers
from forecast.runs.status import RunStatus
from forecast.runs.status_file import Outbox, log_path


def read(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_the_story_of_a_run(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"ü\n": 5, "bad": 5}, units=2)
    good, bad = units_of(plan, "ü\n"), units_of(plan, "bad")
    clock = Clock()
    status = RunStatus(plan, (), run="r1", clock=clock)
    sink = log_file(status)
    told: list[str] = []
    log = RunLog(status, [sink, told.append], clock)
    subscriber = Subscribers([status, log])
    subscriber.started(plan.units, 2)
    subscriber.handed_out(good, 3)
    clock.now = 4.0
    subscriber.committed(good[0], receipt(8, rows=6, seconds=1.23456, unscored=({},), device="cuda"))
    subscriber.beat()
    subscriber.handed_out(bad, 4)
    subscriber.restarted(4, "it died")
    subscriber.retried(bad, "it died")
    clock.now = 11.0
    subscriber.beat()
    clock.now = 30.0
    subscriber.beat()  # nothing new
    subscriber.gave_up(Failure("candidate", "bad", "no weights"))
    subscriber.committed(good[1], receipt(8))
    status.ended("done")
    log.close()
    sink.close()

    lines = read(Path(log_path(plan.config.output, "r1")).read_text())
    assert [json.loads(line) for line in told] == lines
    assert all(line["run"] == "r1" and line["time"].endswith("+00:00") for line in lines)
    assert [line["event"] for line in lines] == [
        "started",
        "handed_out",
        "committed",
        "handed_out",
        "restarted",
        "retried",
        "progress",
        "gave_up",
        "committed",
        "ended",
    ]
    of = {"candidate": "ü\n", "candidate_id": good[0].candidate.candidate_id, "task": "t"}
    assert lines[1].items() >= {**of, "shards": [u.address for u in good], "actor": 3}.items()
    numbers = {"rows": 6, "tokens": 8, "seconds": 1.235, "unscored": 1, "actor": 3, "device": "cuda"}
    assert lines[2].items() >= {**of, "shard": good[0].address, **numbers}.items()
    assert lines[5].items() >= {"candidate": "bad", "actor": 4, "error": "it died"}.items()
    assert lines[6].items() >= {"units": 4, "committed": 1, "tokens_per_second": 8 / 11}.items()
    assert lines[7].items() >= {"candidate": "bad", "error": "no weights"}.items()
    assert lines[8]["actor"] == 3
    assert lines[9].items() >= {"state": "done", "error": None, "retries": 1, "restarts": 1}.items()


def test_numbers_that_are_none_become_null() -> None:
    record = json.loads(log_line("x", a=float("nan"), b=float("inf"), c=1.5, d=None, e=Path("p")))
    assert {k: record[k] for k in "abcde"} == {"a": None, "b": None, "c": 1.5, "d": None, "e": "p"}


def test_a_log_goes_on_where_another_ended(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    for text in ("one", "two"):
        sink = AppendedFile(str(path), pytest.fail)
        sink(text)
        assert path.read_text().endswith(f"{text}\n"), "it is there at once"
        sink.close()
    assert path.read_text() == "one\ntwo\n"


def test_a_disk_that_refuses_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told: list[str] = []
    sink = AppendedFile(str(tmp_path / "file" / "log.jsonl"), told.append)
    for _ in range(3):
        sink("line")
    sink.close()
    assert len(told) == 1 and "log.jsonl cannot be written" in told[0]


def test_on_an_object_store_the_newest_lines_stay(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_STORED_BYTES", 100)
    path = f"{bucket}/out/runs/r.log.jsonl"
    sink = StoredTail(path, pytest.fail)
    for i in range(10):
        sink(log_line("x", i=i)[-20:])
    sink.close()
    first, *rest = storage.read_bytes(path).decode().splitlines()
    assert len(rest) == 4 and all(len(line) == 20 for line in rest)
    assert json.loads(first)["lines"] == 6, "what is left out is counted"
    assert rest[-1].endswith('"i": 9}')


def test_an_object_is_written_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    puts: list[bytes] = []
    monkeypatch.setattr(Outbox, "put", lambda self, data: puts.append(data))
    clock = Clock()
    sink = StoredTail("s3://b/log", pytest.fail, clock)
    for second in range(0, 150, 10):
        clock.now = float(second)
        sink(str(second))
    assert [data.count(b"\n") for data in puts] == [7, 13]
    sink.close()
    assert puts[-1].startswith(b"0\n10\n") and puts[-1].endswith(b"\n140\n")
