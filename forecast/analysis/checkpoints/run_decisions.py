"""Decisions: which run ends higher and since when that was clear, when to stop, which checkpoint to keep."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.stats import norm

from forecast.analysis.checkpoints.backtest import Origin
from forecast.analysis.checkpoints.fit_window import LEAST_AT_ORIGIN
from forecast.analysis.checkpoints.forecast_run import (
    COMBINED_KEY,
    CheckpointsOptions,
    RunForecast,
    forecast_window,
    known_at,
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
    usable = [found for found in forecasts if found.tasks]
    duels = [duel for a, b in combinations(usable, 2) if (duel := _duel(a, b, options)) is not None]
    stops = [stop for found in usable if (stop := _stop(found, options)) is not None]
    keeps = [keep for found in usable if (keep := _keep(found)) is not None]
    return RunDecisions(tuple(duels), tuple(stops), tuple(keeps))


def _duel(a: RunForecast, b: RunForecast, options: CheckpointsOptions) -> Duel | None:
    tasks = _common(a, b)
    if not tasks:
        return None
    t = max(options.horizons) * min(a.t_end, b.t_end)
    difference, sd = _difference(a, b, tasks, t)
    probability = float(norm.cdf(difference / sd))
    return Duel(
        a.run,
        b.run,
        tuple(tasks),
        t,
        t / a.t_end * a.step_end,
        difference,
        sd,
        probability,
        _sure_since(a, b, t, probability, options),
    )


def _common(a: RunForecast, b: RunForecast) -> list[str]:
    return [task for task in _strong(a) if task in _strong(b)]


def _strong(found: RunForecast) -> list[str]:
    return [task for task, own in found.tasks.items() if own.left_out is None and task != found.macro]


def _difference(a: RunForecast, b: RunForecast, tasks: Sequence[str], t: float) -> tuple[float, float]:
    """Expected difference of the mean over tasks, and its standard deviation."""
    means, variances = [], []
    for found in (a, b):
        horizon = t / found.t_end
        values = [found.tasks[k].fits[COMBINED_KEY].forecast(np.array([horizon]))[0] for k in tasks]
        means.append(float(np.mean(values)))
        if found.macro is not None and sorted(tasks) == sorted(_strong(found)):
            sd = found.tasks[found.macro].sd(horizon)
        else:  # errors of a run's tasks are taken as fully correlated
            sds = [found.tasks[k].sd(horizon) for k in tasks]
            sd = float(np.mean([s for s in sds if s is not None]))
        assert sd is not None  # the combination has a scale on every task
        variances.append(sd**2)
    return means[0] - means[1], float(np.sqrt(sum(variances)))


def _sure_since(
    a: RunForecast, b: RunForecast, t: float, now: float, options: CheckpointsOptions
) -> float | None:
    """From rolling origins, each with the checkpoints known then; `now`: P(first above second)."""
    moments: list[tuple[float, float]] = []  # step, P(first above second)
    for origin in a.origins:
        then = origin.u * a.t_end
        partner = next((o for o in b.origins if then / _SAME <= o.u * b.t_end <= then * _SAME), None)
        if partner is None:
            continue
        early = [_as_known(found, o, options) for found, o in ((a, origin), (b, partner))]
        tasks = _common(*early)
        if not tasks:
            continue
        difference, sd = _difference(early[0], early[1], tasks, t)
        moments.append((origin.u * a.step_end, float(norm.cdf(difference / sd))))
    moments.append((a.step_end, now))
    since = None
    above = now > 0.5
    for step, p in reversed(moments):
        if (p if above else 1 - p) < SURE:
            break
        since = step
    return since


def _as_known(found: RunForecast, origin: Origin, options: CheckpointsOptions) -> RunForecast:
    """The forecast as of an earlier origin."""
    earlier = known_at(found.origins, origin.u)
    t_end, step_end = found.t_end * origin.u, found.step_end * origin.u
    asked = replace(options, fit_until=step_end)
    return forecast_window(found.run, origin.window, earlier, asked, t_end, step_end, fits=origin.fits)


def _what(found: RunForecast) -> str | None:
    """The macro, or the only task with signal."""
    if found.macro is not None:
        return found.macro
    strong = _strong(found)
    return strong[0] if strong else None


def _stop(found: RunForecast, options: CheckpointsOptions) -> Stop | None:
    what = _what(found)
    if what is None:
        return None
    own = found.tasks[what]
    end = max(options.horizons)
    horizons = np.geomspace(1.0, end, 60)
    curve = own.fits[COMBINED_KEY].forecast(horizons)
    sd = own.sd(end)
    if sd is None or not np.isfinite(curve).all():
        return None
    left = curve[-1] - curve
    enough = np.flatnonzero(left >= options.min_gain)
    place = int(enough[-1]) + 1 if len(enough) else 0
    gain = float(left[0])
    return Stop(
        found.run,
        what,
        end * found.step_end,
        gain,
        float(norm.sf((options.min_gain - gain) / sd)),
        options.min_gain,
        float(horizons[place] * found.step_end) if place < len(horizons) - 1 else None,
    )


def _keep(found: RunForecast) -> Keep | None:
    what = _what(found)
    if what is None or len(found.tasks[what].points.u) < LEAST_AT_ORIGIN:
        return None
    points = found.tasks[what].points
    level = smooth(points).y
    best = int(np.argmax(level))
    # Neighbours share most of their weight; half the noise's variance is left of each.
    error = (noise(points) or 0.0) / np.sqrt(2)
    near = level >= level[best] - norm.ppf(0.95) * error * np.sqrt(2)
    steps = points.u * found.step_end
    ties = tuple(float(steps[i]) for i in np.flatnonzero(near) if i != best)
    return Keep(found.run, what, float(steps[best]), float(level[best]), ties)
