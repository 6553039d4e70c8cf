"""Variants: runs of a corpus that differ by more than the seed, as in learning rate or schedule.

The mean of a corpus is over its variants, each the mean over its own seeds. What a variant does to all
corpora alike takes no part in comparing them; what it does to one of them does, and is noise of that corpus'
mean as seeds are (orders of corpora reverse under small changes of hyperparameters: arXiv 2512.24503).
"""

from collections.abc import Sequence

import numpy as np

from forecast.analysis.corpora.decision_accuracy import Array, decide, pair_signs
from forecast.analysis.stats.figures import mean_known


def variant_means(runs: Array, variants: Sequence[str]) -> Array:
    """Means over the seeds of each variant: [..., S, C] -> [..., V, C], variants in alphabetical order.

    Args:
        variants: [S] of each run.
    """
    of = np.array(variants)
    return np.stack([mean_known(runs[..., of == name, :], axis=-2) for name in np.unique(of)], axis=-2)


def mean_of_runs(runs: Array, variants: Sequence[str]) -> Array:
    """Means of corpora: [..., S, C] -> [..., C]; NaN where a corpus has no run."""
    if len(set(variants)) > 1:
        runs = variant_means(runs, variants)
    return np.asarray(mean_known(runs, axis=-2))


def noise_units(runs: Array, variants: Sequence[str]) -> Array:
    """What differs by chance between the runs of a corpus: its seeds, or its variants where it has several.

    Args:
        runs: [S, C], higher is better, NaN where a corpus has no such run; `variants`: [S] of each.

    Returns:
        [S, C] the runs, or [V, C] means of variants without what a variant does to all corpora that have
        every variant; their means over a corpus stay.
    """
    if len(set(variants)) < 2:
        return runs
    means = variant_means(runs, variants)
    whole = np.isfinite(means).all(axis=0)
    if (n := int(whole.sum())) < 2:
        return means
    effect = means[:, whole].mean(axis=1, keepdims=True)
    cleared = means - (effect - effect.mean())
    # The common effect is taken from these corpora, so that their deviations are too small by this much.
    own = mean_known(cleared, axis=0)
    return np.where(whole, own + np.sqrt(n / (n - 1)) * (cleared - own), cleared)


def agreement(units: Array) -> float | None:
    """Share of pairs that one unit orders as the mean of the others, mean over units; None with one unit.

    At chance: 0.5.

    Args:
        units: [U, C], see `noise_units`.
    """
    units = units[np.isfinite(units).any(axis=1)]
    found = [
        float(decide(pair_signs(own), pair_signs(mean_known(np.delete(units, k, axis=0), axis=0))).accuracy)
        for k, own in enumerate(units if len(units) > 1 else units[:0])
    ]
    known = [share for share in found if np.isfinite(share)]
    return float(np.mean(known)) if known else None
