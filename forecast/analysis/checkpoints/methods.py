"""Methods that extrapolate an accuracy beyond the window: baselines, proxies, members of the combination.

Each sees one `Window` and returns a curve over u = t / t_end, within 0..1. All use the checkpoints of
`Points.recent`. Where a method cannot be fitted, there is a reason instead of a number.
"""

from collections.abc import Callable, Mapping
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

RECENT_LINE = 4.0  # the last fourfold of t: two doublings


@dataclass(frozen=True)
class Fit:
    """One method on one task: a curve, or the reason why there is none."""

    at: Line | None
    reason: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)

    def forecast(self, u: Array) -> Array:
        """Within 0..1; NaN where there is no curve."""
        if self.at is None:
            return np.full(len(u), np.nan)
        return np.clip(self.at(u), 0.0, 1.0)


@dataclass(frozen=True)
class Key:
    """A method, with the proxy that it uses."""

    method: str
    proxy: str | None = None

    def __str__(self) -> str:
        return self.method if self.proxy is None else f"{self.method} ({self.proxy})"


def keys_of(window: Window) -> tuple[Key, ...]:
    """All methods that are fitted to a window, without the combination."""
    found = []
    for method in METHODS:
        if method.name == COMBINED:
            continue
        if method.needs == "proxy":
            found += [Key(method.name, proxy) for proxy in window.proxies]
        else:
            found.append(Key(method.name))
    return tuple(found)


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
    loss_exponents = pooled_exponents(losses)
    loss = _source(
        mean_points(list(window.loss.values())), loss_exponents, "no cross-entropy of generic texts"
    )
    sources: dict[tuple[str, str], _Source | str] = {}
    for metric, by_task in window.proxies.items():
        pooled = pooled_exponents([points.recent() for points in by_task.values()] + losses)
        shared: dict[int, _Source | str] = {}  # several tasks may share one series
        for task in recent:
            points = by_task.get(task, Points(np.empty(0), np.empty(0)))
            if id(points) not in shared:
                shared[id(points)] = _source(points, pooled, f"no {metric} for this task in the window")
            sources[metric, task] = shared[id(points)]
            if task not in by_task:
                shared.pop(id(points))
    return {
        task: {key: _fit(key, points, window, task, exponents, loss, sources) for key in keys_of(window)}
        for task, points in recent.items()
    }


def _fit(
    key: Key,
    points: Points,
    window: Window,
    task: str,
    exponents: Array,
    loss: _Source | str,
    sources: Mapping[tuple[str, str], _Source | str],
) -> Fit:
    chance = window.chance.get(task)
    floor = UNIT if chance is None else (chance, chance)
    try:
        if METHOD[key.method].needs == "target":
            return _direct(key.method, points, exponents, floor)
        source = loss if key.proxy is None else sources[key.proxy, task]
        if isinstance(source, str):
            return Fit(None, source)
        return _two_step(key.method, points, source, floor)
    except FitError as error:
        return Fit(None, str(error))


def _direct(name: str, points: Points, exponents: Array, floor: Bounds) -> Fit:
    u, y = points.u, points.y
    if name == "last_value":
        last = float(y[-1])
        return Fit(lambda v: np.full(len(v), last), parameters={"a": last})
    if name == "recent_line":
        n = max(min(4, len(u)), int((u >= u[-1] / RECENT_LINE).sum()))
        return _of_curve(fit_log_linear(u[-n:], y[-n:]))
    if name == "averaged_power_law":
        return Fit(averaged_power(points, exponents))
    if name == "averaged_sigmoid":
        line = averaged_sigmoid(np.log(u), y, floor)
        return Fit(lambda v: line(np.log(v)))
    if name == "sigmoid_log_t":
        curve = fit_sigmoid(np.log(u), y, floor)
        return Fit(lambda v: curve.at(np.log(v)), parameters=curve.parameters)
    plain: dict[str, Callable[[], Curve]] = {
        "log_linear": lambda: fit_log_linear(u, y),
        "compute_power_law": lambda: fit_power(u, y, UNIT),
        "monotone_spline": lambda: fit_monotone_spline(u, y),
    }
    return _of_curve(plain[name]())


def _of_curve(curve: Curve) -> Fit:
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
