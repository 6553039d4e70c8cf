"""The permutation null: what the same pipeline finds on scores shuffled over the candidates.

A candidate's scores move together, the same way on all tasks. So the tasks stay as correlated as they are,
and the features keep whatever tells one candidate from another; only the tie between features and scores is
cut. Families stay together (see `stats.family_permutations`). Under leave-2-tasks-out a scorer that
recognises candidates does well under this null too: the null's mean shows how much of a rho that alone
explains. Shuffling each task by itself would destroy that, and make recognition look significant.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.feature_table import Design
from forecast.analysis.ranking.scorers.mean_score import standings
from forecast.analysis.stats.correlations import unit_ranks
from forecast.analysis.stats.family_permutations import family_orders

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Null:
    """A figure against its distribution under permutation; all None with no permutations or no figure."""

    p: float | None  # (1 + how many reach the figure) / (1 + how many there are): never 0
    mean: float | None
    q95: float | None
    n: int


def permuted_scores(
    scores: Array, usable: Bools, families: Sequence[str], permutations: int, seed: int
) -> Array:
    """The scores themselves, then with permuted candidates: [1 + permutations, T, C].

    The same cells are missing in all. Where a candidate whose scores come to a cell has none of its own for
    that task, the scores' quantile at its mean standing on the other tasks serves (in permutations only).
    Candidates without any score take no part.
    """
    held = np.where(usable, scores, np.nan)
    movable = np.flatnonzero(np.isfinite(held).any(axis=0))
    filled = _filled(held)
    orders = family_orders([families[i] for i in movable], permutations, seed)
    out = [held]
    for order in orders:
        moved = np.full_like(held, np.nan)
        moved[:, movable] = filled[:, movable[order]]
        out.append(np.where(np.isfinite(held), moved, np.nan))
    return np.stack(out)


def _filled(scores: Array) -> Array:
    """Gaps of candidates with other scores filled as `permuted_scores` says."""
    out = scores.copy()
    standing = standings(scores)
    for t, row in enumerate(scores):
        known = row[np.isfinite(row)]
        gaps = np.isnan(row) & np.isfinite(standing)
        if len(known) and gaps.any():
            out[t, gaps] = np.quantile(known, standing[gaps])
    return out


def null_of(figures: Array) -> Null:
    """The first figure against the others, of which one that is NaN does not reach it."""
    observed, others = float(figures[0]), figures[1:]
    known = others[np.isfinite(others)]
    if not len(others) or not math.isfinite(observed) or not len(known):
        return Null(None, None, None, len(others))
    reached = int((known >= observed - 1e-9).sum())  # rounding must not split equal figures
    p = (1 + reached) / (1 + len(others))
    return Null(p, float(known.mean()), float(np.quantile(known, 0.95)), len(others))


@dataclass(frozen=True)
class BestOfMany:
    """The best of all features on the very scores it was selected on, and how good chance would make it."""

    feature: str
    rho: float  # mean over tasks, signed
    mean_abs_rho: float  # mean over tasks of |rho|: what the best was picked by
    n_features: int
    null: Null


def best_of_many(design: Design, scores: Array) -> BestOfMany | None:
    """The max-statistic null for the best feature by mean |rho| over tasks.

    Calibration: with one task, 18 candidates and 80 features of noise the best |rho| is 0.61 on average, 0.74
    to 0.75 at the 95th percentile.

    Args:
        scores: [1 + permutations, T, C], from `permuted_scores`.

    Returns:
        None where no feature has a rho.
    """
    cells = design.usable & np.isfinite(scores[0])
    y = unit_ranks(np.where(cells, scores, np.nan))  # [P, T, C]
    x = unit_ranks(np.where(cells[:, :, None], design.z, np.nan).transpose(0, 2, 1))  # [T, F, C]
    counted = y[0].any(axis=1)
    if not counted.any() or not x[counted].any():
        return None
    best = np.empty(len(scores))
    first = np.zeros((0, 0))
    for p in range(len(scores)):  # one at a time: [T, F] numbers
        rho = np.einsum("tc,tfc->tf", y[p, counted], x[counted])
        if p == 0:
            first = rho
        best[p] = round(float(np.abs(rho).mean(axis=0).max()), 12)
    k = int(np.round(np.abs(first).mean(axis=0), 9).argmax())
    return BestOfMany(
        design.features[k],
        round(float(first[:, k].mean()), 12),
        float(best[0]),
        len(design.features),
        null_of(best),
    )
