"""Rows of the result: one per run, task, method and horizon, with the actual value where it is known."""

from dataclasses import dataclass, replace

import numpy as np

from forecast.analysis.checkpoints.fit_window import Points, mean_points
from forecast.analysis.checkpoints.forecast_run import COMBINED_KEY, CheckpointsOptions, RunForecast
from forecast.analysis.checkpoints.methods import METHOD, METHODS, Key
from forecast.analysis.checkpoints.training_runs import Run, Series
from forecast.analysis.stats.figures import number

# A checkpoint within 5 % of a horizon's t stands for it; a run rarely has one exactly there.
NEAR = 1.05


@dataclass(frozen=True, kw_only=True)
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
    predicted: float | None = None
    lower: float | None = None  # of the interval for one checkpoint
    upper: float | None = None
    confidence: float
    actual: float | None = None  # at the checkpoint nearest to the horizon, within 5 % of its t
    actual_step: float | None = None
    error: float | None = None  # predicted minus actual
    rmse: float | None = None  # over all checkpoints after the window and up to this horizon
    covered: float | None = None  # share of the same checkpoints inside the interval
    covered_at_horizon: float | None = None  # whether `actual` lies inside: 1 or 0
    n_checkpoints: int = 0  # over which `rmse` and `covered` are taken
    validation_rmse: float | None = None  # at rolling origins inside the window
    signal: bool = False  # False: too little of it; the task is left out of macro and summary
    reason: str | None = None  # why something is null
    note: str | None = None  # a caution


def later_of(run: Run, found: RunForecast, options: CheckpointsOptions) -> dict[str, Series]:
    """Actual values after the window, by task, t in its lengths; the macro where all its tasks have them."""
    later = {}
    for task, s in run.of(options.target).items():
        if task in found.tasks and task != found.macro:
            after = s.where((s.step > options.fit_until) & (s.step < options.before))
            later[task] = Series(after.step, after.t / found.window.t_end, after.value)
    if found.macro is not None:
        parts = [later[task] for task in found.with_signal]
        mean = mean_points([Points(part.step, part.value) for part in parts])
        later[found.macro] = Series(mean.u, parts[0].t[np.isin(parts[0].step, mean.u)], mean.y)
    return later


def horizons_of(later: dict[str, Series], options: CheckpointsOptions) -> tuple[float, ...]:
    """Those requested, and the end of the run where none of them is near it."""
    wanted = set(options.horizons)
    end = max((float(series.t[-1]) for series in later.values() if len(series.t)), default=1.0)
    if end > NEAR and not any(h / NEAR <= end <= h * NEAR for h in wanted):
        wanted.add(end)
    return tuple(sorted(wanted))


def rows_of(run: Run, found: RunForecast, options: CheckpointsOptions) -> list[ForecastRow]:
    """All rows of a run; those of tasks that could not be fitted hold the reason."""
    later = later_of(run, found, options)
    horizons = horizons_of(later, options)
    rows = [
        _row(found, task, key, h, later[task], options)
        for task in found.tasks
        for key in found.keys
        for h in horizons
    ]
    return rows + [
        replace(_empty_row(found, task, Key(method.name), h, options), reason=reason)
        for task, reason in found.failed.items()
        for method in METHODS
        for h in options.horizons
    ]


def _empty_row(
    found: RunForecast, task: str, key: Key, horizon: float, options: CheckpointsOptions
) -> ForecastRow:
    return ForecastRow(
        run=found.run,
        task=task,
        method=key.method,
        kind=METHOD[key.method].kind,
        proxy=key.proxy,
        fit_until=options.fit_until,
        horizon=horizon,
        step=horizon * found.window.step_end,
        confidence=options.confidence,
    )


def _row(
    found: RunForecast, task: str, key: Key, horizon: float, later: Series, options: CheckpointsOptions
) -> ForecastRow:
    own = found.tasks[task]
    at, low, high = (number(v[0]) for v in own.interval(key, np.array([horizon])))
    weak = own.left_out is not None and key == COMBINED_KEY
    row = replace(
        _empty_row(found, task, key, horizon, options),
        predicted=at,
        lower=low,
        upper=high,
        validation_rmse=own.validation[key],
        signal=own.left_out is None,
        reason=own.fits[key].reason,
        note=f"{own.left_out}: forecast by its level now, without an interval" if weak else None,
    )
    upto = later.where(later.t <= horizon * NEAR)
    if not len(upto.t) or upto.t[-1] < horizon / NEAR:
        return replace(row, reason=row.reason or _nothing_later(later, options))
    nearest = int(np.argmin(np.abs(np.log(later.t / horizon))))
    actual = float(later.value[nearest])
    row = replace(row, actual=actual, actual_step=float(later.step[nearest]), n_checkpoints=len(upto.t))
    if at is None:
        return row
    then, lower, upper = own.interval(key, upto.t)
    inside = (lower <= upto.value) & (upto.value <= upper)
    _, low_then, high_then = own.interval(key, later.t[nearest : nearest + 1])
    known = bool(np.isfinite(lower).all())
    return replace(
        row,
        error=at - actual,
        rmse=float(np.sqrt(np.mean((then - upto.value) ** 2))),
        covered=float(np.mean(inside)) if known else None,
        covered_at_horizon=float(low_then[0] <= actual <= high_then[0]) if known else None,
    )


def _nothing_later(later: Series, options: CheckpointsOptions) -> str:
    if not len(later.step):
        return f"no checkpoint after step {options.fit_until:g} to compare with"
    broken = f" (the schedule breaks at step {options.before:g})" if np.isfinite(options.before) else ""
    return (
        f"the last checkpoint to compare with is step {later.step[-1]:g}, {later.t[-1]:.3g} times the "
        f"window{broken}"
    )
