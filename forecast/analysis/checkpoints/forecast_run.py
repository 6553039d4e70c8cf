"""The forecast of one run: window, rolling origins, combination, intervals, macro."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import numpy as np

from forecast.analysis.checkpoints.backtest import Origin, roll
from forecast.analysis.checkpoints.conformal import Errors, Scale, scales_of
from forecast.analysis.checkpoints.ensemble import Combination, combine, combined_fit, spread
from forecast.analysis.checkpoints.fit_window import LEAST, Points, Window, mean_points, window_of
from forecast.analysis.checkpoints.methods import COMBINED, METHOD, Fit, Key, constant, fit_window, keys_of
from forecast.analysis.checkpoints.noise import level, no_signal, noise
from forecast.analysis.checkpoints.training_runs import Run
from forecast.analysis.stats.curve_fitting import Array

MACRO = "macro"
COMBINED_KEY = Key(COMBINED)
_NO_NOISE = 0.01  # taken for a task with fewer than three checkpoints: that of about 2,000 questions


@dataclass(frozen=True)
class CheckpointsOptions:
    """What is asked for; see the options of `forecast extrapolate`."""

    target: str
    proxies: tuple[str, ...]
    fit_until: float  # step
    loss: str | None = None  # metric of generic texts
    loss_task: str | None = None  # the only one of them that counts
    horizons: tuple[float, ...] = (2.0, 4.0, 8.0, 18.0)  # t / t_end
    chance: Mapping[str, float] = field(default_factory=dict)  # by task; fits and forecasts are not below
    floor: Mapping[str, float] = field(default_factory=dict)  # by task; only forecasts are not below
    breaks: tuple[float, ...] = ()  # steps at which the learning-rate schedule breaks
    confidence: float = 0.9
    min_gain: float = 0.01  # accuracy; below it continuing a run is not worth it

    @property
    def since(self) -> float:
        """Fits begin here: the last break inside the window."""
        return max((b for b in self.breaks if b <= self.fit_until), default=0.0)

    @property
    def before(self) -> float:
        """Forecasts are compared up to here: the first break after the window."""
        return min((b for b in self.breaks if b > self.fit_until), default=np.inf)


@dataclass(frozen=True)
class TaskForecast:
    """One task (or the macro over tasks) of one run."""

    task: str
    points: Points  # of the window
    left_out: str | None  # why it has too little signal to be forecast
    fits: Mapping[Key, Fit]  # the combination among them
    scales: Mapping[Key, Scale]
    validation: Mapping[Key, float | None]  # RMSE at rolling origins
    floor: float = 0.0  # the level of chance, 0 where it is unknown

    def interval(self, key: Key, horizon: Array) -> tuple[Array, Array, Array]:
        """Forecast, not below chance, lower and upper end, within 0..1: [n] each; NaN where there is none.

        A single checkpoint may be measured below chance, so the interval may reach there. A task without
        signal has no interval: nothing says how it will leave its level.
        """
        at = self.fits[key].forecast(horizon)
        if key not in self.scales:  # a reference, which is what it is
            return at, np.full_like(at, np.nan), np.full_like(at, np.nan)
        at = np.maximum(at, self.floor)
        if self.left_out is not None:
            return at, np.full_like(at, np.nan), np.full_like(at, np.nan)
        half = self.scales[key].half_width(horizon, self.fits[key].spread(horizon))
        return at, np.clip(at - half, 0, 1), np.clip(at + half, 0, 1)

    def sd(self, horizon: float) -> float:
        """Standard deviation of the combined forecast's error."""
        at = np.array([horizon])
        return float(self.scales[COMBINED_KEY].sd(at, self.fits[COMBINED_KEY].spread(at))[0])


@dataclass(frozen=True)
class RunForecast:
    """All of one run."""

    run: str
    window: Window
    keys: tuple[Key, ...]  # those shown: the combination last
    combination: Combination
    tasks: Mapping[str, TaskForecast]
    macro: str | None  # the name of the macro among the tasks
    origins: tuple[Origin, ...]  # without the macro
    failed: Mapping[str, str]  # by task, why it could not be fitted

    @property
    def with_signal(self) -> list[str]:
        """The tasks with enough signal, without the macro."""
        return [task for task, own in self.tasks.items() if own.left_out is None and task != self.macro]

    @property
    def headline(self) -> str | None:
        """The macro, or the only task with signal."""
        return self.macro or next(iter(self.with_signal), None)


def forecast_run(
    run: Run, options: CheckpointsOptions, on_origin: Callable[[int, int], None] | None = None
) -> RunForecast:
    """Forecast every task of a run; uses no checkpoint after `options.fit_until`."""
    window = window_of(
        run,
        options.target,
        options.proxies,
        options.loss,
        options.fit_until,
        options.chance,
        options.since,
    )
    # Tasks that begin after the window are listed, so that none is missing silently.
    n_points = {
        task: len(window.targets[task].u) if task in window.targets else 0 for task in run.of(options.target)
    }
    failed = {task: _too_few(n, options) for task, n in n_points.items() if n < LEAST}
    usable = {task: points for task, points in window.targets.items() if task not in failed}
    window = replace(window, targets=usable)
    origins = roll(window, on_origin) if usable else ()
    floor = {**options.floor, **options.chance}
    return forecast_window(run.name, window, fit_window(window), origins, options.confidence, failed, floor)


