"""Noise of a series from its neighbouring checkpoints, its current level, and whether it has signal yet."""

from functools import lru_cache

import numpy as np
from scipy.stats import t as student

from forecast.analysis.checkpoints.fit_window import LEAST, Points
from forecast.analysis.stats.curve_fitting import Array

_ENOUGH = 12  # checkpoints from which one task's own residuals tell how its noise is correlated
_SURE = 0.99  # confidence that a task has changed, below that
# 99th percentile of `change` in noise alone, by the number of checkpoints: the largest over lag-1
# autocorrelations of 0, 0.5 and 0.8, even steps and even steps in log t
# (`python tests/analysis/checkpoints/signal_simulations.py` prints it; linear in between).
_CRITICAL = {  # chance unknown, known
    12: (8.3, 9.3),
    15: (7.7, 8.8),
    20: (6.5, 7.1),
    30: (5.7, 6.2),
    60: (4.3, 4.5),
    120: (3.3, 3.6),
}
_LEVEL = 3  # checkpoints whose mean is the current level


def noise(points: Points) -> float | None:
    """Standard deviation of a checkpoint about a smooth curve; None for fewer than three.

    Each checkpoint against the straight line (in log t) through its two neighbours, divided by what
    independent noise makes of that difference: sqrt of the mean of e^2 / (A^2 + B^2 + 1), A and B the
    neighbours' shares (Gasser, Sroka and Jennen-Steinmetz 1986).
    """
    x, y = np.log(points.u), points.y
    if len(x) < 3:
        return None
    share = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
    gap = share * y[:-2] + (1 - share) * y[2:] - y[1:-1]
    return float(np.sqrt(np.mean(gap**2 / (share**2 + (1 - share) ** 2 + 1))))


def smooth(points: Points, width: float = 0.35) -> Points:
    """Local straight lines in log t with Gaussian weights.

    Args:
        width: of the weights, in natural logarithms of t; at least the distance to the second neighbour.
    """
    x = np.log(points.u)
    y = np.empty_like(points.y)
    for i, centre in enumerate(x):
        distance = np.abs(x - centre)
        reach = max(width, float(np.sort(distance)[min(2, len(x) - 1)]))
        weight = np.exp(-0.5 * (distance / reach) ** 2) if reach > 0 else np.ones(len(x))
        mean = np.average(x, weights=weight)
        spread = np.average((x - mean) ** 2, weights=weight)
        slope = np.average((x - mean) * points.y, weights=weight) / spread if spread > 0 else 0.0
        y[i] = np.average(points.y, weights=weight) + slope * (centre - mean)
    return Points(points.u, y)


def level(points: Points) -> float:
    """The mean of the last three checkpoints: the current level, with less noise."""
    return float(points.y[-_LEVEL:].mean())


def no_signal(points: Points, chance: float | None = None) -> str | None:
    """Why a task has too little signal to be forecast; None where it has enough.

    Enough: the last third of the window's checkpoints differs from the first third, or, where the chance
    level is known, lies above chance, by more than noise explains.

    From 12 checkpoints on the noise may be correlated between neighbours: in simulation 0 to 1.5 % of tasks
    of pure noise pass up to an autocorrelation of 0.8 (3 % where independent noise is added and chance is
    known; at 0.9 up to 7 %). With fewer, it is taken as independent (99 %, two-sided, Student's t with n -
    2 degrees of freedom). There 1 to 4 % of independent noise passes; at an autocorrelation of 0.5, 4 to 16
    % (6 to 23 % with chance known), at 0.8, 10 to 38 % (15 to 52 %), most with 11 checkpoints. Allowing for
    0.8 there asks for 12 standard errors, and sees no signal in 12 of 20 tasks of OLMo-2 7B that do rise.
    """
    n = len(points.u)
    if n < LEAST:
        return f"{n} checkpoints with a target, {LEAST} are needed"
    if change(points, chance) > _critical(n, chance is not None):
        return None
    last, first = _ends(points.y)
    above = "" if chance is None else f" and {last - chance:+.3f} above chance"
    return (
        f"no change beyond noise in the window: {last - first:+.4f}{above}, "
        f"noise {noise(points):.4f} per checkpoint"
    )


def _critical(n: int, chance_known: bool) -> float:
    if n < _ENOUGH:
        return float(student.ppf(0.5 + _SURE / 2, n - 2))
    return float(np.interp(n, list(_CRITICAL), [pair[chance_known] for pair in _CRITICAL.values()]))


def change(points: Points, chance: float | None = None) -> float:
    """The rise from first to last third, or that above chance if larger, in standard errors.

    Below 12 checkpoints the error is that of independent noise, estimated from neighbours. From 12 on it is
    that of a first-order autoregression, estimated from the residuals of a parabola in log t, with the
    autocorrelation corrected for what the fit takes away. Critical values allow for the rest.
    """
    last, first = _ends(points.y)
    n = len(points.y)
    third = _third(n)
    if n < _ENOUGH:
        level_error = (noise(points) or 0.0) / np.sqrt(third)
        rise_error = level_error * np.sqrt(2)
    else:
        sd, phi = _autoregression(np.log(points.u), points.y)
        end = np.zeros(n)
        end[-third:] = 1 / third
        both = end.copy()
        both[:third] -= 1 / third
        correlation = phi ** _lags(n)
        level_error, rise_error = (sd * np.sqrt(w @ correlation @ w) for w in (end, both))
    found = [_ratio(abs(last - first), rise_error)]
    if chance is not None:
        found.append(_ratio(last - chance, level_error))
    return max(found)


def _third(n: int) -> int:
    return max(2, n // 3)


def _ends(y: Array) -> tuple[float, float]:
    third = _third(len(y))
    return float(y[-third:].mean()), float(y[:third].mean())


def _ratio(difference: float, error: float) -> float:
    if difference <= 0:
        return 0.0
    return float(difference / error) if error > 0 else np.inf


def _lags(n: int) -> Array:
    lags: Array = np.abs(np.subtract.outer(np.arange(n), np.arange(n))).astype(float)
    return lags


def _autoregression(x: Array, y: Array) -> tuple[float, float]:
    """Standard deviation and lag-1 autocorrelation (0 to 0.95) of the noise about a parabola in x.

    Residuals vary less and are less correlated than the noise; both are inverted through the expectations
    under each autocorrelation, from the traces of the projected covariance.
    """
    project, phis, variance, lag_one = _expected(tuple(x.tolist()))
    residual = project @ y
    squares = float(residual @ residual)
    if squares <= 1e-24 * len(x):  # rounding: no noise at all
        return 0.0, 0.0
    found = float(residual[1:] @ residual[:-1]) / squares
    phi = float(np.interp(found, lag_one, phis))
    return float(np.sqrt(squares / np.interp(phi, phis, variance))), phi


@lru_cache(maxsize=64)  # the tasks of a run share their checkpoints
def _expected(x: tuple[float, ...]) -> tuple[Array, Array, Array, Array]:
    """Projection [n, n] off a parabola; autocorrelations [k], and under each the residuals' expected sum of
    squares and lag-1 correlation."""
    n = len(x)
    at = np.array(x)
    design = np.vander((at - at.mean()) / np.ptp(at), 3)
    project = np.eye(n) - design @ np.linalg.pinv(design)
    phis = np.linspace(0, 0.95, 39)
    covariances = [project @ phi ** _lags(n) @ project for phi in phis]
    variance = np.array([np.trace(c) for c in covariances])
    lag_one = np.array([np.trace(c, offset=1) for c in covariances]) / variance
    return project, phis, variance, lag_one
