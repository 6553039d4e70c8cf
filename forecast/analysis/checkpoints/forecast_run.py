"""The forecast of one run: window, rolling origins, combination, intervals, macro."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from forecast.analysis.checkpoints.backtest import Origin, roll
from forecast.analysis.checkpoints.conformal import Errors, Scale, scales_of
from forecast.analysis.checkpoints.ensemble import Combination, combine, combined_fit, level_fit, spread
from forecast.analysis.checkpoints.fit_window import LEAST, Points, Window, mean_points, window_of
from forecast.analysis.checkpoints.methods import COMBINED, METHOD, Fit, Key, fit_window, keys_of
from forecast.analysis.checkpoints.noise import no_signal, noise
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
    chance: Mapping[str, float] = field(default_factory=dict)  # by task
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
    spread: Callable[[Array], Array]  # of the members, over u

    def interval(self, key: Key, horizon: Array) -> tuple[Array, Array, Array]:
        """Forecast, lower and upper end, within 0..1: [n] each; NaN where there is none."""
        at = self.fits[key].forecast(horizon)
        if key not in self.scales:
            return at, np.full_like(at, np.nan), np.full_like(at, np.nan)
        apart = self.spread(horizon) if key == COMBINED_KEY else np.zeros(len(horizon))
        half = self.scales[key].half_width(horizon, apart)
        return at, np.clip(at - half, 0, 1), np.clip(at + half, 0, 1)

    def sd(self, horizon: float) -> float | None:
        """Standard deviation of the combined forecast's error."""
        if COMBINED_KEY not in self.scales:
            return None
        at = np.array([horizon])
        return float(self.scales[COMBINED_KEY].sd(at, self.spread(at))[0])


@dataclass(frozen=True)
class RunForecast:
    """All of one run."""

    run: str
    t_end: float
    step_end: float
    window: Window
    keys: tuple[Key, ...]  # those shown: the combination last
    combination: Combination
    tasks: Mapping[str, TaskForecast]
    macro: str | None  # the name of the macro among the tasks
    origins: tuple[Origin, ...]  # without the macro
    failed: Mapping[str, str]  # by task, why it could not be fitted


def forecast_run(
    run: Run, options: CheckpointsOptions, on_origin: Callable[[int, int], None] | None = None
) -> RunForecast:
    """Forecast every task of a run; uses no checkpoint after `options.fit_until`."""
    until = options.fit_until
    window, t_end = window_of(
        run, options.target, options.proxies, options.loss, until, options.chance, options.since
    )
    known = run.until(until).of(options.target)
    step_end = max((float(s.step[-1]) for s in known.values()), default=0.0)
    # Tasks that begin after the window are listed, so that none is missing silently.
    failed = {
        task: _too_few(len(window.targets[task].u) if task in window.targets else 0, options)
        for task in run.of(options.target)
        if task not in window.targets or len(window.targets[task].u) < LEAST
    }
    usable = {task: points for task, points in window.targets.items() if task not in failed}
    window = Window(usable, window.proxies, window.loss, window.chance)
    origins = roll(window, on_origin) if usable else ()
    return forecast_window(run.name, window, origins, options, t_end, step_end, failed)


def forecast_window(
    name: str,
    window: Window,
    origins: tuple[Origin, ...],
    options: CheckpointsOptions,
    t_end: float,
    step_end: float,
    failed: Mapping[str, str] | None = None,
    fits: Mapping[str, Mapping[Key, Fit]] | None = None,
) -> RunForecast:
    """Forecast from a window whose rolling origins are fitted already; `fits`: the window itself, too."""
    keys = keys_of(window)
    left_out = {task: no_signal(p, window.chance.get(task)) for task, p in window.targets.items()}
    strong = [task for task, reason in left_out.items() if reason is None]
    combination = combine(origins, keys, strong or list(window.targets))
    kept = _with_combination(fit_window(window) if fits is None else fits, window, combination, left_out)
    held = [replace(o, fits=_with_combination(o.fits, o.window, combination, left_out)) for o in origins]
    macro = None
    if len(strong) > 1:
        macro = MACRO if MACRO not in window.targets else f"{MACRO} of {len(strong)} tasks"
        kept[macro] = _mean_fits([kept[task] for task in strong])
        held = [_origin_with_macro(origin, strong, macro) for origin in held]
    points = dict(window.targets)
    if macro is not None:
        points[macro] = mean_points([points[task] for task in strong])
    noises = {task: noise(p) or _NO_NOISE for task, p in points.items()}
    shown = (*(key for key in keys if key.proxy in (None, combination.proxy)), COMBINED_KEY)
    scales = _all_scales(
        held, shown, points, noises, combination, left_out, options.confidence, strong or list(points)
    )
    tasks = {
        task: TaskForecast(
            task,
            p,
            left_out.get(task),
            kept[task],
            {key: by_task[task] for key, by_task in scales.items() if task in by_task},
            {key: _rmse(held, task, key) for key in shown},
            _spread(kept[task], combination, left_out.get(task)),
        )
        for task, p in points.items()
    }
    return RunForecast(
        name, t_end, step_end, window, shown, combination, tasks, macro, tuple(origins), failed or {}
    )


