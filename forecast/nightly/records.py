"""The facts of a night, which rules judge and reports show; as JSON and back, exactly, in `night.json`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from forecast import storage
from forecast.errors import InputError

SCHEMA = 1  # of night.json

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A saved state of a watched training run."""

    run: str  # name of the watched run
    step: int
    name: str  # of its candidate
    source: str  # folder, s3:// URI or hub id
    revision: str | None = None  # of a hub repository


@dataclass(frozen=True)
class Waiting:
    """A checkpoint that is seen and cannot be taken yet."""

    checkpoint: Checkpoint
    reason: str  # e.g. that its completion marker is missing


@dataclass(frozen=True)
class Broken:
    """A checkpoint that could not be loaded or scored."""

    checkpoint: Checkpoint
    error: str
    since: str  # the night (YYYY-MM-DD) of its first failure


@dataclass(frozen=True)
class WatchedRun:
    """How far a watched training run is."""

    run: str
    steps: tuple[int, ...]  # scored ones, ascending
    last_new: str | None  # the latest night (YYYY-MM-DD) that found a new checkpoint; None if none ever did
    first_night: str  # the first night that watched it
    final_step: int | None  # where training is meant to end
    problem: str | None = None  # why it could not be looked at tonight (no such folder, store unreachable)


@dataclass(frozen=True)
class Value:
    """A proxy of one task at one checkpoint, or a measured score (then `metric` is the score's metric)."""

    run: str
    step: int
    task: str
    metric: str
    value: float


@dataclass(frozen=True)
class EndForecast:
    """A downstream accuracy as it is forecast for the end of training, with its interval."""

    run: str
    task: str  # or the macro average
    metric: str
    step: int  # forecast for
    fit_until: int  # the last checkpoint that was looked at
    forecast: float
    low: float
    high: float
    confidence: float
    method: str

    @property
    def number(self) -> tuple[str, str, str, int]:
        """Which number is forecast: run, task, metric and step."""
        return self.run, self.task, self.metric, self.step


@dataclass(frozen=True)
class Night:
    """Everything a night found out."""

    date: str  # YYYY-MM-DD
    config: str  # name of the configuration
    new: tuple[Checkpoint, ...] = ()  # scored tonight for the first time
    waiting: tuple[Waiting, ...] = ()
    broken: tuple[Broken, ...] = ()  # all that are broken as of tonight, new or not
    runs: tuple[WatchedRun, ...] = ()
    values: tuple[Value, ...] = ()  # the whole history of all watched runs
    forecasts: tuple[EndForecast, ...] = ()
    not_forecast: tuple[dict[str, str], ...] = ()  # run, task, error: why there is no forecast
    ranking: dict[str, Any] | None = None  # as `forecast rank --json` answers; None where there is none
    ranking_problem: str | None = None
    failed: tuple[dict[str, str], ...] = ()  # everything else that failed, as `--json` lists it
    missed: tuple[str, ...] = ()  # nights since the last report that have none


@dataclass(frozen=True)
class Alert:
    """A rule that fired; `key` is the same on every night that it fires for the same cause."""

    rule: str
    key: str
    run: str | None
    text: str  # one or two sentences: what happened, by how much, since when
    numbers: dict[str, Any] = field(default_factory=dict)


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
