"""Rows of the result: one per run, task, method and horizon, with the actual value where it is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecast.analysis.checkpoints.forecast_run import (
    COMBINED_KEY,
    CheckpointsOptions,
    RunForecast,
    TaskForecast,
)
from forecast.analysis.checkpoints.methods import METHOD, Key
from forecast.analysis.checkpoints.training_runs import Run, Series
from forecast.analysis.stats.curve_fitting import Array
from forecast.analysis.stats.figures import number

# A checkpoint within 5 % of a horizon's t stands for it; a run rarely has one exactly there.
NEAR = 1.05


@dataclass(frozen=True)
class ForecastRow:
    """One forecast."""

    run: str
    task: str
    method: str
    kind: str  # baseline, proxy, member, reference, combined
    proxy: str | None
    fit_until: float  # step
    horizon: float  # t / t of the last checkpoint in the window
    step: float  # horizon times the step of that checkpoint
    predicted: float | None
    lower: float | None  # of the interval for one checkpoint
    upper: float | None
    confidence: float
    actual: float | None  # at the checkpoint nearest to the horizon, within 5 % of its t
    actual_step: float | None
    error: float | None  # predicted minus actual
    rmse: float | None  # over all checkpoints after the window and up to this horizon
    covered: float | None  # share of the same checkpoints inside the interval
    n_checkpoints: int  # over which `rmse` and `covered` are taken
    validation_rmse: float | None  # at rolling origins inside the window
    signal: bool  # False: too little of it; the task is left out of macro and summary
    reason: str | None  # why something is null
    note: str | None  # a caution


@dataclass(frozen=True)
class Later:
    """Actual values after the window."""

    horizon: Array  # [m] t / t_end, above 1
    step: Array  # [m]
    value: Array  # [m]


def later_of(run: Run, found: RunForecast, options: CheckpointsOptions) -> dict[str, Later]:
    """The checkpoints after the window, by task; the macro at those that all its tasks have."""
    tasks = run.of(options.target)
    later = {}
    for task in found.tasks:
        if task in tasks and task != found.macro:
            later[task] = _later(tasks[task], found.t_end, options)
    if found.macro is not None:
        parts = [later[task] for task, own in found.tasks.items() if task in later and own.left_out is None]
        common = parts[0].step
        for part in parts[1:]:
            common = common[np.isin(common, part.step)]
        kept = [np.isin(part.step, common) for part in parts]
        values = np.mean([part.value[keep] for part, keep in zip(parts, kept, strict=True)], axis=0)
        later[found.macro] = Later(parts[0].horizon[kept[0]], common, values)
    return later


def _later(series: Series, t_end: float, options: CheckpointsOptions) -> Later:
    after = series.after(options.fit_until)
    keep = after.step < options.before
    return Later(after.t[keep] / t_end, after.step[keep], after.value[keep])


def horizons_of(later: dict[str, Later], options: CheckpointsOptions) -> tuple[float, ...]:
    """Those requested, and the end of the run where none of them is near it."""
    ends = [float(found.horizon[-1]) for found in later.values() if len(found.horizon)]
    wanted = sorted(set(options.horizons))
    if ends:
        end = max(ends)
        if end > NEAR and not any(h / NEAR <= end <= h * NEAR for h in wanted):
            wanted = sorted([*wanted, end])
    return tuple(wanted)


def rows_of(
    run: Run, found: RunForecast, options: CheckpointsOptions, members: bool = True
) -> list[ForecastRow]:
    """All rows of a run.

    Args:
        members: also those of the combination's members.
    """
    later = later_of(run, found, options)
    horizons = horizons_of(later, options)
    rows = []
    for task, own in found.tasks.items():
        for key in found.keys:
            if METHOD[key.method].kind == "member" and not members:
                continue
            rows += [_row(found, own, key, h, later[task], options) for h in horizons]
    return rows


def _row(
    found: RunForecast, own: TaskForecast, key: Key, horizon: float, later: Later, options: CheckpointsOptions
) -> ForecastRow:
    method = METHOD[key.method]
    at, low, high = (number(v[0]) for v in own.interval(key, np.array([horizon])))
    upto = later.horizon <= horizon * NEAR
    actual = actual_step = rmse = covered = None
    reason = own.fits[key].reason
    if upto.any() and later.horizon[upto][-1] >= horizon / NEAR:
        nearest = int(np.argmin(np.abs(np.log(later.horizon / horizon))))
        actual, actual_step = float(later.value[nearest]), float(later.step[nearest])
        if at is not None:
            then, lower, upper = own.interval(key, later.horizon[upto])
            rmse = float(np.sqrt(np.mean((then - later.value[upto]) ** 2)))
            if np.isfinite(lower).all():
                covered = float(np.mean((lower <= later.value[upto]) & (later.value[upto] <= upper)))
    elif reason is None:
        reason = _nothing_later(found, later, options)
    return ForecastRow(
        found.run,
        own.task,
        key.method,
        method.kind,
        key.proxy,
        options.fit_until,
        horizon,
        horizon * found.step_end,
        at,
        low,
        high,
        options.confidence,
        actual,
        actual_step,
        None if at is None or actual is None else at - actual,
        rmse,
        covered,
        int(upto.sum()) if actual is not None else 0,
        own.validation[key],
        own.left_out is None,
        reason,
        _note(own, key),
    )


def _note(own: TaskForecast, key: Key) -> str | None:
    if own.left_out is None or key != COMBINED_KEY:
        return None
    return f"{own.left_out}: forecast by its level now, and the interval holds only while it stays there"


def _nothing_later(found: RunForecast, later: Later, options: CheckpointsOptions) -> str:
    if not len(later.step):
        return f"no checkpoint behind step {options.fit_until:g} to compare with"
    reached = later.horizon[-1]
    end = f"the last checkpoint to compare with is step {later.step[-1]:g}, {reached:.3g} times the window"
    broken = np.isfinite(options.before)
    return end + (f" (the schedule breaks at step {options.before:g})" if broken else "")


def failed_rows(found: RunForecast, options: CheckpointsOptions, keys: Sequence[Key]) -> list[ForecastRow]:
    """Rows of the tasks that could not be fitted: nulls with the reason."""
    nothing = (None,) * 3
    return [
        ForecastRow(
            found.run, task, key.method, METHOD[key.method].kind, key.proxy, options.fit_until, h,
            h * found.step_end, *nothing, options.confidence, None, None, None, None, None, 0, None, False,
            reason, None,
        )
        for task, reason in found.failed.items()
        for key in keys
        for h in options.horizons
    ]  # fmt: skip
