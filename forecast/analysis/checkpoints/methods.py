"""Methods that extrapolate an accuracy beyond the window: baselines, proxies, members of the combination.

Each sees one `Window` and returns a curve over u = t / t_end, within 0..1. All use the checkpoints of
`Points.recent`. Where a method cannot be fitted, there is a reason instead of a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from forecast.analysis.checkpoints.fit_window import Points, Window, mean_points
from forecast.analysis.checkpoints.shape_averaging import (
    Line,
    averaged_power,
    averaged_sigmoid,
    pooled_exponents,
)
from forecast.analysis.stats.curve_fitting import (
    UNIT,
    Array,
    Bounds,
    Curve,
    FitError,
    fit_log_linear,
    fit_monotone_spline,
    fit_power,
    fit_sigmoid,
)


@dataclass(frozen=True)
class Method:
    """A forecasting method."""

    name: str
    kind: str  # baseline, proxy, member (of the combined forecast only), reference, combined
    about: str
    needs: str = "target"  # target, loss or proxy


COMBINED = "combined"
METHODS = (
    Method("last_value", "baseline", "the last checkpoint carried forward"),
    Method("log_linear", "baseline", "straight line in log t"),
    Method("compute_power_law", "baseline", "a - b t^-c of the accuracy itself, a within 0..1"),
    Method("sigmoid_log_t", "baseline", "sigmoid in log t"),
    Method(
        "cross_entropy_linear", "baseline", "power law of generic text's cross-entropy, then linear", "loss"
    ),
    Method("cross_entropy_logistic", "baseline", "the same, then logistic", "loss"),
    Method("proxy_linear", "proxy", "power law of the task's proxy, then linear", "proxy"),
    Method("proxy_logistic", "proxy", "the same, then logistic", "proxy"),
    Method("monotone_spline", "reference", "best monotone curve through the window, level beyond it"),
    Method("recent_line", "member", "straight line in log t through the last fourfold of the window"),
    Method("averaged_power_law", "member", "power law averaged over exponents, which the tasks share"),
    Method("averaged_sigmoid", "member", "sigmoid in log t averaged over its shape"),
    Method("averaged_cross_entropy", "member", "averaged power law, averaged logistic", "loss"),
    Method("averaged_proxy", "member", "averaged power law, averaged logistic", "proxy"),
    Method(COMBINED, "combined", "all others, weighted by their errors at rolling origins"),
)
METHOD = {method.name: method for method in METHODS}

_RECENT_LINE = 4.0  # the last fourfold of t: two doublings


def _no_spread(u: Array) -> Array:
    return np.zeros(len(u))


@dataclass(frozen=True)
class Fit:
    """One method on one task: a curve, or the reason why there is none."""

    at: Line | None
    reason: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    spread: Line = _no_spread  # standard deviation of a combination's members, over u

    def forecast(self, u: Array) -> Array:
        """Within 0..1; NaN where there is no curve."""
        if self.at is None:
            return np.full(len(u), np.nan)
        return np.clip(self.at(u), 0.0, 1.0)


def constant(value: float) -> Fit:
    """The same at every u."""
    return Fit(lambda u: np.full(len(u), value), parameters={"a": value})


@dataclass(frozen=True)
class Key:
    """A method, with the proxy that it uses."""

    method: str
    proxy: str | None = None

    def __str__(self) -> str:
        return self.method if self.proxy is None else f"{self.method} ({self.proxy})"


def keys_of(window: Window) -> tuple[Key, ...]:
    """All methods that are fitted to a window, without the combination."""
    return tuple(
        Key(method.name, proxy)
        for method in METHODS
        if method.name != COMBINED
        for proxy in (window.proxies if method.needs == "proxy" else (None,))
    )


@dataclass(frozen=True)
class _Source:
    """The first step of a two-step forecast: a series, its fitted curve and its averaged curve."""

    points: Points
    curve: Curve
    averaged: Line


def fit_window(window: Window) -> dict[str, dict[Key, Fit]]:
    """All methods on all tasks of a window, by task."""
    recent = {task: points.recent() for task, points in window.targets.items()}
    exponents = pooled_exponents(list(recent.values()))
    losses = [points.recent() for points in window.loss.values()]
    loss = mean_points(list(window.loss.values()))
    generic = _source(loss, pooled_exponents(losses), "no cross-entropy of generic texts")
    sources: dict[tuple[str | None, str], _Source | str] = {(None, task): generic for task in recent}
    for metric, by_task in window.proxies.items():
        pooled = pooled_exponents([points.recent() for points in by_task.values()] + losses)
        missing = f"no {metric} for this task in the window"
        series = {id(points): points for points in by_task.values()}  # several tasks may share one
        shared = {place: _source(points, pooled, missing) for place, points in series.items()}
        for task in recent:
            sources[metric, task] = shared[id(by_task[task])] if task in by_task else missing
    floors = {task: (chance, chance) for task, chance in window.chance.items()}
    return {
        task: {
            key: _fit(key, points, exponents, sources[key.proxy, task], floors.get(task, UNIT))
            for key in keys_of(window)
        }
        for task, points in recent.items()
    }


def _fit(key: Key, points: Points, exponents: Array, source: _Source | str, floor: Bounds) -> Fit:
    try:
        if METHOD[key.method].needs == "target":
            return _direct(key.method, points, exponents, floor)
        if isinstance(source, str):
            return Fit(None, source)
        return _two_step(key.method, points, source, floor)
    except FitError as error:
        return Fit(None, str(error))


def _direct(name: str, points: Points, exponents: Array, floor: Bounds) -> Fit:
    u, y = points.u, points.y
    match name:
        case "last_value":
            return constant(float(y[-1]))
        case "averaged_power_law":
            return Fit(averaged_power(points, exponents))
        case "averaged_sigmoid":
            line = averaged_sigmoid(np.log(u), y, floor)
            return Fit(lambda v: line(np.log(v)))
        case "sigmoid_log_t":
            sigmoid = fit_sigmoid(np.log(u), y, floor)
            return Fit(lambda v: sigmoid.at(np.log(v)), parameters=sigmoid.parameters)
        case "recent_line":
            n = max(min(4, len(u)), int((u >= u[-1] / _RECENT_LINE).sum()))
            curve = fit_log_linear(u[-n:], y[-n:])
        case "log_linear":
            curve = fit_log_linear(u, y)
        case "compute_power_law":
            curve = fit_power(u, y, UNIT)
        case _:
            curve = fit_monotone_spline(u, y)
    return Fit(curve.at, parameters=curve.parameters)


def _two_step(name: str, points: Points, source: _Source, floor: Bounds) -> Fit:
    """First the curve of the source, then the map from the source to the accuracy, both inside the window."""
    known = (points.u >= source.points.u[0]) & (points.u <= source.points.u[-1] * (1 + 1e-12))
    if known.sum() < 3:
        raise FitError(f"{int(known.sum())} checkpoints have both the target and {name.split('_')[0]}")
    u, y = points.u[known], points.y[known]
    averaged = name.startswith("averaged")
    first = source.averaged if averaged else source.curve.at
    # Members read the source from its own smooth curve: noise in x flattens the map (errors in variables).
    x = first(u) if averaged else source.points.at(u)
    if np.ptp(x) <= 1e-12 * max(1.0, abs(float(x[0]))):
        raise FitError("the series does not change within the window")
    if averaged:
        line = averaged_sigmoid(x, y, floor)
        return Fit(lambda v: line(first(v)))
    parameters = {f"curve_{name}": value for name, value in source.curve.parameters.items()}
    if name.endswith("linear"):
        slope, start = (float(value) for value in np.polyfit(x, y, 1))
        parameters |= {"map_intercept": start, "map_slope": slope}
        return Fit(lambda v: start + slope * first(v), parameters=parameters)
    curve = fit_sigmoid(x, y, floor)
    parameters |= {f"map_{name}": value for name, value in curve.parameters.items()}
    return Fit(lambda v: curve.at(first(v)), parameters=parameters)


def _source(points: Points, exponents: Array, missing: str) -> _Source | str:
    if not len(points.u):
        return missing
    recent = points.recent()
    try:
        return _Source(points, fit_power(recent.u, recent.y), averaged_power(recent, exponents))
    except FitError as error:
        return str(error)
