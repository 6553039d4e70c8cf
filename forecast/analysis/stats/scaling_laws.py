"""Scaling laws over (N, D) and over compute, as the baselines of DataDecide (arXiv 2504.11393, appendix).

A loss of one corpus against its runs' sizes, in units of the target's, n = N / N_target, d = D / D_target and
c = n d, so that the forecast for the target is the law at 1:

    2-parameter   L = A c^-a
    3-parameter   L = A c^-a + E
    5-parameter   L = A n^-a + B d^-b + E

Accuracy follows in a second step, `b + s / (1 + exp(k (L - m)))`, or in one: `b + s / (1 + exp(l))` with l
one of the forms above without bounds on E. Helper points add that a loss of 0 means an accuracy of 1. Where
all runs have the same ratio of D to N, as DataDecide's have, n and d say the same, and only the sum of the
two terms of the 5-parameter law is determined; its forecast along that ratio is.

Losses are fitted by relative error. For given exponents a law is linear in its other parameters, which are
none below 0, so non-negative least squares finds them and the search runs over the exponents alone (variable
projection): searched together, the five parameters of DataDecide's corpora had not settled after 100 steps.
Accuracies are fitted as they are. In the second step the two levels have a closed form for given k and m; in
a single step all parameters are searched together. All by `scipy.optimize.least_squares`, within bounds and
from several starts: the best of a grid and some that are drawn with a fixed seed. Too few points, losses that
are not positive, or no start that ends well raise `FitError`, whose message becomes the reason of a null.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls
from scipy.special import expit

from forecast.analysis.stats.curve_fitting import UNIT, best_ends

Array = NDArray[np.float64]
Form = Literal["2-parameter", "3-parameter", "5-parameter"]

FORMS: tuple[Form, ...] = ("2-parameter", "3-parameter", "5-parameter")
PARAMETERS = {"2-parameter": 2, "3-parameter": 3, "5-parameter": 5}
_FLATTEST, _STEEPEST = 0.001, 3.0  # bounds of exponents
_GRID = np.geomspace(0.02, 2.0, 8)
_GRID_STARTS, _RANDOM_STARTS = 2, 1
_MOST_STEPS = 100
_STEEPNESS = np.log(np.geomspace(0.3, 30.0, 9))  # of links, per range of the losses
_MIDDLES = np.linspace(-2.0, 2.0, 17)  # of links, in ranges of the losses around their median
_NAMES = {"2-parameter": ("A", "a"), "3-parameter": ("A", "E", "a"), "5-parameter": ("A", "B", "E", "a", "b")}


class FitError(Exception):
    """A law cannot be fitted; the message says why."""


@dataclass(frozen=True)
class Law:
    """A fitted law."""

    parameters: dict[str, float]
    at: Callable[[Array, Array], Array]  # n, d, both [m], in units of the target -> [m]
    rmse: float  # over the points it was fitted to, in the fitted quantity's own unit

    def at_target(self) -> float:
        """The forecast for the target run."""
        one = np.ones(1)
        return float(self.at(one, one)[0])


def fit_loss(form: Form, n: Array, d: Array, loss: Array) -> Law:
    """A law of losses.

    Args:
        n, d: [m] parameters and tokens in units of the target's.
        loss: [m] positive.

    Raises:
        FitError: see the module.
    """
    _check(n, d, loss, PARAMETERS[form])
    if (loss <= 0).any():
        raise FitError("a loss that is not positive has no power law")
    x, y = np.log(n), np.log(d)

    def coefficients(exponents: Array) -> tuple[Array, Array]:
        """The best amplitudes (and E) for exponents, and the relative residuals."""
        design = _basis(form, exponents, x, y) / loss[:, None]
        best, _ = nnls(design, np.ones(len(loss)))
        return best, design @ best - 1

    exponents = _descend(lambda e: coefficients(e)[1], *_exponent_starts(form, lambda e: coefficients(e)[1]))
    best, _ = coefficients(exponents)
    named = dict(zip(_NAMES[form], [*best, *exponents], strict=True))
    return _law(named, lambda u, v: _basis(form, exponents, np.log(u), np.log(v)) @ best, n, d, loss)


def fit_accuracy(form: Form, n: Array, d: Array, accuracy: Array, top: float = 1.0) -> Law:
    """A single-step law of accuracies.

    Args:
        accuracy: [m] from 0 to `top`.

    Raises:
        FitError: see the module; also for 2-parameter, which DataDecide has in two steps only.
    """
    if form == "2-parameter":
        raise FitError("a single step has the 3- and 5-parameter forms")
    _check(n, d, accuracy, PARAMETERS[form] + 2)
    _check_accuracy(accuracy, top)
    x, y, share = np.log(n), np.log(d), accuracy / top

    def shares(p: Array, u: Array, v: Array) -> Array:
        return np.asarray(p[-2] + p[-1] * expit(-_powers(form, p[:-2], u, v)))

    def gradient(p: Array) -> Array:
        z = [x, y] if form == "5-parameter" else [x + y]
        terms = [np.exp(p[2 * i] - p[2 * i + 1] * zi) for i, zi in enumerate(z)]
        part = expit(-_powers(form, p[:-2], x, y))
        inner = [g for term, zi in zip(terms, z, strict=True) for g in (term, -zi * term)]
        slope = -p[-1] * part * (1 - part)
        return np.stack([*(slope * g for g in inner), slope, np.ones_like(part), part], axis=1)

    inside = np.clip((share - share.min() + 0.02) / (np.ptp(share) + 0.1), 0.02, 0.98)
    steep = -np.log(inside / (1 - inside))  # what the inner law would have to be
    levels = [max(0.0, float(share.min()) - 0.02), min(1.0, float(np.ptp(share)) + 0.1)]
    starts = [np.concatenate([_inner_start(form, x, y, steep, a), levels]) for a in (0.1, 0.3)]
    terms = 2 if form == "5-parameter" else 1
    low, high = [-30.0, 0.0] * terms + [-20.0, 0.0, 0.0], [20.0, _STEEPEST] * terms + [20.0, 1.0, 1.0]
    p = _descend(lambda q: shares(q, x, y) - share, starts, (np.array(low), np.array(high)), gradient)
    named = dict(zip(("log A", "a", "log B", "b"), p[:-3], strict=False))
    named |= {"E": p[-3], "floor": top * p[-2], "rise": top * p[-1]}
    return _law(named, lambda u, v: top * shares(p, np.log(u), np.log(v)), n, d, accuracy)


@dataclass(frozen=True)
class Link:
    """From a loss to an accuracy."""

    parameters: dict[str, float]
    rmse: float
    top: float

    def at(self, loss: Array) -> Array:
        """Accuracies of losses, [m]."""
        p = self.parameters
        accuracy: Array = self.top * (p["b"] + p["s"] * expit(-p["k"] * (loss - p["m"])))
        return accuracy


def fit_link(loss: Array, accuracy: Array, helper_points: bool = False, top: float = 1.0) -> Link:
    """The second step: a falling sigmoid.

    Args:
        helper_points: add an accuracy of `top` at a loss of 0.

    Raises:
        FitError: see the module.
    """
    if helper_points:
        loss, accuracy = np.append(loss, 0.0), np.append(accuracy, top)
    _check(loss, loss, accuracy, 4)
    _check_accuracy(accuracy, top)
    share = accuracy / top
    scale, middle = float(np.ptp(loss)), float(np.median(loss))
    z = (loss - middle) / scale

    def falling(log_k: Array, m: Array) -> Array:
        return np.asarray(expit(-np.exp(log_k) * (z[:, None] - m)))  # [points, shapes]

    log_ks, ms = (grid.ravel() for grid in np.meshgrid(_STEEPNESS, _MIDDLES, indexing="ij"))
    shapes = falling(log_ks, ms)
    low, high = best_ends(shapes, share, UNIT, UNIT)
    low = np.minimum(low, high)  # never rising
    costs = ((low + (high - low) * shapes - share[:, None]) ** 2).sum(axis=0)

    def ends(shape: Array) -> tuple[float, float, Array]:
        part = falling(shape[:1], shape[1:])
        (b,), (t,) = best_ends(part, share, UNIT, UNIT)
        if t < b:
            b = t = share.mean()
        return float(b), float(t), part[:, 0]

    def residuals(shape: Array) -> Array:
        b, t, part = ends(shape)
        return b + (t - b) * part - share

    starts = [np.array([log_ks[i], ms[i]]) for i in np.argsort(costs, kind="stable")[:_GRID_STARTS]]
    bounds = (np.array([_STEEPNESS[0], -4.0]), np.array([_STEEPNESS[-1] + 1, 4.0]))
    shape = _descend(residuals, starts, bounds)
    b, t, _ = ends(shape)
    k = float(np.exp(shape[0])) / scale
    link = Link({"b": b, "s": t - b, "k": k, "m": middle + float(shape[1]) * scale}, 0.0, top)
    return Link(link.parameters, _rmse(link.at(loss), accuracy), top)


def _check(n: Array, d: Array, values: Array, least: int) -> None:
    if not (np.isfinite(n).all() and np.isfinite(d).all() and np.isfinite(values).all()):
        raise FitError("numbers that are not finite")
    points = len(np.unique(np.stack([n, d]), axis=1).T)
    if points < least:
        raise FitError(f"{points} different points, this form needs {least}")


def _check_accuracy(accuracy: Array, top: float) -> None:
    if (accuracy < 0).any() or (accuracy > top).any():
        raise FitError(f"accuracies outside 0..{top:g}")


def _basis(form: Form, exponents: Array, x: Array, y: Array) -> Array:
    """Columns that a law is a sum of, by log n and log d: [m, amplitudes (and E)]."""
    if form == "5-parameter":
        return np.stack([np.exp(-exponents[0] * x), np.exp(-exponents[1] * y), np.ones_like(x)], axis=1)
    power = np.exp(-exponents[0] * (x + y))
    return np.stack([power], axis=1) if form == "2-parameter" else np.stack([power, np.ones_like(x)], axis=1)


def _exponent_starts(
    form: Form, residuals: Callable[[Array], Array]
) -> tuple[list[Array], tuple[Array, Array]]:
    """The best of a grid of exponents and a random one; and their bounds."""
    two = form == "5-parameter"
    grid = [np.array([a, b]) for a in _GRID for b in _GRID] if two else [np.array([a]) for a in _GRID]
    costs = [float((residuals(e) ** 2).sum()) for e in grid]
    starts = [grid[i] for i in np.argsort(costs, kind="stable")[:_GRID_STARTS]]
    size = 2 if two else 1
    starts += list(np.random.default_rng(0).uniform(0.05, 1.0, (_RANDOM_STARTS, size)))
    return starts, (np.full(size, _FLATTEST), np.full(size, _STEEPEST))


def _powers(form: Form, p: Array, x: Array, y: Array) -> Array:
    """Logarithms of amplitudes and exponents in turn, then E."""
    if form == "5-parameter":
        return np.asarray(np.exp(p[0] - p[1] * x) + np.exp(p[2] - p[3] * y) + p[4])
    return np.asarray(np.exp(p[0] - p[1] * (x + y)) + p[2])


def _inner_start(form: Form, x: Array, y: Array, values: Array, a: float) -> Array:
    """A power law of exponent `a` through values of either sign, by least squares."""
    basis = np.exp(-a * (x + y))
    design = np.stack([basis, np.ones_like(basis)], axis=1)
    amplitude, e = np.linalg.lstsq(design, values, rcond=None)[0]
    log_a = float(np.log(max(amplitude, 1e-3)))
    if form == "3-parameter":
        return np.array([log_a, a, e])
    return np.array([log_a - np.log(2), 2 * a, log_a - np.log(2), 2 * a, e])


def _descend(
    residuals: Callable[[Array], Array],
    starts: list[Array],
    bounds: tuple[Array, Array],
    gradient: Callable[[Array], Array] | None = None,
) -> Array:
    """The best end of bounded least squares over the starts."""
    low, high = bounds
    found = []
    for start in starts:
        inside = np.clip(start, low + 1e-9, high - 1e-9)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            try:
                end = least_squares(
                    residuals,
                    inside,
                    bounds=(low, high),
                    x_scale="jac",
                    jac="2-point" if gradient is None else gradient,
                    max_nfev=_MOST_STEPS,
                )
            except (ValueError, RuntimeError):  # a step into numbers that are not finite
                continue
        if np.isfinite(end.cost):
            found.append(end)
    if not found:
        raise FitError(f"none of {len(starts)} starts ended well")
    return np.asarray(min(found, key=lambda end: end.cost).x)


def _law(
    parameters: dict[str, float], at: Callable[[Array, Array], Array], n: Array, d: Array, values: Array
) -> Law:
    fitted = at(n, d)
    if not np.isfinite(fitted).all():
        raise FitError("the best fit is not finite")
    return Law({key: float(value) for key, value in parameters.items()}, at, _rmse(fitted, values))


def _rmse(a: Array, b: Array) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))
