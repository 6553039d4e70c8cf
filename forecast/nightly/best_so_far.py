"""Each checkpoint against the best before it: how much worse or better, and whether noise explains that.

The noise of a difference is that of the texts: of the paired differences over the instances that both
checkpoints have read (Student's t), or, for scores that were imported with standard errors, of both errors.
Noise from training itself, such as that of the learning rate, is not in it; `is_spike` knows that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from forecast.nightly.records import ALL_TASKS, Comparison, Verdict

CONFIDENCE = 0.95  # of the intervals of differences
_ROUNDING = 1e-9  # relative; smaller differences are none
_RECENT = 20  # checkpoints whose setbacks are what is usual
_FEWEST = 3  # setbacks; of fewer nothing is usual
_UNUSUAL = 4.0  # times the median of these


@dataclass(frozen=True)
class Series:
    """A metric of one task at the checkpoints of one run.

    Attributes:
        sign: +1 where higher is better, -1 where lower is.
        values: by step.
        paired: by two steps, the later first, how many instances both have read and the standard deviation of
            their differences; pairs without instances are left out.
        errors: by step, standard errors of values without instances.
    """

    sign: int
    values: Mapping[int, float]
    paired: Mapping[tuple[int, int], tuple[int, float]] = field(default_factory=dict)
    errors: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Difference:
    """Of two checkpoints on one task; `error` is None where the noise is unknown, for this reason."""

    change: float
    error: float | None
    freedom: float = np.inf  # degrees
    instances: int | None = None
    reason: str | None = None


def compare(run: str, metric: str, by_task: Mapping[str, Series]) -> tuple[Comparison, ...]:
    """Every checkpoint with the best before it, by step: of all tasks together, then of each task.

    All tasks together is the mean over the tasks that every checkpoint has. Where there is only one task, it
    is both.
    """
    steps = sorted({step for series in by_task.values() for step in series.values})
    common = {task: series for task, series in by_task.items() if set(series.values) == set(steps)}
    overall: list[Comparison] = []
    if common:
        name = next(iter(by_task)) if len(by_task) == 1 else ALL_TASKS
        overall = _along(run, name, metric, common, overall=True)
    if len(by_task) == 1:
        return tuple(overall)
    each = [_along(run, task, metric, {task: own}, overall=False) for task, own in by_task.items()]
    return (*overall, *(one for row in each for one in row))


def _along(
    run: str, task: str, metric: str, by_task: Mapping[str, Series], *, overall: bool
) -> list[Comparison]:
    first = next(iter(by_task.values()))
    values = {s: float(np.mean([own.values[s] for own in by_task.values()])) for s in sorted(first.values)}
    found: list[Comparison] = []
    best: int | None = None
    for step, value in values.items():
        if best is None:
            found.append(Comparison(run, task, metric, step, value, overall, "first"))
            best = step
            continue
        parts = [_difference(own, step, best) for own in by_task.values()]
        earlier = [one.value for one in found]
        found.append(_comparison(run, task, metric, step, value, overall, best, earlier, first.sign, parts))
        if first.sign * (value - values[best]) > 0:
            best = step
    return found


def _comparison(
    run: str,
    task: str,
    metric: str,
    step: int,
    value: float,
    overall: bool,
    best: int,
    earlier: Sequence[float],
    sign: int,
    parts: Sequence[_Difference],
) -> Comparison:
    best_value = max(earlier, key=lambda other: sign * other)
    change = value - best_value
    small = abs(change) <= _ROUNDING * max(abs(value), abs(best_value))
    unknown = next((part.reason for part in parts if part.error is None), None)
    low = high = None
    verdict: Verdict | None = "no different" if small else None
    if unknown is None:
        errors = np.array([part.error for part in parts], float) / len(parts)
        error = float(np.sqrt((errors**2).sum()))
        low = high = change
        if error > 0:
            low, high = _interval(change, error, _freedom(errors, parts), sign, best_value, earlier)
        if not small:
            within = low <= 0 <= high
            verdict = "no different" if within else "better" if sign * change > 0 else "worse"
    counts = [part.instances for part in parts if part.instances is not None]
    n = sum(counts) if len(counts) == len(parts) else None
    return Comparison(
        run, task, metric, step, value, overall, verdict, best, best_value, change, low, high, n, unknown
    )


def _interval(
    change: float, error: float, freedom: float, sign: int, best: float, earlier: Sequence[float]
) -> tuple[float, float]:
    """Student's, wider on the side on which the checkpoint is worse, for the best was chosen among many.

    The luckiest of many equal ones is ahead of the next: without the correction 20 % of the checkpoints on a
    plateau of 20 were worse beyond noise, with it 3 % (simulated; 2.5 % are nominal). Those that noise does
    not set apart from the best are the ones that it was chosen among (Bonferroni).
    """
    tail = (1 - CONFIDENCE) / 2
    half = error * float(student.isf(tail, freedom))
    rivals = sum(abs(other - best) <= half for other in earlier)
    wide = error * float(student.isf(tail / rivals, freedom))
    return (change - wide, change + half) if sign < 0 else (change - half, change + wide)


def _freedom(errors: NDArray[np.float64], parts: Sequence[_Difference]) -> float:
    """Welch's degrees of freedom of a sum of differences."""
    freedom = np.array([part.freedom for part in parts])
    return float(np.square((errors**2).sum()) / max((errors**4 / freedom).sum(), 1e-300))


def _difference(series: Series, step: int, best: int) -> _Difference:
    change = series.values[step] - series.values[best]
    if (pair := series.paired.get((step, best))) is not None:
        n, sd = pair
        if n < 2:
            return _Difference(change, None, instances=n, reason=f"instances in common: {n}, 2 are needed")
        return _Difference(change, sd / np.sqrt(n), n - 1, n)
    if step in series.errors and best in series.errors:
        return _Difference(change, float(np.hypot(series.errors[step], series.errors[best])))
    return _Difference(change, None, reason="neither instances nor standard errors are known")


def is_spike(row: Sequence[Comparison], place: int, sign: int, least: float) -> bool:
    """Whether a checkpoint lies behind the best before it by more than this run's setbacks usually do.

    That is by more than `least`, a share of the best value, and by more than four times the median setback of
    the twenty checkpoints before (where three or more of these were setbacks), and not within noise. A single
    task of a healthy run may rise by 10 % and come back, a mean over tasks does not.

    Args:
        row: of one run, task and metric, by step.
        place: of the checkpoint in it.
    """
    if not _beyond_noise(row[place], sign):
        return False
    behind = [_setback(one, sign) for one in row[: place + 1]]
    usual = [share for share in behind[max(0, place - _RECENT) : place] if share > 0]
    most = _UNUSUAL * float(np.median(usual)) if len(usual) >= _FEWEST else 0.0
    return behind[place] > max(least, most)


def _beyond_noise(one: Comparison, sign: int) -> bool:
    """By the interval of this pair alone: what is lucky by that little is below the least share."""
    if one.change is None or one.low is None or one.high is None:
        return one.change is not None  # the noise is unknown
    half = one.high - one.change if sign < 0 else one.change - one.low
    return abs(one.change) > half


def _setback(one: Comparison, sign: int) -> float:
    """By how much it is worse than the best before it, as a share of that; 0 where it is not worse."""
    if one.change is None or one.best_value is None or sign * one.change >= 0:
        return 0.0
    return abs(one.change / one.best_value) if one.best_value else np.inf


def best_of(row: Sequence[Comparison], sign: int) -> Comparison:
    """The best checkpoint of a run, metric and task, of equal ones the first; `row` is not empty."""
    return max(row, key=lambda one: sign * one.value)