def known_at(origins: Sequence[Origin], u: float) -> tuple[Origin, ...]:
    """The origins before u, with the actual values known by then; their u are unchanged."""
    found = []
    for origin in origins:
        if origin.u >= u * (1 - 1e-12):
            continue
        held = {}
        for task, h in origin.held.items():
            keep = h.u <= u * (1 + 1e-12)
            if keep.any():
                held[task] = Points(h.u[keep], h.y[keep])
        found.append(replace(origin, held=held))
    return tuple(found)


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
        weak = left_out.get(task) is not None
        made = level_fit(window.targets[task]) if weak else combined_fit(own, combination)
        found[task] = {**own, COMBINED_KEY: made}
    return found


def _mean_fits(fits: Sequence[Mapping[Key, Fit]]) -> dict[Key, Fit]:
    """The mean over tasks of every method; none where a task lacks the method."""
    found = {}
    for key in fits[0]:
        parts = [own[key] for own in fits]
        reason = next((part.reason for part in parts if part.at is None), None)
        found[key] = Fit(None, f"on one of the tasks: {reason}") if reason else Fit(_mean_line(parts))
    return found


def _mean_line(parts: Sequence[Fit]) -> Callable[[Array], Array]:
    return lambda u: np.asarray(np.mean([part.forecast(u) for part in parts], axis=0))


def _origin_with_macro(origin: Origin, strong: Sequence[str], macro: str) -> Origin:
    if any(task not in origin.held for task in strong):
        return origin
    common = mean_points([origin.held[task] for task in strong])
    if not len(common.u):
        return origin
    fits = {**origin.fits, macro: _mean_fits([origin.fits[task] for task in strong])}
    return replace(origin, fits=fits, held={**origin.held, macro: common})


def _spread(
    fits: Mapping[Key, Fit], combination: Combination, left_out: str | None
) -> Callable[[Array], Array]:
    if left_out is not None:  # its forecast is its level, whatever the members forecast
        return lambda u: np.zeros(len(u))
    return lambda u: spread(fits, combination, u)


def _all_scales(
    origins: Sequence[Origin],
    keys: Sequence[Key],
    points: Mapping[str, Points],
    noises: Mapping[str, float],
    combination: Combination,
    left_out: Mapping[str, str | None],
    confidence: float,
    decide: Sequence[str],
) -> dict[Key, dict[str, Scale]]:
    found = {}
    for key in keys:
        if METHOD[key.method].kind == "reference":
            continue
        errors = {
            task: _errors(origins, task, key, None if left_out.get(task) else combination) for task in points
        }
        found[key] = scales_of(errors, noises, confidence, decide)
    return found


def _errors(origins: Sequence[Origin], task: str, key: Key, combination: Combination | None) -> Errors:
    """`combination`: None where the spread of the members does not enter the interval."""
    parts = [np.empty((3, 0))]
    for origin in origins:
        if task not in origin.held:
            continue
        horizon, error = origin.horizon(task), origin.errors(task, key)
        known = np.isfinite(error)
        apart = np.zeros(len(horizon))
        if key == COMBINED_KEY and combination is not None:
            apart = spread(origin.fits[task], combination, horizon)
        parts.append(np.stack([horizon, error, apart])[:, known])
    return Errors(*np.concatenate(parts, axis=1))


def _rmse(origins: Sequence[Origin], task: str, key: Key) -> float | None:
    """Of all errors at rolling origins."""
    errors = [origin.errors(task, key) for origin in origins if task in origin.held]
    joined = np.concatenate(errors) if errors else np.empty(0)
    joined = joined[np.isfinite(joined)]
    return float(np.sqrt(np.mean(joined**2))) if len(joined) else None
