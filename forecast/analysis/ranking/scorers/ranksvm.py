"""RankSVM, linear and RBF: learns from which candidate of a pair did better on a task; see `svm_pairs`.

C, and gamma of the RBF kernel, are those with the most concordant held-out pairs in inner folds; of equals
the smallest C and gamma. The inner folds hold out what the outer ones do: each held-in task once where only
tasks are held out, else groups of candidates (three) on halves of the tasks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.feature_table import Design
from forecast.analysis.ranking.scorers.base import Groups, Predicted, held_in, only_usable, selected
from forecast.analysis.ranking.scorers.ranksvm_batched import Singles, solve_many
from forecast.analysis.ranking.scorers.ranksvm_pairs import (
    MAX_PAIRS,
    Pairs,
    linear_kernel,
    pairs_of,
    rbf_kernel,
    solve,
)
from forecast.analysis.ranking.splits import Fold, deal
from forecast.errors import FitError

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

LINEAR, RBF = "ranksvm-linear", "ranksvm-rbf"
# On 18 x 6 the smallest C leaves every pair at its bound (the sum of differences decides), the largest none.
LINEAR_GRID = tuple((None, c) for c in (0.3, 3.0, 30.0, 300.0))
# gamma: of two unrelated candidates the mean squared difference is about 2, so exp(-2 gamma) is their kernel.
RBF_GRID = tuple((gamma, c) for gamma in (0.05, 0.25, 1.0) for c in (10.0, 100.0, 1000.0))
_INNER_GROUPS = 3

Point = tuple[float | None, float]  # gamma (None: linear), C


@dataclass(frozen=True)
class FittedRankSVM:
    """A linear or RBF RankSVM: weights of the cells that it learned from."""

    features: tuple[str, ...]
    gamma: float | None  # None: linear
    c: float
    cells: Array  # [m, F] z-scores; linear: [1, F], the coefficients
    weights: Array  # [m]

    def score(self, design: Design) -> Array:
        """f(x) = sum_i weight_i k(i, x): [T, C]."""
        own = selected(design, self.features)
        x = own.z.reshape(-1, len(self.features))
        values = self.weights @ _kernel(self.cells, x, self.gamma)
        return only_usable(values.reshape(design.usable.shape), design)

    def chosen(self) -> str:
        """The hyperparameters."""
        return (f"gamma={self.gamma:g} " if self.gamma is not None else "") + f"C={self.c:g}"

    def as_record(self) -> dict[str, Any]:
        """For `load`."""
        return {
            "kind": LINEAR if self.gamma is None else RBF,
            "features": list(self.features),
            "gamma": self.gamma,
            "c": self.c,
            "cells": self.cells.tolist(),
            "weights": self.weights.tolist(),
        }


@dataclass(frozen=True)
class RankSVM:
    """See the module's text; `grid` in ascending order of C within each gamma."""

    name: str
    grid: tuple[Point, ...]
    batch: int = 256
    by_fold: bool = True  # folds share nothing, so each can be a unit of work

    def cost(self, design: Design, n_scores: int, n_folds: int) -> float:
        """Seconds of one core, roughly, for one `predict_many`."""
        n_tasks, n = design.usable.shape
        pairs = min(MAX_PAIRS, n_tasks * n * (n - 1) // 2)
        return float(n_folds * (4 * len(self.grid) + 1) * (5e-3 + 2e-7 * pairs * n_scores))

    def fit(
        self, design: Design, scores: Array, groups: Groups | None = None, seed: int = 0
    ) -> FittedRankSVM:
        """See `Scorer.fit`; the fit itself is scikit-learn's."""
        cells = design.usable & np.isfinite(scores)
        tasks = np.flatnonzero(cells.any(axis=1))
        pairs = pairs_of(cells, seed)
        if not len(pairs.first):
            raise FitError("no task has two held-in scores")
        x = design.z.reshape(-1, len(design.features))
        (place,) = _choose(self.grid, x, scores[None], _inner_splits(cells, tasks, groups, seed), seed)
        gamma, c = self.grid[place]
        own = x[pairs.cells]
        weights = solve(_kernel(own, own, gamma), pairs, pairs.signs(scores[None])[:, 0], c)
        if np.ptp(_kernel(own, own, gamma) @ weights) < 1e-9:
            raise FitError("every feature is the same for all candidates")
        return _fitted(design.features, gamma, c, own, weights)

    def predict_many(
        self, design: Design, scores: Array, folds: Sequence[Fold], groups: Groups | None, seed: int
    ) -> Predicted:
        """See `Batched.predict_many`."""
        x = design.z.reshape(-1, len(design.features))
        values = np.full((len(scores), len(folds), *design.usable.shape), np.nan)
        fits: list[FittedRankSVM | None] = []
        reason = None
        for f, fold in enumerate(folds):
            cells = design.usable & fold.train & np.isfinite(held_in(scores[0], fold))
            tasks = np.flatnonzero(cells.any(axis=1))
            pairs = pairs_of(cells, seed)
            signs = pairs.signs(scores)
            if not signs[:, 0].any():
                reason = "all held-in scores of each task are equal"
            places = _choose(self.grid, x, scores, _inner_splits(cells, tasks, groups, seed), seed)
            n_candidates = len(design.candidates)
            held_out = np.concatenate([t * n_candidates + np.arange(n_candidates) for t in fold.tasks])
            found = np.full((len(held_out), len(scores)), np.nan)
            fitted = None
            for place in np.unique(places):
                gamma, c = self.grid[place]
                own = x[pairs.cells]
                those = np.flatnonzero((places == place) & signs.any(axis=0))
                weights, _ = solve_many(_kernel(own, own, gamma), pairs, signs[:, those], c)
                found[:, those] = _kernel(x[held_out], own, gamma) @ weights
                if len(those) and those[0] == 0:
                    fitted = _fitted(design.features, gamma, c, own, weights[:, 0])
            fits.append(fitted)
            cube = found.T.reshape(len(scores), len(fold.tasks), n_candidates)
            values[:, f, list(fold.tasks)] = np.where(design.usable[list(fold.tasks)], cube, np.nan)
        return Predicted(values, tuple(fits), reason)


def ranksvm(name: str) -> RankSVM:
    """`LINEAR` or `RBF` with its grid."""
    return RankSVM(name, LINEAR_GRID if name == LINEAR else RBF_GRID)


def _fitted(
    features: tuple[str, ...], gamma: float | None, c: float, cells: Array, weights: Array
) -> FittedRankSVM:
    """From weights [m] of cells [m, F]; a linear one needs no more than its coefficients."""
    if gamma is None:
        cells, weights = (weights @ cells)[None] / max(1, cells.shape[1]), np.array([float(cells.shape[1])])
    kept = weights != 0
    return FittedRankSVM(features, gamma, c, cells[kept], weights[kept])


def _kernel(x: Array, y: Array, gamma: float | None) -> Array:
    return linear_kernel(x, y) if gamma is None else rbf_kernel(x, y, gamma)


def _choose(
    grid: tuple[Point, ...], x: Array, scores: Array, splits: Sequence[tuple[Bools, Bools]], seed: int
) -> NDArray[np.int64]:
    """Place in the grid [P] with the most concordant pairs of held-out cells; the first of equals.

    Args:
        x: [T * C, F].
        scores: [P, T, C].
        splits: see `_inner_splits`.
    """
    concordant = np.zeros((len(grid), len(scores)))
    for learned, shown in splits:
        pairs = pairs_of(learned, seed)
        looked = pairs_of(shown, seed)
        if not len(pairs.first) or not len(looked.first):
            continue
        truth = looked.signs(scores)
        for place, weights in _path(grid, x[pairs.cells], pairs, pairs.signs(scores)):
            found = _kernel(x[looked.cells], x[pairs.cells], grid[place][0]) @ weights
            # Rounded: the sign of what is 0 on paper would be chance.
            gaps = np.round(found[looked.first] - found[looked.second], 9)
            concordant[place] += (np.sign(gaps) * truth).sum(axis=0)
    return np.asarray(concordant.argmax(axis=0))


def _path(grid: tuple[Point, ...], own: Array, pairs: Pairs, signs: Array) -> Iterator[tuple[int, Array]]:
    """Weights for each point of the grid; within a gamma each C starts from the solution before it."""
    for gamma, places in groupby(range(len(grid)), key=lambda place: grid[place][0]):
        kernel = _kernel(own, own, gamma)
        start: Singles | None = None
        for place in places:
            weights, start = solve_many(kernel, pairs, signs, grid[place][1], start)
            yield place, weights


def _inner_splits(
    cells: Bools, tasks: NDArray[np.int64], groups: Groups | None, seed: int
) -> list[tuple[Bools, Bools]]:
    """How hyperparameters are tried: held-in cells [T, C] to learn from, and others to look at.

    With one held-in task candidates are held out within it; with one held-in group its candidates are.
    """
    if groups is None and len(tasks) > 1:
        rows = [np.arange(len(cells)) == t for t in tasks]
        return [(cells & ~row[:, None], cells & row[:, None]) for row in rows]
    there = np.asarray(cells.any(axis=0))
    own = np.arange(cells.shape[1]) if groups is None else groups
    if len(np.unique(own[there])) < 2:
        own = np.arange(cells.shape[1])
    rng = np.random.default_rng(seed)
    fold_of = deal(own, there, min(_INNER_GROUPS, len(np.unique(own[there]))), rng)
    splits = []
    for half in np.array_split(rng.permutation(tasks), 2) if len(tasks) > 1 else [tasks]:
        looked = np.isin(np.arange(len(cells)), half)[:, None]
        learned = ~looked if len(tasks) > 1 else looked
        for k in range(int(fold_of.max(initial=0)) + 1):
            splits.append((cells & learned & (fold_of != k), cells & looked & (fold_of == k)))
    return splits
