"""The facts of a night, which rules judge and reports show; as JSON and back, exactly, in `night.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date as Date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, FiniteFloat

from forecast import storage
from forecast.errors import InputError
from forecast.safe_text import json_text
from forecast.storage.records import Count, checked, parsed_json

SCHEMA = 1  # of night.json
ALL_TASKS = "all tasks"


def is_date(text: str) -> bool:
    """Whether it is a date as YYYY-MM-DD."""
    try:
        return Date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _a_date(text: str) -> str:
    if not is_date(text):
        raise ValueError(f"{text!r} is no date as YYYY-MM-DD")
    return text


Day = Annotated[str, AfterValidator(_a_date)]  # YYYY-MM-DD


@dataclass(frozen=True)
class Checkpoint:
    """A saved state of a watched training run."""

    run: str  # name of the watched run
    step: Count
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
    since: Day  # the night of its first failure
    stamp: str | None = None  # of the files that failed; see `discovery.Found`


@dataclass(frozen=True)
class Unmatched:
    """What lies where a run is watched, none of which has the name of a checkpoint."""

    names: tuple[str, ...]  # the first few
    count: Count
    patterns: tuple[str, ...]  # that names are compared with
    every: Count | None = None  # where names match but no step is a multiple of it


@dataclass(frozen=True)
class WatchedRun:
    """How far a watched training run is."""

    run: str
    steps: tuple[Count, ...]  # scored ones, ascending
    last_new: Day | None  # the latest night that found a new checkpoint; None if none ever did
    first_night: Day  # the first night that watched it
    final_step: Count | None  # where training is meant to end
    problem: str | None = None  # why it could not be looked at tonight (no such folder, store unreachable)
    unmatched: Unmatched | None = None  # where no checkpoint was ever seen, and something else lies there


@dataclass(frozen=True)
class Value:
    """A proxy of one task at one checkpoint, or a measured score (then `metric` is the score's metric)."""

    run: str
    step: Count
    task: str
    metric: str
    value: FiniteFloat


Verdict = Literal["first", "better", "no different", "worse"]


@dataclass(frozen=True)
class Comparison:
    """A checkpoint against the best one before it; `first` has none, and neither change nor interval."""

    run: str
    task: str  # or all tasks
    metric: str
    step: Count
    value: FiniteFloat
    overall: bool  # of all tasks together
    verdict: Verdict | None  # None where noise is unknown
    best_step: Count | None = None
    best_value: FiniteFloat | None = None
    change: FiniteFloat | None = None  # value - best_value
    low: FiniteFloat | None = None  # 95% interval of the change
    high: FiniteFloat | None = None
    instances: Count | None = None  # that both have read; None where the interval is over standard errors
    reason: str | None = None  # why there is no interval


@dataclass(frozen=True)
class BestSoFar:
    """The best checkpoint of a run, by one metric over all tasks; `newest` may be the same one."""

    run: str
    metric: str | None = None
    task: str | None = None
    candidate: str | None = None
    step: Count | None = None
    value: FiniteFloat | None = None
    since: Day | None = None  # the night that scored it first
    newest: Comparison | None = None
    reason: str | None = None  # why there is none


@dataclass(frozen=True)
class EndForecast:
    """A downstream accuracy as it is forecast for the end of training, with its interval."""

    run: str
    task: str  # or the macro average
    metric: str
    step: Count  # forecast for
    fit_until: Count  # the last checkpoint that was looked at
    forecast: FiniteFloat
    low: FiniteFloat | None  # None without signal
    high: FiniteFloat | None
    confidence: FiniteFloat
    method: str
    reason: str | None = None  # why it has no interval

    @property
    def number(self) -> tuple[str, str, str, int]:
        """Which number is forecast: run, task, metric and step."""
        return self.run, self.task, self.metric, self.step


@dataclass(frozen=True)
class Night:
    """Everything a night found out."""

    date: Day
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
    missed: tuple[Day, ...] = ()  # nights since the last report that have none
    best_so_far: tuple[BestSoFar, ...] = ()  # one for each watched run
    # Of all tasks together every checkpoint, of one task the newest, with the best before it.
    comparisons: tuple[Comparison, ...] = ()


@dataclass(frozen=True)
class Alert:
    """A rule that fired; `key` is the same on every night that it fires for the same cause."""

    rule: str
    key: str
    run: str | None
    text: str  # one or two sentences: what happened, by how much, since when
    numbers: dict[str, Any] = field(default_factory=dict)


Alerts = tuple[Alert, ...]


def night_record(night: Night, alerts: tuple[Alert, ...]) -> dict[str, Any]:
    """A night and its alerts as plain data."""
    return {"schema": SCHEMA, **asdict(night), "alerts": [asdict(alert) for alert in alerts]}


def night_bytes(night: Night, alerts: tuple[Alert, ...]) -> bytes:
    """The content of `night.json`.

    Raises:
        ValueError: a number is not finite; what is missing must be None.
    """
    record = night_record(night, alerts)
    return (json_text(record, indent=1) + "\n").encode()


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
    return checked(Night, given), checked(Alerts, record.get("alerts", ()))


def read_report(path: str) -> tuple[Night, tuple[Alert, ...]]:
    """The night and the alerts of a `night.json`; a local path or `s3://...`.

    Raises:
        FileNotFoundError: there is none.
        InputError: it is damaged, or of another version of this program.
    """
    try:
        return night_from_record(parsed_json(storage.read_bytes(path)))
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read as the record of a night: {error}; restore it, or remove its folder to "
            "go on without that night"
        ) from None


def read_night(path: str) -> Night:
    """The night of a `night.json`; see `read_report`."""
    return read_report(path)[0]
