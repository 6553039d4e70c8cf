"""Decisions: which run ends higher and since when that was clear, when to stop, which checkpoint to keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile

import numpy as np
from scipy.stats import norm

from forecast.analysis.checkpoints.backtest import Origin
from forecast.analysis.checkpoints.fit_window import LEAST_AT_ORIGIN
from forecast.analysis.checkpoints.forecast_run import (
    COMBINED_KEY,
    CheckpointsOptions,
    RunForecast,
    TaskForecast,
    forecast_window,
)
from forecast.analysis.checkpoints.noise import noise, smooth

SURE = 0.95
_SAME = 1.05  # checkpoints of two runs within 5 % of t are compared


@dataclass(frozen=True)
class Duel:
    """Two runs at the same t."""

    first: str
    second: str
    tasks: tuple[str, ...]  # common ones with signal in both
    t: float  # where they are compared
    step: float  # of the first run
    difference: float  # first minus second, expected
    sd: float
    probability: float  # that the first is measured above the second
    sure_since: float | None  # step of the first run since when P was above 95 %, for either run


@dataclass(frozen=True)
class Stop:
    """The expected gain from continuing a run."""

    run: str
    what: str  # the macro or the only task
    step: float  # the planned end: the longest horizon
    gain: float  # from the window's end to there, expected
    probability: float  # that it is more than `min_gain`
    min_gain: float
    stop_at: float | None  # step from which on less than `min_gain` is expected; None: not before the end


@dataclass(frozen=True)
class Keep:
    """The best checkpoint so far."""

    run: str
    what: str
    step: float  # best after smoothing
    value: float  # smoothed
    ties: tuple[float, ...]  # steps of others that do not differ from it at 90 %


@dataclass(frozen=True)
class RunDecisions:
    """All decisions of a result."""

    duels: tuple[Duel, ...]
    stops: tuple[Stop, ...]
    keeps: tuple[Keep, ...]


def decide(forecasts: Sequence[RunForecast], options: CheckpointsOptions) -> RunDecisions:
    """All decisions that the combined forecasts allow."""
    duels = [_duel(a, b, tasks, options) for a, b in combinations(forecasts, 2) if (tasks := _common(a, b))]
    usable = [(found, found.tasks[name]) for found in forecasts if (name := found.headline) is not None]
    stops = [stop for found, own in usable if (stop := _stop(found, own, options)) is not None]
    keeps = [_keep(found, own) for found, own in usable if len(own.points.u) >= LEAST_AT_ORIGIN]
    return RunDecisions(tuple(duels), tuple(stops), tuple(keeps))


def _common(a: RunForecast, b: RunForecast) -> list[str]:
    return [task for task in a.with_signal if task in b.with_signal]


def _duel(a: RunForecast, b: RunForecast, tasks: Sequence[str], options: CheckpointsOptions) -> Duel:
    t = max(options.horizons) * min(a.window.t_end, b.window.t_end)
    difference, sd = _difference(a, b, tasks, t)
    probability = float(norm.cdf(difference / sd))
    return Duel(
        a.run,
        b.run,
        tuple(tasks),
        t,
        t / a.window.t_end * a.window.step_end,
        difference,
        sd,
        probability,
        _sure_since(a, b, t, probability, options),
    )


def _difference(a: RunForecast, b: RunForecast, tasks: Sequence[str], t: float) -> tuple[float, float]:
    """Expected difference of the mean over tasks, and its standard deviation."""
    means, variances = [], []
    for found in (a, b):
        horizon = t / found.window.t_end
        values = [found.tasks[k].fits[COMBINED_KEY].forecast(np.array([horizon]))[0] for k in tasks]
        means.append(float(np.mean(values)))
        if found.macro is not None and sorted(tasks) == sorted(found.with_signal):
            sd = found.tasks[found.macro].sd(horizon)
        else:  # errors of a run's tasks are taken as fully correlated
            sd = float(np.mean([found.tasks[k].sd(horizon) for k in tasks]))
        variances.append(sd**2)
    return means[0] - means[1], float(np.sqrt(sum(variances)))


def _sure_since(
    a: RunForecast, b: RunForecast, t: float, now: float, options: CheckpointsOptions
) -> float | None:
    """From rolling origins, each with the checkpoints known then; `now`: P(first above second)."""
    moments = [(a.window.step_end, now)]  # step, P(first above second); the latest first
    for origin in reversed(a.origins):
        then = origin.window.t_end
        near = [o for o in b.origins if then / _SAME <= o.window.t_end <= then * _SAME]
        if not near:
            continue
        first, second = _as_known(a, origin, options), _as_known(b, near[0], options)
        if tasks := _common(first, second):
            difference, sd = _difference(first, second, tasks, t)
            moments.append((origin.window.step_end, float(norm.cdf(difference / sd))))
    sure = takewhile(lambda moment: (moment[1] if now > 0.5 else 1 - moment[1]) >= SURE, moments)
    return min((step for step, _ in sure), default=None)


def _as_known(found: RunForecast, origin: Origin, options: CheckpointsOptions) -> RunForecast:
    """The forecast as of an earlier origin."""
    earlier = tuple(o.known_at(origin.u) for o in found.origins if o.u < origin.u * (1 - 1e-12))
    return forecast_window(found.run, origin.window, origin.fits, earlier, options.confidence, {})


def _stop(found: RunForecast, own: TaskForecast, options: CheckpointsOptions) -> Stop | None:
    end = max(options.horizons)
    horizons = np.geomspace(1.0, end, 60)
    curve = own.fits[COMBINED_KEY].forecast(horizons)
    if not np.isfinite(curve).all():
        return None
    left = curve[-1] - curve
    enough = np.flatnonzero(left >= options.min_gain)
    place = int(enough[-1]) + 1 if len(enough) else 0
    gain = float(left[0])
    return Stop(
        found.run,
        own.task,
        end * found.window.step_end,
        gain,
        float(norm.sf((options.min_gain - gain) / own.sd(end))),
        options.min_gain,
        float(horizons[place] * found.window.step_end) if place < len(horizons) - 1 else None,
    )


def _keep(found: RunForecast, own: TaskForecast) -> Keep:
    points = own.points
    level = smooth(points).y
    best = int(np.argmax(level))
    # Neighbours share most of their weight; half the noise's variance is left of each.
    error = (noise(points) or 0.0) / np.sqrt(2)
    near = level >= level[best] - norm.ppf(0.95) * error * np.sqrt(2)
    steps = points.u * found.window.step_end
    ties = tuple(float(steps[i]) for i in np.flatnonzero(near) if i != best)
    return Keep(found.run, own.task, float(steps[best]), float(level[best]), ties)
