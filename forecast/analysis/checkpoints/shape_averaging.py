"""Curves averaged over their shape, for windows too short and too noisy to determine it.

Ten noisy checkpoints fit a power law with exponent 0.1 nearly as well as one with 0.9, and at 18 times the
window these are far apart. The best fit then follows the noise; the mean over all shapes, weighted by how
well each fits, does not. The distribution of exponents within a run is estimated from all its series and
used as the prior of each (empirical Bayes).

The weight of a shape is its prior times SSE^(-(n - p) / 2): the likelihood of normal noise whose size is
unknown, p parameters being free beside the shape.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import expit

from forecast.analysis.checkpoints.fit_window import Points
from forecast.analysis.stats.curve_fitting import FREE, UNIT, Array, Bounds, FitError, best_ends, best_line

Line = Callable[[Array], Array]  # [n] of u or of a proxy -> [n]

_LOG_C = np.linspace(np.log(0.03), np.log(3.0), 31)
_C = np.exp(_LOG_C)
# Loss against tokens falls with exponents of 0.2 to 0.6 within a run; broad enough for data to overrule.
_PRIOR = np.exp(-0.5 * ((_LOG_C - np.log(0.35)) / 0.7) ** 2)
_PRIOR /= _PRIOR.sum()
_KERNEL = np.exp(-0.5 * ((_LOG_C[:, None] - _LOG_C) / 0.25) ** 2)
_KERNEL /= _KERNEL.sum(axis=1, keepdims=True)
_ROUNDS = 4  # of expectation maximisation; the prior is broad and settles at once
_PRIOR_SERIES = 3.0  # the prior counts as this many series

_STEEPNESS, _MIDDLE = (
    g.ravel() for g in np.meshgrid(np.geomspace(0.15, 5.0, 12), np.linspace(-3.0, 4.0, 22), indexing="ij")
)
_CEILING, _CEILING_SD = 0.95, 0.15  # prior of a sigmoid's upper end: most tasks can be solved, but for slips
_SSE_FLOOR = 1e-12


def pooled_exponents(series: Sequence[Points]) -> Array:
    """Prior over the grid of exponents, from several series of one run: [grid], sums to 1."""
    logs = [_log_likelihood(_power_grid(p)[2], len(p.u), 2) for p in series if len(np.unique(p.u)) >= 3]
    prior: Array = _PRIOR
    for _ in range(_ROUNDS if logs else 0):
        posteriors = [_normalised(prior * np.exp(each)) for each in logs]
        prior = _normalised(np.sum(posteriors, axis=0) @ _KERNEL + _PRIOR_SERIES * _PRIOR)
    return prior


def averaged_power(points: Points, prior: Array) -> Line:
    """`a - b u^-c`, averaged over c.

    Args:
        prior: of `pooled_exponents`.

    Raises:
        FitError: fewer than three different u.
    """
    if len(np.unique(points.u)) < 3:
        raise FitError(f"{len(np.unique(points.u))} different points, this form needs 3")
    a, b, sse = _power_grid(points)
    weight = _normalised(prior * np.exp(_log_likelihood(sse, len(points.u), 2)))
    return lambda u: (a + b * _growth(u)) @ weight


def averaged_sigmoid(x: Array, y: Array, floor: Bounds = UNIT) -> Line:
    """`low + (high - low) / (1 + exp(-k (x - m)))`, averaged over k and m; see `fit_sigmoid`.

    Raises:
        FitError: fewer than three different x.
    """
    if len(np.unique(x)) < 3:
        raise FitError(f"{len(np.unique(x))} different points, this form needs 3")
    centre, spread = x.mean(), x.std()
    sign = 1.0 if np.polyfit(x - centre, y, 1)[0] >= 0 else -1.0

    def share(v: Array) -> Array:
        grid: Array = expit(_STEEPNESS * (sign * (v - centre) / spread)[:, None] - _STEEPNESS * _MIDDLE)
        return grid

    inside = share(x)
    low, high = best_ends(inside, y, floor, UNIT)
    sse = ((low + (high - low) * inside - y[:, None]) ** 2).sum(axis=0)
    ceiling = np.exp(-0.5 * ((high - _CEILING) / _CEILING_SD) ** 2)
    weight = _normalised(ceiling * np.exp(_log_likelihood(sse, len(x), 3)))
    return lambda v: (low + (high - low) * share(v)) @ weight


def _growth(u: Array) -> Array:
    """`(1 - u^-c) / c`: 0 at the window's end, with slope 1 in ln u there: [n, grid]."""
    growth: Array = -np.expm1(-_C * np.log(u)[:, None]) / _C
    return growth


def _power_grid(points: Points) -> tuple[Array, Array, Array]:
    basis = _growth(points.u)
    a, b = best_line(basis, points.y, FREE)
    return a, b, ((points.y[:, None] - a - b * basis) ** 2).sum(axis=0)


def _log_likelihood(sse: Array, n: int, free: int) -> Array:
    log = -0.5 * max(n - free, 1) * np.log(np.maximum(sse, _SSE_FLOOR))
    relative: Array = log - log.max()
    return relative


def _normalised(weight: Array) -> Array:
    normalised: Array = weight / weight.sum()
    return normalised