def forecast_window(
    name: str,
    window: Window,
    fits: Mapping[str, Mapping[Key, Fit]],
    origins: tuple[Origin, ...],
    confidence: float,
    failed: Mapping[str, str],
    floor: Mapping[str, float] = MappingProxyType({}),
) -> RunForecast:
    """Forecast from a window that is fitted already, and its rolling origins too."""
    keys = keys_of(window)
    left_out = {task: no_signal(p, window.chance.get(task)) for task, p in window.targets.items()}
    strong = [task for task, reason in left_out.items() if reason is None]
    combination = combine(origins, keys, strong or list(window.targets))
    kept = _with_combination(fits, window, combination, left_out)
    held = [replace(o, fits=_with_combination(o.fits, o.window, combination, left_out)) for o in origins]
    points = dict(window.targets)
    macro = None
    floors = {task: floor.get(task, 0.0) for task in points}
    if len(strong) > 1:
        macro = MACRO if MACRO not in window.targets else f"{MACRO} of {len(strong)} tasks"
        kept[macro] = _mean_fits([kept[task] for task in strong], combination)
        points[macro] = mean_points([points[task] for task in strong])
        floors[macro] = float(np.mean([floors[task] for task in strong]))
        held = [_origin_with_macro(origin, strong, macro, combination) for origin in held]
    noises = {task: noise(p) or _NO_NOISE for task, p in points.items()}
    shown = (*(key for key in keys if key.proxy in (None, combination.proxy)), COMBINED_KEY)
    errors = {key: {task: _errors(held, task, key) for task in points} for key in shown}
    scales = {
        key: scales_of(by_task, noises, confidence, strong or list(points))
        for key, by_task in errors.items()
        if METHOD[key.method].kind != "reference"
    }
    tasks = {
        task: TaskForecast(
            task,
            p,
            left_out.get(task),
            kept[task],
            {key: by_task[task] for key, by_task in scales.items()},
            {key: by_task[task].rmse for key, by_task in errors.items()},
            floors[task],
        )
        for task, p in points.items()
    }
    return RunForecast(name, window, shown, combination, tasks, macro, tuple(origins), failed)


def _too_few(n: int, options: CheckpointsOptions) -> str:
    since = f" since the break at step {options.since:g}" if options.since else ""
    return (
        f"{n} checkpoints with {options.target} up to step {options.fit_until:g}{since} (step 0 not "
        f"counted), {LEAST} are needed"
    )


def _with_combination(
    fits: Mapping[str, Mapping[Key, Fit]],
    window: Window,
    combination: Combination,
    left_out: Mapping[str, str | None],
) -> dict[str, dict[Key, Fit]]:
    found = {}
    for task, own in fits.items():
        weak = left_out[task] is not None  # forecast by its current level
        made = constant(level(window.targets[task].recent())) if weak else combined_fit(own, combination)
        found[task] = {**own, COMBINED_KEY: made}
    return found


def _mean_fits(fits: Sequence[Mapping[Key, Fit]], combination: Combination) -> dict[Key, Fit]:
    """The mean over tasks of every method; none where a task lacks the method."""
    found = {}
    for key in fits[0]:
        parts = [own[key] for own in fits]
        reason = next((part.reason for part in parts if part.at is None), None)
        found[key] = Fit(None, f"on one of the tasks: {reason}") if reason else Fit(partial(_mean, parts))
    found[COMBINED_KEY] = replace(found[COMBINED_KEY], spread=partial(spread, dict(found), combination))
    return found


def _mean(parts: Sequence[Fit], u: Array) -> Array:
    return np.asarray(np.mean([part.forecast(u) for part in parts], axis=0))


def _origin_with_macro(origin: Origin, strong: Sequence[str], macro: str, combination: Combination) -> Origin:
    if any(task not in origin.held for task in strong):
        return origin
    common = mean_points([origin.held[task] for task in strong])
    if not len(common.u):
        return origin
    fits = {**origin.fits, macro: _mean_fits([origin.fits[task] for task in strong], combination)}
    return replace(origin, fits=fits, held={**origin.held, macro: common})


def _errors(origins: Sequence[Origin], task: str, key: Key) -> Errors:
    parts = [np.empty((3, 0))]
    for origin in origins:
        if task in origin.held:
            horizon, error = origin.horizon(task), origin.errors(task, key)
            apart = origin.fits[task][key].spread(horizon)
            parts.append(np.stack([horizon, error, apart])[:, np.isfinite(error)])
    return Errors(*np.concatenate(parts, axis=1))
