"""Sparse-3: the best signed triple of features, equal weights on their z-scores, found by trying every one.

How "the best signed triple of the 82,160" is read: 80 features have 82,160 triples; each is tried with every
pattern of signs, four patterns and their negatives, which have the negative rho. So it is the maximum over
657,280 sums of the mean held-in Spearman's rho, and the search is exact. With two features pairs are tried,
with one itself.

Why it is fast: z-scores use no score, so the ranks of all sums are made once for all score arrays and folds
that learn from the same candidates; a rho is then a matrix product. Sums are of whole numbers (z in steps of
about 1e-8), so what is equal on paper ties, whatever the order of adding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.feature_table import Design
from forecast.analysis.ranking.scorers.base import Groups, Predicted, only_usable, selected
from forecast.analysis.ranking.splits import Fold
from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES
from forecast.errors import FitError

Array = NDArray[np.float64]
Ints = NDArray[np.int32]
_CHUNK = 8192  # sums at a time: bounds the memory to some hundred megabytes for 200 score arrays
_SIZE = 3


@dataclass(frozen=True)
class FittedSparse:
    """Features and their signs."""

    features: tuple[str, ...]
    signs: tuple[int, ...]  # 1 or -1

    def score(self, design: Design) -> Array:
        """Mean of the signed z-scores: [T, C]."""
        z = selected(design, self.features).z
        return only_usable(z @ np.array(self.signs, float) / len(self.signs), design)

    def chosen(self) -> str:
        """The signed features."""
        return " ".join(("+" if s > 0 else "-") + f for f, s in zip(self.features, self.signs, strict=True))

    def as_record(self) -> dict[str, Any]:
        """For `load`."""
        return {"kind": "sparse-3", "features": list(self.features), "signs": list(self.signs)}


@dataclass(frozen=True)
class Sparse3:
    """The best signed triple by mean held-in rho; of equals the first in the order of the features.

    A task with fewer than 3 held-in scores does not count; a sum that is constant on a task counts as rho 0.
    """

    name: str = "sparse-3"
    batch: int = 256  # score arrays at once: ranks of the sums are made once for all of them

    def cost(self, design: Design, n_scores: int, n_folds: int) -> float:
        """Seconds of one core, roughly, for one `predict_many`."""
        n_tasks, n = design.usable.shape
        sums = comb(len(design.features), _SIZE) * 2 ** (_SIZE - 1)
        return float(sums * (n_tasks * (1.6e-9 * n**2 + 2e-9 * n_scores) + 1.8e-9 * n_scores * n_folds))

    def fit(self, design: Design, scores: Array, groups: Groups | None = None, seed: int = 0) -> FittedSparse:
        """See `Scorer.fit`; `groups` and `seed` do not matter."""
        everyone = np.ones(len(design.candidates), bool)
        merit, sums = _search(design, scores[None], [Fold((), everyone, everyone)])
        if merit[0, 0] == 0:
            raise FitError(_NOTHING)
        return _fitted(design, sums[0, 0])

    def predict_many(
        self, design: Design, scores: Array, folds: Sequence[Fold], groups: Groups | None, seed: int
    ) -> Predicted:
        """See `Batched.predict_many`."""
        values = np.full((len(scores), len(folds), *design.usable.shape), np.nan)
        merit, sums = _search(design, scores, folds)
        for f, fold in enumerate(folds):
            for p in np.flatnonzero(merit[:, f] > 0):
                values[p, f, list(fold.tasks)] = _fitted(design, sums[p, f]).score(design)[list(fold.tasks)]
        fits = tuple(_fitted(design, sums[0, f]) if merit[0, f] > 0 else None for f in range(len(folds)))
        return Predicted(values, fits, None if (merit[0] > 0).all() else _NOTHING)


_NOTHING = "every sum of features, or every held-in score, is the same for all candidates"


def _fitted(design: Design, weights: Ints) -> FittedSparse:
    """From weights [F] of -1, 0 and 1."""
    places = np.flatnonzero(weights)
    return FittedSparse(
        tuple(design.features[k] for k in places), tuple(1 if weights[k] > 0 else -1 for k in places)
    )


def _search(design: Design, scores: Array, folds: Sequence[Fold]) -> tuple[Array, Ints]:
    """The best sum of each score array in each fold.

    Args:
        scores: [P, T, C]; the same cells are NaN in all.
        folds: all with the same `train`.

    Returns:
        mean rho [P, folds], 0 where none has any; weights [P, folds, F] of the features: -1, 0 or 1.
    """
    cells = design.usable & folds[0].train & np.isfinite(scores[0])  # [T, C]
    counted = [t for t in range(len(cells)) if _counts(scores[0, t, cells[t]])]
    best = np.zeros((len(scores), len(folds)))
    weights = np.zeros((len(scores), len(folds), len(design.features)), np.int32)
    if not counted or not design.features:
        return best, weights
    task_sets = [np.flatnonzero(fold.learned(len(cells))[counted]) for fold in folds]
    steps = _whole_numbers(design.z)
    columns = [steps[t, cells[t]] for t in counted]  # [n, F] of the cells that are learned from
    targets = [_doubled_ranks(np.ascontiguousarray(scores[:, t, cells[t]].T)) for t in counted]  # [n, P]
    for places, signs in _patterns(len(design.features)):
        rho = np.stack([_rhos(y, _sums(x, places, signs)) for x, y in zip(columns, targets, strict=True)])
        for f, tasks in enumerate(task_sets):
            if not len(tasks):
                continue
            mean = _mean_over(rho, tasks)
            size = np.abs(mean)
            k = size.argmax(axis=1)
            rows = np.arange(len(scores))
            found = size[rows, k]
            # Rounding is of the order of 1e-7; a real difference of two mean rhos is larger.
            better = found > best[:, f] + 1e-6
            best[better, f] = found[better]
            turned = np.where(mean[rows, k] < 0, -1, 1)
            weights[better, f] = 0
            for member in range(places.shape[1]):
                at = places[k[better], member]
                weights[np.flatnonzero(better), f, at] = turned[better] * signs[k[better], member]
    return best, weights


def _counts(scores: Array) -> bool:
    return len(scores) >= MIN_CANDIDATES and bool((scores != scores[0]).any())


def _rhos(targets: NDArray[np.float32], sums: Ints) -> NDArray[np.float32]:
    """Spearman's rho [P, chunk] of doubled ranks [n, P] with sums [n, chunk]."""
    ranks = _doubled_ranks(sums)
    rho = targets.T @ ranks
    rho *= _inverse_lengths(targets)[:, None]
    rho *= _inverse_lengths(ranks)
    return rho


