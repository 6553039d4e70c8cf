"""Rank correlations of many columns at once, with the tie and missing-value rules stated."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from forecast.analysis.stats.family_permutations import family_orders

Array = NDArray[np.float64]

# Fewer candidates than this have no rho: with two it can only be 1, -1 or undefined.
MIN_CANDIDATES = 3
_AT_A_TIME = 200  # permutations, for memory


def ranks(values: Array) -> Array:
    """Rank 1 for the highest value, average ranks for ties, NaN where there is no value."""
    return np.asarray(rankdata(-np.asarray(values, float), nan_policy="omit"))


def spearman(x: Array, y: Array) -> Array:
    """Spearman's rho along the last axis: Pearson's correlation of average ranks.

    Args:
        x, y: broadcastable arrays [..., n].

    Returns:
        [...], rounded to 12 digits so that equal figures compare equal; NaN where x or y is constant or holds
        NaN, or n < 3.
    """
    *shape, n = np.broadcast_shapes(x.shape, y.shape)
    if n < MIN_CANDIDATES:
        return np.full(shape, np.nan)
    rho: Array = (_unit_ranks(x) * _unit_ranks(y)).sum(axis=-1)
    return np.round(rho, 12)


def kendall(x: Array, y: Array) -> float:
    """Kendall's tau-b, rounded to 12 digits; NaN where x or y is constant, or n < 3."""
    if len(x) < MIN_CANDIDATES:
        return float("nan")
    return round(float(kendalltau(x, y).statistic), 12)


def agreement(rho: Array, either_way: NDArray[np.bool_]) -> Array:
    """How well features [..., k] agree with scores: rho, or |rho| for a feature that may point either way."""
    return np.where(either_way, np.abs(rho), rho)


def best_of_many_p(
    features: Array,
    scores: Array,
    either_way: NDArray[np.bool_],
    families: Sequence[Hashable],
    permutations: int,
    seed: int,
) -> tuple[float, float]:
    """How surprising the best agreement of many features is, given that it was selected post hoc.

    Args:
        features: [k, n] features of n candidates, higher is better.
        scores: [n] measured scores.
        either_way: [k], features of which higher or lower may be better; see `agreement`.
        families: [n], which stay together under permutation.

    Returns:
        p: share of score permutations whose best agreement over the features reaches the observed best
            (with the observed one counted in, so never 0);
        null_mean: mean of the best agreement under permutation.
        Both NaN where no feature has a defined rho or `permutations` is 0.
    """
    observed = agreement(spearman(features, scores), either_way)
    known = np.isfinite(observed)
    if permutations == 0 or not known.any():
        return float("nan"), float("nan")
    orders = family_orders(families, permutations, seed)
    x = _unit_ranks(features[known])
    null = np.zeros(0)
    for part in np.array_split(orders, max(1, len(orders) // _AT_A_TIME)):
        # Ranked again, since a family may take a score twice; scores that are all equal agree with nothing.
        y = np.nan_to_num(_unit_ranks(scores[part]))
        null = np.append(null, agreement(y @ x.T, either_way[known]).max(axis=1))
    reached = int((null >= observed[known].max() - 1e-9).sum())  # rounding must not split equal figures
    return (1 + reached) / (1 + len(null)), float(null.mean())


def _unit_ranks(values: Array) -> Array:
    """Average ranks along the last axis, centred and scaled to length 1; NaN where they are all equal."""
    found = np.asarray(rankdata(np.asarray(values, float), axis=-1))
    found -= found.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray(found / np.sqrt((found * found).sum(axis=-1, keepdims=True)))
