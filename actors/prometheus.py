"""The numbers of a run as Prometheus metrics, through Ray: every node of a cluster hands them out.

Ray puts `ray_` before each name and adds labels of its own (node, session, worker). Where it serves them is
Ray's affair: `ray start --metrics-export-port`; on this machine alone, a port of loopback.

Bounded in number: `run` is the configuration's name, not the id of one run, so that nights add no series;
of more than `MOST_CANDIDATES` candidates the rest share the label `(others)`; and a series whose number is
not known (a speed before anything is read, the time left of what waits) is NaN, which Ray does not hand out.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from forecast.runs.events import Subscriber
from forecast.runs.status import RunStatus
from forecast.runs.status_file import to_stderr
from forecast.safe_text import clean

MOST_CANDIDATES = 200
OTHERS = "(others)"
_MOST_CHARACTERS = 120

# Of each candidate, by the key of its status record.
_GAUGES = {
    "units": ("forecast_units_total", "Units of work in the plan."),
    "committed": ("forecast_units_committed", "Units that are in the lake, those of earlier runs too."),
    "tokens_per_second": ("forecast_tokens_per_second", "Tokens read per second of scoring time."),
    "seconds_left": ("forecast_seconds_left", "Estimated time remaining, at the recent throughput."),
}
_COUNTERS = {
    "tokens_read": ("forecast_tokens_read_total", "Tokens read in this run."),
    "retries": ("forecast_retries_total", "Retries of groups of units."),
}
# Of the whole run.
_RUN_GAUGES = {
    "tokens_per_second": ("forecast_run_tokens_per_second", "As forecast_tokens_per_second, of the run."),
    "seconds_left": ("forecast_run_seconds_left", "Estimated time remaining of the run."),
    "candidates_failed": (
        "forecast_candidates_failed",
        "Candidates given up or in quarantine.",
    ),
}
_RUN_COUNTERS = {"restarts": ("forecast_restarts_total", "Scoring processes that died or were ended.")}


class Metrics(Subscriber):
    """Sets the metrics about once a second; needs a connection to Ray."""

    def __init__(self, status: RunStatus, say: Callable[[str], None] = to_stderr) -> None:
        """Args: status: receives each event before this does."""
        self._status, self._say, self._broken = status, say, False
        self._run = label(status.name)
        keys = ("run", "candidate")
        self._gauges = {key: Gauge(*about, keys) for key, about in _GAUGES.items()}
        self._counters = {key: Counter(*about, keys) for key, about in _COUNTERS.items()}
        self._run_gauges = {key: Gauge(*about, ("run",)) for key, about in _RUN_GAUGES.items()}
        self._run_counters = {key: Counter(*about, ("run",)) for key, about in _RUN_COUNTERS.items()}
        self._counted: dict[tuple[str, str], float] = {}  # what was added to counters, by key and candidate

    def beat(self) -> None:
        if self._broken:
            return
        try:
            self._set()
        except Exception as error:  # whatever Ray has against a number is not worth the run
            self._broken = True
            self._say(f"no more metrics: {error!r}; scoring continues without them")

    def _set(self) -> None:
        record = self._status.as_record()
        for candidate, numbers in series(record["candidates"]).items():
            tags = {"run": self._run, "candidate": candidate}
            for key, gauge in self._gauges.items():
                gauge.set(_number(numbers[key]), tags)
            for key, counter in self._counters.items():
                self._count(counter, key, candidate, numbers[key] or 0, tags)
        record["candidates_failed"] = record["states"]["failed"]
        for key, gauge in self._run_gauges.items():
            gauge.set(_number(record[key]), {"run": self._run})
        for key, counter in self._run_counters.items():
            self._count(counter, key, "", record[key], {"run": self._run})

    def close(self) -> None:
        """The last numbers; Ray hands them out if the connection outlives its next report."""
        self.beat()

    def _count(self, counter: Counter, key: str, candidate: str, value: float, tags: dict[str, str]) -> None:
        more = value - self._counted.get((key, candidate), 0)
        if more > 0:
            counter.inc(more, tags)
            self._counted[key, candidate] = value


def series(candidates: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Numbers by the label of a candidate; those beyond the first `MOST_CANDIDATES` are added up.

    Speed and time left are no sums, so of the others they are unknown.
    """
    found: dict[str, dict[str, float | None]] = {}
    sums = ("units", "committed", *_COUNTERS)
    for place, record in enumerate(candidates):
        name = label(record["candidate"])
        if place < MOST_CANDIDATES and name not in found and name != OTHERS:
            found[name] = {key: record[key] for key in (*_GAUGES, *_COUNTERS)}
            continue
        others = found.setdefault(OTHERS, dict.fromkeys((*_GAUGES, *_COUNTERS)))
        for key in sums:
            others[key] = (others[key] or 0) + record[key]
    return found


def label(text: str) -> str:
    """A name as a label: Ray takes ASCII alone, so other characters are written as escapes."""
    return clean(text).encode("ascii", "backslashreplace").decode()[:_MOST_CHARACTERS]


def _number(value: float | None) -> float:
    return math.nan if value is None else value
