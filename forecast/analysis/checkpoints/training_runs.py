"""Runs as tables: `run, step, tokens, task, metric, value`, one row per checkpoint, task and metric.

`tokens` (training tokens up to the checkpoint) and `flops` may be absent; `task` may be absent where there is
only one. Order of rows does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from forecast.errors import InputError, did_you_mean
from forecast.inputs.files import Problems, Row
from forecast.inputs.long_table import is_repeat, name_at, number_at, read_long_table

Array = NDArray[np.float64]

AXES = ("steps", "tokens", "flops")
_COLUMN = {"steps": "step", "tokens": "tokens", "flops": "flops"}
_NEEDED = ("run", "step", "metric", "value")
ONLY_TASK = "all"  # the name of the task in a table without that column


@dataclass(frozen=True)
class Series:
    """One metric of one task along a run, in order of steps; step 0 is kept."""

    step: Array  # [n]
    t: Array  # [n] steps, tokens or FLOPs
    value: Array  # [n]

    def until(self, step: float) -> "Series":
        """The checkpoints up to a step, it included."""
        return self._part(self.step <= step)

    def after(self, step: float) -> "Series":
        """The checkpoints behind a step."""
        return self._part(self.step > step)

    def started(self) -> "Series":
        """Without step 0, which has no place on a logarithmic axis."""
        return self._part(self.t > 0)

    def _part(self, keep: NDArray[np.bool_]) -> "Series":
        return Series(self.step[keep], self.t[keep], self.value[keep])


@dataclass(frozen=True)
class Run:
    """One training run."""

    name: str
    axis: str  # what `t` counts, of AXES
    series: dict[tuple[str, str], Series]  # by task and metric

    def of(self, metric: str) -> dict[str, Series]:
        """The tasks that have a metric, in alphabetical order."""
        return {task: s for (task, m), s in sorted(self.series.items()) if m == metric}

    def until(self, step: float) -> "Run":
        """The run as it was known at a step: nothing behind it is left."""
        cut = {key: s.until(step) for key, s in self.series.items()}
        return Run(self.name, self.axis, {key: s for key, s in cut.items() if len(s.step)})

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics, in alphabetical order."""
        return tuple(sorted({metric for _, metric in self.series}))


@dataclass(frozen=True)
class Runs:
    """A table of runs and what its reader should know about it."""

    runs: tuple[Run, ...]
    warnings: tuple[str, ...] = field(default=())


def read_runs(path: str, targets: Sequence[str] = (), axis: str | None = None) -> Runs:
    """Read a table of runs (CSV, JSON lines, Parquet, Arrow; also `.gz` and `s3://`).

    Args:
        targets: metrics that are accuracies, checked to lie within 0..1.
        axis: what t counts: `steps`, `tokens` or `flops`. None: tokens where every row has them, else steps.

    Raises:
        InputError: a column, number or name that is missing, NaN, an accuracy outside 0..1, the same
            checkpoint twice, one step with two counts of tokens, tokens that fall as steps rise; names the
            line.
    """
    rows = read_long_table(path, _NEEDED, ("tokens", "flops", "task"))
    columns = list(rows[0].data)
    problems = Problems()
    read = [found for row in rows if (found := _checked(row, columns, targets, problems)) is not None]
    problems.raise_if_any()
    return build_runs(path, read, columns, axis)


@dataclass(frozen=True)
class RunRow:
    """One row, checked."""

    where: str
    run: str
    step: float
    task: str
    metric: str
    value: float
    counts: dict[str, float | None]  # tokens, flops; None where the cell is empty


