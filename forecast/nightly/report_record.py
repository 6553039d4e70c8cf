"""A night as JSON and back, exactly: what `night.json` beside a night's report holds."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from forecast import storage
from forecast.errors import InputError
from forecast.nightly.records import (
    Alert,
    Broken,
    Checkpoint,
    EndForecast,
    Night,
    Value,
    Waiting,
    WatchedRun,
)

SCHEMA = 1  # of night.json

T = TypeVar("T")


def night_record(night: Night, alerts: tuple[Alert, ...]) -> dict[str, Any]:
    """A night and its alerts as plain data."""
    return {"schema": SCHEMA, **asdict(night), "alerts": [asdict(alert) for alert in alerts]}


def night_bytes(night: Night, alerts: tuple[Alert, ...]) -> bytes:
    """The content of `night.json`.

    Raises:
        ValueError: a number is not finite; what is missing must be None.
    """
    record = night_record(night, alerts)
    return (json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def night_from_record(record: Mapping[str, Any]) -> tuple[Night, tuple[Alert, ...]]:
    """The night and the alerts that `night_record` was given.

    Raises:
        ValueError: another schema, or a key is missing or unknown; says which.
    """
    if not isinstance(record, Mapping):
        raise ValueError("expected keys with values")
    if record.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {record.get('schema')!r}, this version reads {SCHEMA}")
    given = {key: value for key, value in record.items() if key not in ("schema", "alerts")}
    read: dict[str, Callable[[Any], Any]] = {
        "new": _many(_plain(Checkpoint)),
        "waiting": _many(_of_checkpoint(Waiting)),
        "broken": _many(_of_checkpoint(Broken)),
        "runs": _many(_run),
        "values": _many(_plain(Value)),
        "forecasts": _many(_plain(EndForecast)),
        "not_forecast": _many(dict),
        "failed": _many(dict),
        "missed": tuple,
    }
    night = {key: read[key](value) if key in read else value for key, value in given.items()}
    return _plain(Night)(night), _many(_plain(Alert))(record.get("alerts", []))


def read_report(path: str) -> tuple[Night, tuple[Alert, ...]]:
    """The night and the alerts of a `night.json`; a local path or `s3://...`.

    Raises:
        FileNotFoundError: there is none.
        InputError: it is damaged, or of another version of this program.
    """
    try:
        return night_from_record(json.loads(storage.read_bytes(path)))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read as the record of a night: {error}; restore it, or remove its folder to "
            "go on without that night"
        ) from None


def read_night(path: str) -> Night:
    """The night of a `night.json`; see `read_report`."""
    return read_report(path)[0]


def _plain(kind: type[T]) -> Callable[[Mapping[str, Any]], T]:
    """Reads a record whose values need no further reading; every field must be given, and no other."""
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # all are dataclasses

    def read(record: Mapping[str, Any]) -> T:
        if sorted(record) != sorted(names):
            wrong = ", ".join(sorted(set(record) ^ set(names)))
            raise ValueError(f"{kind.__name__}: missing or unknown: {wrong}")
        return kind(**record)

    return read


def _of_checkpoint(kind: type[T]) -> Callable[[Mapping[str, Any]], T]:
    def read(record: Mapping[str, Any]) -> T:
        return _plain(kind)({**record, "checkpoint": _plain(Checkpoint)(record["checkpoint"])})

    return read


def _run(record: Mapping[str, Any]) -> WatchedRun:
    return _plain(WatchedRun)({**record, "steps": tuple(record["steps"])})


def _many(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    return lambda records: tuple(read(record) for record in records)
