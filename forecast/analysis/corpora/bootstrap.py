"""Confidence intervals of decision accuracy, and the permutation null of the best of many rows.

Corpora are resampled with replacement; a corpus that is drawn twice counts its pairs twice, and a pair of its
two copies does not count: it is tied in the target by construction. So a resample is a vector of weights w,
and its decision accuracy `sum w_i w_j s_ij / sum w_i w_j` over the pairs of different corpora. The interval
is that of the percentiles. Every corpus carries its own runs, so the noise of seeds is in the interval
already.

Corpora that are variants of one base are alike, so groups of them are drawn whole. Simulated (5 to 10 bases
with 3 or 4 variants, true figures of 0.60 to 0.90, intra-class correlations of 0, 0.5 and 0.9; 27 settings of
300 worlds, tests/analysis/corpora/simulations.py): a 95 % interval so made held the true figure in 88 to 96 %
of worlds; with corpora drawn one by one, at 0.9, in 64 to 87 %.

Where all resamples agree, as when every pair is right, they have no width; then the variance of Kendall's tau
after Fieller, Hartley and Pearson (1957) is used, `0.437 / (n - 4)` on Fisher's scale, half a pair inside.

Simulated (normal qualities; 5, 6, 8, 10 and 25 corpora, 1 and 3 seeds whose noise is 0.1 to 0.6 of the spread
of the corpora, true figures of 0.50 to 0.95; 25 settings of 500 runs): a 95 % interval so made held the true
figure in 92 to 100 % of runs, and in 90 % in one setting (10 corpora, 0.95). Drawing the seeds within corpora
as well counts their noise twice: 98 to 100 % at 1.1 to 1.2 times the width with 10 and 25 corpora.

So seeds have an interval of their own: for the same corpora with other seeds. Deviations of resampled means
from the mean are widened by sqrt(k / (k - 1)) for k seeds, and the interval is the figure +- z times the
deviation of the draws. Simulated (10 and 25 corpora, 2, 3 and 5 seeds, noise of 0.1 to 1.5): held in 90 to 97
% of runs; percentiles, not widened, in 76 to 97 %.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from forecast.analysis.corpora.decision_accuracy import Array, decide, pair_signs
from forecast.analysis.ranking.permutation_null import Null, null_of
from forecast.analysis.stats.family_permutations import family_orders
from forecast.analysis.stats.figures import mean_known

Ints = NDArray[np.int64]

MIN_GROUPS = 5  # fewer have no interval; a corpus without variants is a group by itself
_ROWS = 400  # rows at a time, to bound the memory


def corpus_weights(groups: Ints, bootstraps: int, seed: int) -> Array:
    """How often each corpus is drawn, [bootstraps, n]: a group as often as it has corpora, so as a whole.

    Args:
        groups: [n], corpora with equal numbers are one group.
    """
    names, place = np.unique(groups, return_inverse=True)
    n = len(names)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=bootstraps)
    return drawn[:, place].astype(float)


def pair_weights(weights: Array) -> Array:
    """Of each pair of different corpora: [bootstraps, pairs]."""
    i, j = np.triu_indices(weights.shape[1], 1)
    return weights[:, i] * weights[:, j]


def resampled_accuracy(predicted: Array, target: Array, weights: Array) -> Array:
    """Decision accuracy of each row in each resample, [B, R]; NaN where no pair counts.

    Args:
        predicted: [R, pairs] signs.
        target: [pairs] signs.
        weights: [B, pairs].
    """
    counts = np.isfinite(predicted) & np.isfinite(target) & (target != 0)
    agreement = np.where(counts, predicted * np.where(counts, target, 0), 0.0)
    n = weights @ counts.T.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, (1 + (weights @ agreement.T) / n) / 2, np.nan)


def corpus_intervals(
    predicted: Array, target: Array, n_groups: Ints, weights: Array, confidence: float
) -> tuple[Array, Array]:
    """The interval of the module's text for many rows, [R] each; NaN with fewer than 5 groups.

    Args:
        predicted: [R, pairs] signs.
        target: [pairs] signs.
        n_groups: [R] groups of which a corpus takes part.
        weights: [B, pairs].
    """
    low, high = np.full(len(predicted), np.nan), np.full(len(predicted), np.nan)
    if not len(weights):
        return low, high
    tail = (1 - confidence) / 2
    for start in range(0, len(predicted), _ROWS):
        part = slice(start, start + _ROWS)
        drawn = resampled_accuracy(predicted[part], target, weights)
        usable = (n_groups[part] >= MIN_GROUPS) & (np.isfinite(drawn).mean(axis=0) > 1 - tail)
        if usable.any():
            found = np.nanquantile(drawn[:, usable], [tail, 1 - tail], axis=0)
            places = start + np.flatnonzero(usable)
            low[places], high[places] = found
    # All draws alike: no width of their own.
    for r in np.flatnonzero(np.isfinite(low) & (high - low < 1e-12)):
        counts = np.isfinite(predicted[r]) & np.isfinite(target) & (target != 0)
        low[r], high[r] = _level_interval(float(low[r]), int(counts.sum()), int(n_groups[r]), confidence)
    return low, high


def _level_interval(figure: float, n_pairs: int, n: int, confidence: float) -> tuple[float, float]:
    tau = float(np.clip(2 * figure - 1, 1 / n_pairs - 1, 1 - 1 / n_pairs))
    reach = float(stats.norm.ppf(0.5 + confidence / 2)) * np.sqrt(0.437 / (n - 4))
    low, high = ((1 + np.tanh(np.arctanh(tau) + sign * reach)) / 2 for sign in (-1, 1))
    return (0.0 if figure == 0 else low), (1.0 if figure == 1 else high)


def seed_deviation(runs: Array, target_runs: Array, draws: int, seed: int) -> float:
    """Standard deviation of the figure of the seed mean when seeds are resampled; NaN with one seed each.

    Args:
        runs: [seeds, corpora], higher is better, NaN where a corpus has no such run.
        target_runs: [seeds, corpora]; a single row is taken as it is.
    """
    rng = np.random.default_rng(seed)
    widest = max(int(np.isfinite(values).sum(axis=0).max(initial=0)) for values in (runs, target_runs))
    if widest < 2:
        return float("nan")
    predicted, target = (pair_signs(_drawn_means(values, draws, rng)) for values in (runs, target_runs))
    drawn = decide(predicted, target).accuracy
    known = drawn[np.isfinite(drawn)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")


def _drawn_means(runs: Array, draws: int, rng: np.random.Generator) -> Array:
    """Means of seeds drawn within each corpus, widened as the module says: [draws, corpora]."""
    order = np.argsort(~np.isfinite(runs), axis=0, kind="stable")
    packed = np.take_along_axis(runs, order, axis=0)  # known runs first
    k = np.isfinite(runs).sum(axis=0)  # [corpora]
    picks = (rng.random((draws, *runs.shape)) * k).astype(int)  # [draws, seeds, corpora]
    own = np.take_along_axis(np.broadcast_to(packed, picks.shape), np.minimum(picks, len(runs) - 1), axis=1)
    counted = np.arange(len(runs))[:, None] < k  # as many draws as a corpus has runs
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = mean_known(runs, axis=0)
        drawn = np.where(counted, own, 0.0).sum(axis=1) / k
        widened = mean + np.sqrt(k / np.maximum(k - 1, 1)) * (drawn - mean)
    return np.where(k > 1, widened, mean)


@dataclass(frozen=True)
class BestOfMany:
    """The best row, and its permutation null: the best of as many rows against permuted targets."""

    row: int
    accuracy: float
    n_rows: int
    null: Null


def best_of_many(
    predicted: Array, values: Array, groups: Ints, permutations: int, seed: int
) -> BestOfMany | None:
    """Max-statistic permutation null: the target's values are permuted over corpora, for all rows alike.

    Groups stay together, see `stats.family_permutations`.

    Args:
        predicted: [R, pairs] signs of the rows.
        values: [corpora] the target, higher is better, NaN where there is none.
        groups: [corpora], those with equal numbers are variants of one base.

    Returns:
        None where no row has a figure.
    """
    known = np.flatnonzero(np.isfinite(values))
    orders = family_orders(groups[known].tolist(), permutations, seed)
    permuted = np.tile(values, (1 + len(orders), 1))
    permuted[1:, known] = values[known[orders]]
    target = pair_signs(permuted)  # [1 + P, pairs]
    mask = np.isfinite(predicted)
    signs = np.where(mask, predicted, 0.0)
    order = np.where(np.isfinite(target), target, 0.0)
    best = np.full(len(permuted), -np.inf)
    first = np.zeros(0)
    for start in range(0, len(permuted), _ROWS):
        part = slice(start, start + _ROWS)
        n = np.abs(order[part]) @ mask.T.astype(float)  # [p, R]
        with np.errstate(invalid="ignore", divide="ignore"):
            figures = np.where(n > 0, (1 + (order[part] @ signs.T) / n) / 2, -np.inf)
        best[part] = figures.max(axis=1, initial=-np.inf)
        first = figures[0] if start == 0 else first
    if not len(first) or not np.isfinite(best[0]):
        return None
    return BestOfMany(int(first.argmax()), float(best[0]), int(np.isfinite(first).sum()), null_of(best))
