"""Decision accuracy: how often a metric orders two corpora as the target does.

Decision accuracy (DataDecide, arXiv 2504.11393) is the share of pairs ordered alike. A pair that the proxy
ties counts 0.5; a pair tied in the target is left out and counted. Without ties it is `(tau + 1) / 2`, with
Kendall's tau. Values are equal where they differ by less than 1e-12 of the larger: a mean over seeds must not
break a tie by rounding.

Pairs (i, j), i < j, are columns; a sign is +1 where i is the better, -1 where j is, 0 for a tie, and NaN
where either corpus has no value.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_EQUAL = 1e-12


def pair_signs(values: Array) -> Array:
    """Which corpus of each pair is better: [..., n] -> [..., n (n - 1) / 2], higher values are better."""
    i, j = np.triu_indices(values.shape[-1], 1)
    a, b = values[..., i], values[..., j]
    apart = a - b
    signs = np.sign(apart)
    same = np.abs(apart) <= _EQUAL * np.maximum(np.abs(a), np.abs(b))
    return np.where(same, 0.0, signs)  # NaN compares as not the same and keeps its NaN


def levelled(values: Array) -> Array:
    """Values to 12 significant digits, so that what is equal but for rounding is equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = np.where(values == 0, 0.0, np.floor(np.log10(np.abs(values))))
        scale = 10.0 ** (11 - digits)
        return np.where(np.isfinite(scale) & (scale > 0), np.round(values * scale) / scale, values)


@dataclass(frozen=True)
class Decisions:
    """Decision accuracy of many proxies at once, each [...]; NaN where no pair counts."""

    accuracy: Array
    n_pairs: Array  # that count: both corpora known on both sides, not tied in the target
    n_ties: Array  # tied in the target, left out
    n_predicted_ties: Array  # among those that count; 0.5 each


def decide(predicted: Array, target: Array) -> Decisions:
    """Compare signs of pairs.

    Args:
        predicted: [..., pairs].
        target: broadcastable, [..., pairs].
    """
    predicted, target = np.broadcast_arrays(predicted, target)
    known = np.isfinite(predicted) & np.isfinite(target)
    counts = known & (target != 0)
    n = counts.sum(axis=-1)
    # Sums of +1, -1 and 0: exact.
    agreement = np.where(counts, predicted * target, 0.0).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = np.where(n > 0, (1 + agreement / n) / 2, np.nan)
    ties = (known & (target == 0)).sum(axis=-1)
    return Decisions(accuracy, n, ties, (counts & (predicted == 0)).sum(axis=-1))


def decision_accuracy(predicted: Array, target: Array) -> float:
    """Of two lists of values [n], higher is better in both; NaN where no pair counts."""
    return float(decide(pair_signs(predicted), pair_signs(target)).accuracy)
