"""Intervals of ranks over redrawn instances, from differences of pairs.

Percentiles of bootstrapped ranks hold too seldom where candidates are close: the sample has spread equal ones
already, and each resample spreads them again around that. Here a candidate's rank lies between one more than
the number of candidates that are better beyond noise and the number of those that are not worse beyond it
(Mogstad, Romano, Shaikh and Wilhelm, Review of Economic Studies 2024). Beyond noise: the difference exceeds
its bootstrapped standard error by more than the quantile of the largest such ratio over all other candidates.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rank_intervals(values: Array, drawn: Array, confidence: float) -> tuple[Array, Array]:
    """Lowest and highest rank of each candidate, 1 is best.

    Args:
        values: [C], higher is better.
        drawn: [D, C], the values under D drawings of the same instances for all candidates.
        confidence: with which one candidate's interval holds its rank under endless instances.

    Returns:
        low, high: [C], whole numbers; candidates that are equal in all drawings share a range.
    """
    n = len(values)
    low, high = np.ones(n), np.full(n, float(n))
    for j in range(n):
        others = np.delete(np.arange(n), j)
        if not len(others):
            break
        gap = values[others] - values[j]
        noise = drawn[:, others] - drawn[:, [j]] - gap  # [D, C - 1]
        error = np.sqrt((noise**2).mean(axis=0))
        known = error > 0
        limit = 0.0
        if known.any():
            limit = float(np.quantile((np.abs(noise[:, known]) / error[known]).max(axis=1), confidence))
        low[j] += (gap > limit * error).sum()
        high[j] -= (-gap > limit * error).sum()
    return low, high


def p_above_next(drawn: Array) -> Array:
    """Share of drawings in which each candidate stands above the next one; ties count half.

    Args:
        drawn: [D, C], in the order of the ranking, higher is better.

    Returns:
        [C], NaN for the last.
    """
    gaps = drawn[:, :-1] - drawn[:, 1:]
    return np.append(((gaps > 0) + 0.5 * (gaps == 0)).mean(axis=0), np.nan)
