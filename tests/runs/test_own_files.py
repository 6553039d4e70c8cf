"""Our own records after another hand or a bad disk: every reader answers in one line."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from lakes import config_of, solutions
from nights import full_night

from forecast import storage
from forecast.errors import ForecastError, InputError
from forecast.nightly.records import Alert, Checkpoint, night_record, read_report
from forecast.nightly.state import RunState, Scored, State, load_state, save_state
from forecast.plan import Failure, make_plan
from forecast.runs.quarantine import Quarantine
from forecast.runs.records import load_failures, save_failures
from forecast.runs.status import RunStatus
from forecast.runs.status_file import read_runs, status_path
from forecast.storage.lease import Lease, held, read_lease

Reader = Callable[[], object]


def _written(kind: str, folder: Path) -> tuple[Path, Reader]:
    """A sound file of this kind, and what reads it."""
    plan = make_plan(config_of(folder, {"t": solutions("1")}, {"a": "fake://1"}))
    output = plan.config.output
    if kind == "state":
        day = "2026-03-01"
        run = RunState(day, None, (Scored(Checkpoint("r", 5, "r @ 5", "/x"), "s", "i", "d", 9, day),))
        alert = Alert("failed_to_load", "k", "r", "t")
        save_state(output, State(day, {"r": run}).with_alerts(day, [alert]))
        return Path(output, "nightly", "state.json"), lambda: load_state(output)
    if kind == "lock":
        path = Path(output, "nightly", "lock.json")
        storage.write_bytes(str(path), json.dumps(asdict(Lease("t", "h", "m", 7, 1.0, 1.0))).encode())
        return path, lambda: read_lease(str(path))
    if kind == "quarantine":
        quarantine = Quarantine(plan.config)
        quarantine.put(plan.candidates[0], "it broke", 1)
        (path,) = Path(output, "quarantine").iterdir()
        return path, lambda: [one.failure() for one in quarantine.of(plan).values()]
    if kind == "failures":
        save_failures(plan, [Failure("candidate", "a", "it broke", "t", "1")])
        return Path(output, "failures.json"), lambda: load_failures(plan)
    if kind == "status":
        path = Path(status_path(output, "r"))
        storage.write_bytes(str(path), json.dumps(RunStatus(plan, plan.done()).as_record()).encode())
        return path, lambda: read_runs(output)
    path = folder / "night.json"
    path.write_text(json.dumps(night_record(full_night(), ())))
    return path, lambda: read_report(str(path))


KINDS = ("state", "lock", "quarantine", "failures", "status", "night")
TEXTS = {
    "nothing": b"",
    "deep list": b"[" * 200_000 + b"]" * 200_000,
    "deep object": b'{"a":' * 100_000,
    "deep value": b'{"schema": 1, "runs": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "endless number": b'{"schema": ' + b"9" * 100_000 + b"}",
    "not UTF-8": b'{"schema": "\xff\xfe"}',
    "half a character": rb'{"schema": "\ud800"}',
    "zeros": bytes(4096),
    **{text: text.encode() for text in ("null", "3", '"x"', "[]", "[3]", "{}", "[[]]", '[{"a": 1}]', "NaN")},
}  # fmt: skip


def answer(kind: str, read: Reader) -> str:
    """What the reader says of the damage, in one line; a lock that cannot be read is free."""
    try:
        found = read()
    except ForecastError as error:
        return str(error)
    if kind == "status":
        (record,) = found  # type: ignore[misc]
        return str(record["error"]) if record["state"] == "unreadable" else ""
    return "free" if kind == "lock" and found is None else ""


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_no_records(kind: str, tmp_path: Path) -> None:
    path, read = _written(kind, tmp_path)
    assert answer(kind, read) == "", "sound as it was written"
    for name, text in TEXTS.items():
        path.write_bytes(text)
        said = answer(kind, read)
        assert said or (kind, name) == ("failures", "[]"), name
        assert "\n" not in said and len(said) < 600, name
    path.unlink()
    path.mkdir()
    if kind not in ("status", "quarantine"):  # found by listing files
        with pytest.raises(ForecastError, match="Is a directory"):
            read()


ODD: tuple[Any, ...] = (None, True, "x", -1, 1.5, 1e300, 2**63, 10**4000, [], {}, [[]], [{"a": []}])


def _changes(record: Any) -> list[Any]:
    """The record with each of its values, however deep, replaced by odd ones, or left out."""
    if not isinstance(record, dict | list):
        return []
    keys = list(record) if isinstance(record, dict) else list(range(len(record)))
    found = []
    for key in keys:
        for value in [*ODD, *_changes(record[key])]:
            changed = record.copy()
            changed[key] = value
            found.append(changed)
    return found


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_every_value_of_another_type_is_told_or_harmless(kind: str, tmp_path: Path) -> None:
    path, read = _written(kind, tmp_path)
    told = 0
    changes = _changes(json.loads(path.read_bytes()))
    for changed in changes:
        path.write_text(json.dumps(changed))
        said = answer(kind, read)
        told += bool(said)
        assert "\n" not in said
    assert told > len(changes) / 3


def test_alerts_of_a_night_of_another_type_are_told(tmp_path: Path) -> None:
    path, read = _written("night", tmp_path)
    record = json.loads(path.read_bytes())
    for key, value in (("date", "2026-02-30"), ("values", [{"step": "x"}]), ("alerts", [3]), ("missed", [1])):
        path.write_text(json.dumps({**record, key: value}))
        with pytest.raises(InputError, match=key):
            read()


def test_a_lock_that_cannot_be_read_is_taken(tmp_path: Path) -> None:
    path, _ = _written("lock", tmp_path)
    for text in TEXTS.values():
        path.write_bytes(text)
        with held(str(path.parents[1]), settle=0) as lock:
            lock.check()
