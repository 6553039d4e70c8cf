"""Intervals over candidates: families are drawn again, with all of their candidates and all tasks together.

Predictions stay as they are, only who is compared is drawn; the tasks are the tasks. The figure is a mean of
Spearman's rhos over panels (a panel: predictions and scores of the candidates on one held-out task).

The interval is taken in Fisher's scale, `atanh(rho) +- t se`, with t of (families - 1) degrees of freedom and
se the larger of the bootstrap's and the jackknife's over families.

Where a task's instances can be drawn again (a run's own results), every drawing of families takes the
predictions from another drawing of instances, so that the luck of the texts is in the interval too.

Simulated (8 to 40 candidates in families of 1 to 4, 1 and 6 tasks with correlated errors, true mean rho 0,
0.48, 0.79, 0.95; 40 settings, 200 runs and 400 resamples each): a 95 % interval so made held the true figure
in 93 to 100 % of runs (with one task and few candidates it is wide). Others, in the same runs: percentiles 69
to 98 % (a candidate drawn twice ties with itself, which moves the whole distribution), reflected percentiles
76 to 98 %, BCa 82 to 97 %, Fisher's scale with the normal quantile 81 to 99 %, the variance of one task
(Bonett and Wright) over families 92 to 100 % at up to thrice the width.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from forecast.analysis.stats.correlations import rho_interval, unit_ranks

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_FAMILIES = 3
_ROWS = 200  # resamples at a time


@dataclass(frozen=True)
class Resamples:
    """Who is in each resample: places of candidates, -1 where a resample has fewer."""

    drawn: Ints  # [B, L], families drawn with replacement
    without: Ints  # [families, L], each family left out once
    n_families: int

    @property
    def enough(self) -> bool:
        """Whether there is anything to draw from."""
        return self.n_families >= MIN_FAMILIES and len(self.drawn) > 1


@dataclass(frozen=True)
class Spread:
    """A figure over resamples; NaN where it is undefined in one."""

    figure: float
    drawn: Array  # [B]
    without: Array  # [families]


def make_resamples(families: Ints, members: NDArray[np.bool_], bootstraps: int, seed: int) -> Resamples:
    """Resamples of families.

    Args:
        families: [C], equal numbers are one family.
        members: [C], candidates that have anything to be compared.
    """
    names = np.unique(families[members])
    groups = [np.flatnonzero((families == name) & members) for name in names]
    if not groups:
        return Resamples(np.zeros((0, 0), int), np.zeros((0, 0), int), 0)
    table = _padded(groups)
    picks = np.random.default_rng(seed).integers(len(names), size=(bootstraps, len(names)))
    without = [
        np.concatenate([g for j, g in enumerate(groups) if j != i] or [np.zeros(0, int)])
        for i in range(len(names))
    ]
    return Resamples(
        table[picks].reshape(bootstraps, picks.shape[1] * table.shape[1]), _padded(without), len(names)
    )


def _padded(groups: list[Ints]) -> Ints:
    out = np.full((len(groups), max(len(group) for group in groups)), -1)
    for row, group in zip(out, groups, strict=True):
        row[: len(group)] = group
    return out


def mean_rho(predicted: Array, scores: Array) -> Array:
    """Mean over panels of Spearman's rho [...] of predictions and scores [..., K, C], where both are finite.

    Panels without a rho (fewer than 3 candidates, all predictions or scores equal) are left out of the mean;
    NaN where no panel has one.
    """
    both = np.isfinite(predicted) & np.isfinite(scores)
    a, b = unit_ranks(np.where(both, predicted, np.nan)), unit_ranks(np.where(both, scores, np.nan))
    defined = (a != 0).any(axis=-1) & (b != 0).any(axis=-1)
    n = defined.sum(axis=-1)
    total = np.round((a * b).sum(axis=-1), 12).sum(axis=-1)
    return np.where(n > 0, np.round(total / np.maximum(n, 1), 12), np.nan)


def spread_of(predicted: Array, scores: Array, resamples: Resamples, redrawn: Array | None = None) -> Spread:
    """The mean rho of panels [K, C], and under resampling.

    Args:
        redrawn: [D, K, C], predictions under D drawings of instances, taken in turn; None: there are none.
    """
    return Spread(
        float(mean_rho(predicted, scores)),
        _over(predicted[None] if redrawn is None else redrawn, scores, resamples.drawn),
        _over(predicted[None], scores, resamples.without),
    )


def _over(predicted: Array, scores: Array, index: Ints) -> Array:
    """Mean rho of each row of `index`; `predicted` [D, K, C] are taken in turn."""
    found = [np.zeros(0)]
    for start in range(0, len(index), _ROWS):
        part = index[start : start + _ROWS]
        turn = predicted[np.arange(start, start + len(part)) % len(predicted)]  # [rows, K, C]
        own = np.take_along_axis(turn, np.maximum(part, 0)[:, None, :], axis=2)
        p = np.where(part[:, None] < 0, np.nan, own)
        s = np.where(part < 0, np.nan, scores[:, part]).transpose(1, 0, 2)
        found.append(mean_rho(p, s))
    return np.concatenate(found)


def interval(spread: Spread, n_candidates: int, n_families: int, confidence: float) -> tuple[float, float]:
    """The interval of the module's text.

    NaN with fewer than 3 families, or where too many resamples lack a rho.

    Where all resamples agree, as with a rho of 1, they know no width: Bonett and Wright's for one task is
    taken, with the number of families for n.
    """
    if n_families < MIN_FAMILIES or not math.isfinite(spread.figure):
        return math.nan, math.nan
    limit = 1 - 3 / (n_candidates * (n_candidates**2 - 1))

    def scale(rho: Array) -> Array:
        return np.asarray(np.arctanh(np.clip(rho, -limit, limit)))

    se = _larger_se(scale(spread.drawn), scale(spread.without), confidence)
    if math.isnan(se):
        return math.nan, math.nan
    if se < 1e-9 or abs(spread.figure) >= limit:
        return rho_interval(spread.figure, n_families, confidence)
    centre = float(scale(np.array(spread.figure)))
    reach = float(stats.t.ppf(0.5 + confidence / 2, n_families - 1)) * se
    return math.tanh(centre - reach), math.tanh(centre + reach)


@dataclass(frozen=True)
class Difference:
    """Two scorers on the same panels."""

    figure: float
    low: float
    high: float
    probability: float  # share of resamples in which the first is better, equal ones half
    smallest_detectable: float  # true difference found with a power of 0.8


def difference(first: Spread, second: Spread, n_families: int, confidence: float) -> Difference:
    """The difference of two figures over the same resamples: `d +- t se`; NaN where it is undefined."""
    drawn, without = first.drawn - second.drawn, first.without - second.without
    d = first.figure - second.figure
    if n_families < MIN_FAMILIES or not math.isfinite(d):
        return Difference(d, math.nan, math.nan, math.nan, math.nan)
    se = _larger_se(drawn, without, confidence)
    reach = float(stats.t.ppf(0.5 + confidence / 2, n_families - 1)) * se
    known = drawn[np.isfinite(drawn)]
    probability = float(((known > 0) + 0.5 * (known == 0)).mean()) if math.isfinite(se) else math.nan
    z = float(stats.norm.ppf(0.5 + confidence / 2) + stats.norm.ppf(0.8))
    return Difference(d, max(-2.0, d - reach), min(2.0, d + reach), probability, z * se)


def _larger_se(drawn: Array, without: Array, confidence: float) -> float:
    """Of bootstrap and jackknife the larger; NaN where more resamples than a tail holds lack a figure."""
    known, left = drawn[np.isfinite(drawn)], without[np.isfinite(without)]
    if len(known) < 2 or len(left) < 2 or np.isnan(drawn).mean() > (1 - confidence) / 2:
        return math.nan
    n = len(left)
    return max(float(known.std(ddof=1)), math.sqrt((n - 1) / n * float(((left - left.mean()) ** 2).sum())))
