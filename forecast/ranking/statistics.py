"""Rank correlations of many columns at once, with the tie and missing-value rules stated."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

Array = NDArray[np.float64]


def spearman(x: Array, y: Array) -> Array:
    """Spearman's rho along the last axis: Pearson's correlation of average ranks.

    Args:
        x, y: broadcastable arrays [..., n].

    Returns:
        [...]; NaN where x or y is constant, or n < 3, for which rho means nothing.
    """
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    if x.shape[-1] < 3:
        return np.full(x.shape[:-1], np.nan)
    a = rankdata(x, axis=-1)
    b = rankdata(y, axis=-1)
    a -= a.mean(axis=-1, keepdims=True)
    b -= b.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (a * b).sum(axis=-1) / np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    return np.clip(rho, -1.0, 1.0)


def kendall(x: Array, y: Array) -> float:
    """Kendall's tau-b; NaN where x or y is constant, or n < 3."""
    if len(x) < 3:
        return float("nan")
    return float(kendalltau(x, y).statistic)


def best_of_many_p(features: Array, scores: Array, permutations: int, seed: int) -> tuple[float, float]:
    """How surprising the best |rho| of many features is, given that the best was picked after looking.

    Args:
        features: [k, n] features of n candidates.
        scores: [n] measured scores.

    Returns:
        p: share of score permutations whose best |rho| over the features reaches the observed best
            (with the observed one counted in, so never 0);
        null_mean: mean of the best |rho| under permutation.
        Both NaN where no feature has a defined rho or `permutations` is 0.
    """
    observed = np.abs(spearman(features, scores))
    if permutations == 0 or not np.isfinite(observed).any():
        return float("nan"), float("nan")
    usable = features[np.isfinite(observed)]
    rng = np.random.default_rng(seed)
    shuffled = np.stack([rng.permutation(scores) for _ in range(permutations)])  # [b, n]
    null = np.abs(spearman(usable[None], shuffled[:, None, :])).max(axis=1)
    reached = int((null >= np.nanmax(observed) - 1e-12).sum())
    return (1 + reached) / (1 + permutations), float(null.mean())