def _mean_over(rho: NDArray[np.float32], tasks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean over tasks, added one by one: [P, chunk]."""
    total: NDArray[np.float32] = rho[tasks[0]].copy()
    for t in tasks[1:]:
        total += rho[t]
    total /= np.float32(len(tasks))
    return total


def _whole_numbers(z: Array) -> Ints:
    """Z-scores in equal steps, so small that three of them add up within 32 bits."""
    largest = max(float(np.abs(z).max(initial=0.0)), 1.0)
    return np.rint(z * (2.0**28 / largest)).astype(np.int32)


def _patterns(n_features: int) -> Iterator[tuple[NDArray[np.int64], Ints]]:
    """All sums, by chunks: places [chunk, size] and signs [chunk, size], of which the first is 1."""
    size = min(_SIZE, n_features)
    signs = np.array([(1, *rest) for rest in product((1, -1), repeat=size - 1)], np.int32)
    triples = np.array(list(combinations(range(n_features), size)), int)
    step = max(1, _CHUNK // len(signs))
    for start in range(0, len(triples), step):
        part = triples[start : start + step]
        yield np.repeat(part, len(signs), axis=0), np.tile(signs, (len(part), 1))


def _sums(columns: Ints, places: NDArray[np.int64], signs: Ints) -> Ints:
    """Signed sums [n, chunk] of features [n, F]."""
    total = columns[:, places[:, 0]]
    for member in range(1, places.shape[1]):
        total += signs[:, member] * columns[:, places[:, member]]
    return total


def _doubled_ranks(values: NDArray[Any]) -> NDArray[np.float32]:
    """Twice the centred average rank along the first axis: how many are lower, less how many are higher.

    Whole numbers, so a product of two such columns is exact in any order of adding. Comparing all pairs of
    rows of [n, chunk] is four times as fast as sorting for n = 18, and needs no case for ties.
    """
    n = len(values)
    counts = np.zeros(values.shape, np.int8 if n < 128 else np.int32)
    for i in range(n):
        for j in range(i):
            sign = (values[i] > values[j]).view(np.int8) - (values[i] < values[j]).view(np.int8)
            counts[i] += sign
            counts[j] -= sign
    return counts.astype(np.float32)


def _inverse_lengths(ranks: NDArray[np.float32]) -> NDArray[np.float32]:
    """One over the length of each column [n, chunk]; 0 for a constant one, so that its rho is 0."""
    length = np.sqrt(np.einsum("nk,nk->k", ranks, ranks))
    inverse: NDArray[np.float32] = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
    return inverse