def build_runs(source: str, read: Sequence[RunRow], columns: Sequence[str], axis: str | None = None) -> Runs:
    """Series from rows; see `read_runs`."""
    axis, warnings = _axis(source, read, columns, axis)
    problems = Problems()
    ordered = sorted(read, key=lambda r: (r.run, r.task, r.metric, r.step))
    _check_counts(ordered, problems)
    places: dict[tuple[object, ...], str] = {}
    runs: dict[str, dict[tuple[str, str], list[RunRow]]] = {}
    for row in ordered:
        found = runs.setdefault(row.run, {}).setdefault((row.task, row.metric), [])
        is_repeat((row.run, f"step {row.step:.17g}", row.task, row.metric), row.where, places, problems)
        found.append(row)
    problems.raise_if_any()
    result = tuple(
        Run(name, axis, {key: _series(found, axis) for key, found in series.items()})
        for name, series in runs.items()
    )
    return Runs(result, warnings)


def _series(rows: Sequence[RunRow], axis: str) -> Series:
    step = np.array([r.step for r in rows])
    t = step if axis == "steps" else np.array([r.counts[axis] for r in rows], float)
    return Series(step, t, np.array([r.value for r in rows]))


def _axis(
    source: str, read: Sequence[RunRow], columns: Sequence[str], axis: str | None
) -> tuple[str, tuple[str, ...]]:
    if axis is not None and axis not in AXES:
        raise InputError(f"axis {axis!r}: {did_you_mean(axis, AXES)}")
    complete = [a for a in AXES if a == "steps" or all(r.counts.get(a) is not None for r in read)]
    if axis is None:
        chosen = "tokens" if "tokens" in complete else "steps"
        partly = "tokens" in columns and chosen == "steps"
        return chosen, (("column tokens has empty cells: forecasts run over steps",) if partly else ())
    if axis not in complete:
        column = _COLUMN[axis]
        gap = next((r.where for r in read if r.counts.get(axis) is None), source)
        raise InputError(f"{gap}: --axis {axis} needs a number in column {column!r} of every row")
    return axis, ()


def _check_counts(ordered: Sequence[RunRow], problems: Problems) -> None:
    """Tokens and FLOPs are a property of the step, and never fall as steps rise."""
    for axis in AXES[1:]:
        seen: dict[str, dict[float, tuple[float, str]]] = {}  # by run and step: the count and its place
        for r in ordered:
            if (count := r.counts.get(axis)) is None:
                continue
            first, where = seen.setdefault(r.run, {}).setdefault(r.step, (count, r.where))
            if first != count:
                problems.add(
                    r.where,
                    f"step {r.step:g} of run {r.run!r} has {count:g} {axis} here and {first:g} at {where}",
                )
        for run, steps in seen.items():
            for (before, (less, first_at)), (now, (more, where)) in pairwise(sorted(steps.items())):
                if more <= less:
                    problems.add(
                        where,
                        f"{axis} do not rise with the steps of run {run!r}: {more:g} at step {now:g}, "
                        f"{less:g} at step {before:g} ({first_at})",
                    )


def _checked(row: Row, columns: Sequence[str], targets: Sequence[str], problems: Problems) -> RunRow | None:
    name, metric = (name_at(row, key, problems) for key in ("run", "metric"))
    task = name_at(row, "task", problems) if "task" in columns else ONLY_TASK
    step, value = (number_at(row, key, problems, needed=True) for key in ("step", "value"))
    counts = {
        axis: number_at(row, axis, problems, needed=True) if row.data.get(axis) not in (None, "") else None
        for axis in AXES[1:]
    }
    if step is not None and step < 0:
        problems.add(row.where, f"step {step:g}, expected 0 or more")
    for axis, count in counts.items():
        if count is not None and count < 0:
            problems.add(row.where, f"{axis} {count:g}, expected 0 or more")
        elif count == 0 and step is not None and step > 0:
            problems.add(
                row.where, f"{axis} 0 at step {step:g}, expected more; leave the cell empty if unknown"
            )
    if metric in targets and value is not None and not 0 <= value <= 1:
        hint = "; as a share, not in percent" if 1 < value <= 100 else ""
        problems.add(row.where, f"{metric} {value:g}, expected an accuracy within 0..1{hint}")
    if name is None or metric is None or task is None or step is None or value is None:
        return None
    return RunRow(row.where, name, step, task, metric, value, counts)
