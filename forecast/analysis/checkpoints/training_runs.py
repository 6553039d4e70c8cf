"""Runs as tables: `run, step, tokens, task, metric, value`, one row per checkpoint, task and metric.

`tokens` (training tokens up to the checkpoint) and `flops` may be absent; `task` may be absent where there is
only one. Order of rows does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from forecast.errors import ConfigError, InputError, did_you_mean
from forecast.inputs.files import Problems, SourceRow
from forecast.inputs.long_table import is_repeat, name_at, number_at, read_long_table

Array = NDArray[np.float64]

AXES = ("steps", "tokens", "flops")
_NEEDED = ("run", "step", "metric", "value")
ONLY_TASK = "all"  # the name of the task in a table without that column


@dataclass(frozen=True)
class Series:
    """One metric of one task along a run, in order of steps; step 0 is kept."""

    step: Array  # [n]
    t: Array  # [n] steps, tokens or FLOPs
    value: Array  # [n]

    def where(self, keep: NDArray[np.bool_]) -> "Series":
        """The checkpoints at which `keep` [n] is true."""
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
        """The run as it was known at a step: without later checkpoints."""
        cut = {key: s.where(s.step <= step) for key, s in self.series.items()}
        return Run(self.name, self.axis, {key: s for key, s in cut.items() if len(s.step)})

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics, in alphabetical order."""
        return tuple(sorted({metric for _, metric in self.series}))


@dataclass(frozen=True)
class Runs:
    """A table of runs and what its reader should know about it."""

    runs: tuple[Run, ...]
    warnings: tuple[str, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """Of all runs, in alphabetical order."""
        return sorted({metric for run in self.runs for metric in run.metrics})

    @property
    def last_step(self) -> float:
        """Of any run and metric."""
        return max(float(series.step[-1]) for run in self.runs for series in run.series.values())

    def tasks(self, metric: str) -> list[str]:
        """Tasks that have a metric in some run, in alphabetical order."""
        return sorted({task for run in self.runs for task in run.of(metric)})


def read_runs(path: str, targets: Sequence[str] = (), axis: str | None = None) -> Runs:
    """Read a table of runs (CSV, JSON lines, Parquet, Arrow; also `.gz` and `s3://`).

    Args:
        targets: metrics that are accuracies, checked to lie within 0..1.
        axis: what t counts: `steps`, `tokens` or `flops`. None: tokens where every row has them, else steps.

    Raises:
        InputError: a column, number or name that is missing, NaN, an accuracy outside 0..1, the same
            checkpoint twice, one step with two counts of tokens, tokens that fall as steps rise; names the
            line.
        ConfigError: an unknown axis.
    """
    rows = read_long_table(path, _NEEDED, ("tokens", "flops", "task"))
    columns = list(rows[0].data)
    problems = Problems()
    read = [found for row in rows if (found := _checked(row, columns, targets, problems)) is not None]
    problems.raise_if_any()
    return build_runs(read, axis, "tokens" in columns)


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


def build_runs(read: Sequence[RunRow], axis: str | None = None, has_tokens: bool = True) -> Runs:
    """Series from rows; see `read_runs`.

    Args:
        has_tokens: whether the table has a column of tokens, be it with empty cells.
    """
    axis, warnings = _axis(read, axis, has_tokens)
    problems = Problems()
    ordered = sorted(read, key=lambda r: (r.run, r.task, r.metric, r.step))
    _check_counts(ordered, problems)
    places: dict[tuple[object, ...], str] = {}
    for row in ordered:
        is_repeat((row.run, f"step {row.step:.17g}", row.task, row.metric), row.where, places, problems)
    problems.raise_if_any()
    runs: dict[str, dict[tuple[str, str], Series]] = {}
    for (run, task, metric), rows in groupby(ordered, key=lambda r: (r.run, r.task, r.metric)):
        runs.setdefault(run, {})[task, metric] = _series(list(rows), axis)
    return Runs(tuple(Run(name, axis, series) for name, series in runs.items()), warnings)


def _series(rows: Sequence[RunRow], axis: str) -> Series:
    step = np.array([r.step for r in rows])
    t = step if axis == "steps" else np.array([r.counts[axis] for r in rows], float)
    return Series(step, t, np.array([r.value for r in rows]))


def _axis(read: Sequence[RunRow], axis: str | None, has_tokens: bool) -> tuple[str, tuple[str, ...]]:
    if axis is not None and axis not in AXES:
        raise ConfigError(f"axis {axis!r}: {did_you_mean(axis, AXES)}")
    gaps = {a: [r.where for r in read if r.counts[a] is None] for a in AXES[1:]}
    if axis is None and not gaps["tokens"]:
        return "tokens", ()
    if axis is None:
        warning = "column tokens has empty cells: forecasts run over steps"
        return "steps", ((warning,) if has_tokens else ())
    if gaps.get(axis):
        raise InputError(f"{gaps[axis][0]}: --axis {axis} needs a number in column {axis!r} of every row")
    return axis, ()


def _check_counts(ordered: Sequence[RunRow], problems: Problems) -> None:
    """Tokens and FLOPs are a property of the step, and never fall as steps rise."""
    for axis in AXES[1:]:
        seen: dict[str, dict[float, tuple[float, str]]] = {}  # by run and step: the count and its place
        for r in ordered:
            if (count := r.counts[axis]) is None:
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


def _checked(
    row: SourceRow, columns: Sequence[str], targets: Sequence[str], problems: Problems
) -> RunRow | None:
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
