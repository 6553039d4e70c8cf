"""Status files: written seldom enough and read back in order; storage that fails or hangs ends no run."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from watched import Clock, plan_of, receipt

from forecast import storage
from forecast.plan import Failure
from forecast.runs import status_file
from forecast.runs.status import RunStatus
from forecast.runs.status_file import KEPT, Outbox, StatusFile, log_path, prune, read_runs, status_path

NOW = 1_800_000_000.0


def put_run(output: str, run: str, **fields: Any) -> None:
    record = {
        "schema": 1,
        "run": run,
        "state": "running",
        "updated_at": "2027-01-15T08:00:00.000+00:00",
        "error": None,
        "seconds_left": 9.0,
        "candidates": [],
    }
    storage.write_bytes(status_path(output, run), json.dumps({**record, **fields}).encode())


def test_a_run_as_it_is_read_back(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"a": 5, "ü/\"b'": None})
    status = RunStatus(plan, (), run="20270115T080000Z-aaaaaa", clock=Clock(), wall=Clock(NOW))
    also = tmp_path / "elsewhere" / "status.json"
    told: list[str] = []
    file = StatusFile(status, [str(also)], told.append)
    file.started(plan.units, 1)
    status.handed_out(plan.units[:1], 0)
    status.committed(plan.units[0], receipt(7))
    status.ended("done")
    file.close()
    (record,) = read_runs(plan.config.output, Clock(NOW + 1e6))
    assert record == status.as_record() == json.loads(also.read_bytes())
    assert not told


def test_it_is_written_seldom_and_when_it_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, {"a": 5})
    puts: list[bytes] = []
    monkeypatch.setattr(Outbox, "put", lambda self, data: puts.append(data))
    clock = Clock()
    status = RunStatus(plan, ())
    file = StatusFile(status, clock=clock)
    file.started(plan.units, 1)
    assert len(puts) == 1
    for second in range(1, 13):
        clock.now = float(second)
        file.beat()
    assert len(puts) == 3, "every five seconds"
    file.gave_up(Failure("candidate", "a", "broken"))
    status.ended("failed", "why")
    file.close()
    assert len(puts) == 5
    assert json.loads(puts[-1])["error"] == "why"


def test_storage_that_fails_is_said_once_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    good, bad = tmp_path / "good.json", tmp_path / "file" / "bad.json"
    told: list[str] = []
    outbox = Outbox([str(bad), str(good)], told.append)
    for content in (b"1", b"2", b"3"):
        outbox.put(content)
        deadline = time.monotonic() + 30
        while not good.exists() or good.read_bytes() != content:
            assert time.monotonic() < deadline, "the good one was not written"
            time.sleep(0.002)
    outbox.close()
    (said,) = told
    assert str(bad) in said and said.endswith("scoring continues without it")


def test_storage_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, begun = threading.Event(), threading.Event()
    written: list[bytes] = []

    def slow(path: str, data: bytes) -> None:
        begun.set()
        go_on.wait(30)
        written.append(data)

    monkeypatch.setattr(storage, "write_bytes", slow)
    told: list[str] = []
    outbox = Outbox(["s3://b/x"], told.append)
    outbox.put(b"first")
    assert begun.wait(30)
    outbox.put(b"second")
    outbox.put(b"third")
    outbox.close(seconds=0.05)
    assert "s3://b/x: not written within 0.05 s" in told[0]
    go_on.set()
    outbox.close(seconds=30)
    assert written == [b"first", b"third"], "the newest is what matters"


def test_the_newest_come_first_and_the_silent_are_lost(tmp_path: Path) -> None:
    output = str(tmp_path)
    assert read_runs(output) == ()
    put_run(output, "20270115T075900Z-aaaaaa", state="done", seconds_left=0.0)
    put_run(output, "20270115T075930Z-bbbbbb")
    put_run(output, "20270115T080000Z-cccccc", schema=99)
    Path(status_path(output, "20270115T080001Z-dddddd")).write_text('{"schema": 1, "state"')
    Path(log_path(output, "20270115T080002Z-eeeeee")).write_text("{}\n")
    (tmp_path / "runs" / ".half.tmp").touch()
    alive = read_runs(output, Clock(NOW + 59.0))
    assert [(r["run"][-6:], r["state"]) for r in alive] == [
        ("dddddd", "unreadable"),
        ("cccccc", "unreadable"),
        ("bbbbbb", "running"),
        ("aaaaaa", "done"),
    ]
    assert "its schema is 99, this version reads 1" in alive[1]["error"]
    lost = read_runs(output, Clock(NOW + 61.0))[2]
    assert (lost["state"], lost["seconds_left"]) == ("lost", None)
    assert lost["error"].startswith("not heard of for 61 s")
    assert read_runs(output, Clock(NOW + 1e6))[3]["state"] == "done"


@pytest.mark.parametrize("where", ["disk", "store"])
def test_old_runs_make_room(tmp_path: Path, where: str, request: pytest.FixtureRequest) -> None:
    output = str(tmp_path) if where == "disk" else request.getfixturevalue("bucket") + "/out"
    keep = 3
    for i in range(5):
        put_run(output, f"r{i}", state="done")
        storage.write_bytes(log_path(output, f"r{i}"), b"{}\n")
    storage.write_bytes(log_path(output, "r0-of-a-lost-run"), b"{}\n")
    prune(output, keep)
    assert [record["run"] for record in read_runs(output)] == ["r4", "r3", "r2"]
    logs = storage.list_files(status_file.runs_folder(output), ".log.jsonl")
    assert [Path(path).name for path in logs] == [f"r{i}.log.jsonl" for i in (2, 3, 4)]
    prune(output, keep)
    prune(output, KEPT)
    assert len(read_runs(output)) == 3


def test_a_status_on_an_object_store(tmp_path: Path, bucket: str) -> None:
    plan = plan_of(tmp_path, {"a": 5}, output=f"{bucket}/out")
    status = RunStatus(plan, ())
    file = StatusFile(status, say=pytest.fail)
    file.started(plan.units, 3)
    status.ended("interrupted", "by hand")
    file.close()
    (record,) = read_runs(f"{bucket}/out")
    assert (record["run"], record["state"], record["error"]) == (status.run, "interrupted", "by hand")
