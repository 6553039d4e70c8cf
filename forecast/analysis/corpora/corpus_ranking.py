"""Rank corpora by their small runs, with rank intervals, P(best) and the expected regret of choosing each.

**Where targets are known** (of 5 corpora or more, variants of one base counting once) they calibrate. A way
is a metric at a size, mean over seeds. In each of B resamples of the corpora with targets the way with the
best decision accuracy is chosen, and a line from the normal scores of its values to the targets is fitted.
The forecast of a corpus is the mean over resamples, of a corpus with a target over those in which it was
not drawn; all are shrunk to what such forecasts kept. Their distance to the targets is then an error made
on corpora that were not seen, and the forecasts are drawn 4,000 times with errors of that size (Student's
t). The figures of each corpus are over these draws: what its small runs alone say, also where its target is
known.

Groups of variants are drawn whole, and errors are as alike within a group as those known are.

Simulated (25 corpora or 7 bases with 4 variants, all or half of them with targets, 10 ways of which the
best correlates by 0, 0.6 or 0.9 with the truth; tests/analysis/corpora/simulations.py prints it): the
largest P(best) was, on average, 0.06 to 0.57, and that corpus the best in 0.03 to 0.58 of worlds, the two
never further apart than 0.09; the Brier score of P(best) was that of equal chances (0.96) without signal,
0.88 to 0.92 and 0.62 to 0.70 with correlations of 0.6 and 0.9; the expected regret of the first within 0.25
standard deviations of what was paid; 95 % rank intervals held in 98 to 100 %.

**Without** targets the way is a default, and only the noise of seeds is known: figures are over draws of
the true means (`seed_noise`). They say nothing of whether the order holds at a larger size.

95 % intervals of ranks hold more often than that because ranks are whole numbers and end at 1: an interval
holds all of a rank or nothing of it. Counted in part, by the share of a rank's probability inside the exact
95 %, they hold in 94 to 97 % of the same worlds: they are not too wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from forecast.analysis.corpora.bootstrap import Ints, corpus_weights, pair_weights, resampled_accuracy
from forecast.analysis.corpora.decision_accuracy import Array, pair_signs
from forecast.analysis.corpora.seed_noise import DRAWS
from forecast.analysis.stats.figures import mean_known, number
from forecast.analysis.stats.rank_correlation import ranks

_LEADING = 10  # corpora that are compared two by two
_MIN_DISTINCT = 3  # corpora that a line is fitted to


@dataclass(frozen=True)
class CorpusPlace:
    """One corpus in the ranking; None where a figure is missing."""

    corpus: str
    rank: float  # 1 is best
    rank_low: float | None
    rank_high: float | None
    p_best: float | None
    p_above_next: float | None  # of being better than the next in the ranking
    expected_regret: float | None  # of choosing it, in the unit that the ranking names
    value: float  # by which it is ranked, in the metric's own unit
    n_seeds: int | None  # runs that the value is the mean of; None: the mean was given
    forecast: float | None  # of its target; without targets, of the value over many further seeds
    measured: float | None  # its target, where known
    basis: str


@dataclass(frozen=True)
class PairChance:
    """Two of the leading corpora, the first of them above the other in the ranking."""

    corpus: str
    other: str
    p_better: float  # of the first being better; where draws are equal, half


def calibrated_draws(
    signals: Array, goal: Array, groups: Ints, bootstraps: int, seed: int
) -> tuple[Array, Array] | None:
    """Forecasts of every corpus' target, and draws of them.

    Args:
        signals: [W, C] of each way, higher is better; no gaps.
        goal: [C] the targets, higher is better, NaN where unknown.
        groups: [C], corpora with equal numbers are variants of one base.
        bootstraps: resamples of the groups with targets.

    Returns:
        centre: [C], and draws: [4000, C]; None where no line can be fitted.
    """
    known = np.flatnonzero(np.isfinite(goal))
    # Normal scores: one diverged run must not lay the line.
    signals = norm.ppf((rankdata(signals, axis=1) - 0.5) / signals.shape[1])
    y, x = goal[known], signals[:, known]
    weights = corpus_weights(groups[known], bootstraps, seed)
    weights = weights[(weights > 0).sum(axis=1) >= _MIN_DISTINCT]
    accuracy = resampled_accuracy(pair_signs(x), pair_signs(y), pair_weights(weights))  # [B, W]
    usable = np.isfinite(accuracy).any(axis=1)
    weights, accuracy = weights[usable], accuracy[usable]
    if not len(weights):
        return None
    picked = np.where(np.isnan(accuracy), -1.0, np.round(accuracy, 9)).argmax(axis=1)
    drawn, total = x[picked], weights.sum(axis=1, keepdims=True)
    dx = drawn - (weights * drawn).sum(axis=1, keepdims=True) / total
    dy = y - (weights * y).sum(axis=1, keepdims=True) / total
    sxx, sxy = ((weights * dx * other).sum(axis=1, keepdims=True) for other in (dx, dy))
    slope = np.divide(sxy, sxx, out=np.zeros_like(sxx), where=sxx > 0)
    # The mean target stays: leaving a corpus out would lower it where the corpus is good, and the reverse.
    forecast = y.mean() + slope * (signals[picked] - drawn.mean(axis=1, keepdims=True))
    centre = forecast.mean(axis=0)
    centre[known] = mean_known(np.where(weights == 0, forecast[:, known], np.nan), axis=0)
    if not np.isfinite(centre).all():
        return None
    # A best of many ways promises more than it keeps: shrunk to what it kept on corpora that were not seen.
    spread, kept = centre - y.mean(), y - y.mean()
    size = float((spread[known] ** 2).sum())
    shrinkage = float(np.clip((spread[known] * kept).sum() / size, 0, 1)) if size > 0 else 0.0
    centre = y.mean() + shrinkage * spread
    return centre, centre + _errors_like(
        y - centre[known], groups[known], groups, np.random.default_rng(seed)
    )


def _errors_like(errors: Array, of: Ints, groups: Ints, rng: np.random.Generator) -> Array:
    """Draws of errors [4000, C] of the size of those known, as alike within groups as these are.

    Args:
        errors: [n], those known; `of`: [n] their groups.
        groups: [C] of the corpora that errors are drawn for.
    """
    n = len(errors)
    same = (of[:, None] == of) & ~np.eye(n, dtype=bool)
    square = float((errors**2).mean())
    alike = float(np.outer(errors, errors)[same].mean() / square) if same.any() and square > 0 else 0.0
    alike = float(np.clip(alike, 0, 1))
    freedom = n / (1 + alike * same.sum() / n)  # what so many independent errors would tell
    scale = np.sqrt(square * freedom / rng.chisquare(freedom, size=(DRAWS, 1)))
    names, place = np.unique(groups, return_inverse=True)
    own = rng.normal(size=(DRAWS, len(groups)))
    shared = rng.normal(size=(DRAWS, len(names)))[:, place] if alike > 0 else 0.0
    drawn: Array = scale * (np.sqrt(alike) * shared + np.sqrt(1 - alike) * own)
    return drawn


@dataclass(frozen=True)
class Figures:
    """Of all corpora over draws, [C] each; `above` is of each corpus against the next in `order`."""

    order: NDArray[np.int64]  # places of corpora, the best first
    rank: Array
    low: Array
    high: Array
    p_best: Array
    above: Array
    regret: Array
    pairwise: Array  # [K, K] of the first K <= 10 in the order, each better than each; [0, 0] without draws


def figures_of(centre: Array, draws: Array | None, values: Array, confidence: float) -> Figures:
    """What the draws say; NaN throughout but for order and rank where there are none.

    Args:
        values: [C], higher is better, by which corpora with equal forecasts are listed.
    """
    order = np.lexsort((-values, -centre))
    none = np.full(len(centre), np.nan)
    rank = ranks(centre)
    if draws is None:
        return Figures(order, rank, none, none, none, none, none, np.zeros((0, 0)))
    drawn_rank = _ranks_of_draws(draws)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn_rank, [tail, 1 - tail], axis=0, method="closest_observation")
    above = none.copy()
    pairwise = _better(draws[:, order[:_LEADING]])
    above[order[:-1]] = _shares(draws[:, order[:-1]], draws[:, order[1:]])
    regret = (draws.max(axis=1, keepdims=True) - draws).mean(axis=0)
    return Figures(order, rank, low, high, (drawn_rank == 1).mean(axis=0), above, regret, pairwise)


def _ranks_of_draws(draws: Array) -> NDArray[np.int64]:
    """Ranks within each draw, [D, C]; equal ones are ordered by chance, so that none is preferred."""
    shuffled = np.random.default_rng(0).permuted(np.tile(np.arange(draws.shape[1]), (len(draws), 1)), axis=1)
    order = np.argsort(-np.take_along_axis(draws, shuffled, axis=1), axis=1, kind="stable")
    found = np.empty(draws.shape, np.int64)
    np.put_along_axis(
        found, np.take_along_axis(shuffled, order, axis=1), 1 + np.arange(draws.shape[1])[None], 1
    )
    return found


def _better(draws: Array) -> Array:
    return np.stack([_shares(draws[:, [k]], draws) for k in range(draws.shape[1])])


def _shares(a: Array, b: Array) -> Array:
    """Of draws [D, K] in which a is above b, equal ones half."""
    return np.asarray(((a > b) + 0.5 * (a == b)).mean(axis=0))


def pairs_of(found: Figures, corpora: Sequence[str]) -> tuple[PairChance, ...]:
    """Every two of the leading corpora."""
    k = len(found.pairwise)
    names = [corpora[c] for c in found.order[:k]]
    return tuple(
        PairChance(names[i], names[j], float(found.pairwise[i, j])) for i in range(k) for j in range(i + 1, k)
    )


def places_of(
    found: Figures,
    corpora: Sequence[str],
    values: Array,
    n_seeds: Array,
    forecast: Array | None,
    measured: Array | None,
    basis: str,
) -> tuple[CorpusPlace, ...]:
    """The places, the best first.

    Args:
        values: [C] by which the corpora are ranked, in the metric's own unit.
        n_seeds: [C] runs of each value, 0 where the mean was given.
        forecast, measured: [C] in the target's own unit; without targets the forecast is in the metric's.
    """
    none = np.full(len(corpora), np.nan)
    forecast, measured = (none if each is None else each for each in (forecast, measured))
    return tuple(
        CorpusPlace(
            corpus=corpora[c],
            rank=float(found.rank[c]),
            rank_low=number(found.low[c]),
            rank_high=number(found.high[c]),
            p_best=number(found.p_best[c]),
            p_above_next=number(found.above[c]),
            expected_regret=number(found.regret[c]),
            value=float(values[c]),
            n_seeds=int(n_seeds[c]) or None,
            forecast=number(forecast[c]),
            measured=number(measured[c]),
            basis=basis,
        )
        for c in found.order
    )
