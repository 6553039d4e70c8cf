"""What a night found out: facts that rules judge and reports tell, plain data that goes to JSON and back."""

from dataclasses import dataclass, field
from typing import Any


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
