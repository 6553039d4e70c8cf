"""Noise of a series from its neighbouring checkpoints, its current level, and whether it has signal yet."""

import numpy as np
from scipy.stats import t as student

from forecast.analysis.checkpoints.fit_window import LEAST, Points

_SURE = 0.99  # confidence that a task has changed
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
    level is known, lies above chance, by more than noise explains (99 %, two-sided, Student's t with n - 2
    degrees of freedom: the noise is estimated from n - 2 residuals). About one in a hundred tasks at chance
    passes.
    """
    n = len(points.u)
    if n < LEAST:
        return f"{n} checkpoints with a target, {LEAST} are needed"
    sigma = noise(points)
    assert sigma is not None  # five checkpoints
    third = max(2, n // 3)
    last, first = float(points.y[-third:].mean()), float(points.y[:third].mean())
    error = sigma / np.sqrt(third)
    needed = float(student.ppf(0.5 + _SURE / 2, n - 2))
    rise = last - first
    if abs(rise) > needed * error * np.sqrt(2):
        return None
    if chance is not None and last > chance and last - chance > needed * error:
        return None
    above = "" if chance is None else f" and {last - chance:+.3f} above chance"
    return f"no change beyond noise in the window: {rise:+.4f}{above}, noise {sigma:.4f} per checkpoint"
