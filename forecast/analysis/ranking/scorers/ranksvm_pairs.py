"""RankSVM's problem: cells, pairs of cells of one task, kernels; and its solution by scikit-learn.

Over functions f of a kernel's space, with a pair (i, j) for every two cells of one task whose scores differ
and s = 1 or -1 as i or j is better:

    minimise  1/2 |f|^2 + C mean over pairs of max(0, 1 - s (f(i) - f(j)))

There is no intercept: a difference does not see one. A cell's score is `f(x) = sum_p b_p (k(i_p, x) - k(j_p,
x))`, so pairs meet in the antisymmetric kernel `k(i,k) - k(i,l) - k(j,k) + k(j,l)`. The loss is a mean, and
kernels are of order 1 for any number of features, so that one C means about the same on every table.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.errors import FitError

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# Of more pairs a seeded sample is taken: 18 candidates on 6 tasks have 918, and 4,000 fill the memory of one
# fit.
MAX_PAIRS = 4000


@dataclass(frozen=True)
class Pairs:
    """Pairs of cells; cells are counted through the flattened [T, C]."""

    cells: Ints  # [m], those that some pair holds
    first: Ints  # [q], places in `cells`
    second: Ints  # [q]

    def signs(self, scores: Array) -> Array:
        """Which of a pair is better: 1, -1, or 0 for equal scores; [q, P] from scores [P, T, C]."""
        flat = scores.reshape(len(scores), -1)[:, self.cells]
        return np.sign(flat[:, self.first] - flat[:, self.second]).T


def pairs_of(cells: Bools, seed: int) -> Pairs:
    """All pairs of cells [T, C] within each task, or a sample of `MAX_PAIRS` of them."""
    n_candidates = cells.shape[1]
    firsts, seconds = [np.zeros(0, int)], [np.zeros(0, int)]
    for t, row in enumerate(cells):
        own = t * n_candidates + np.flatnonzero(row)
        i, j = np.triu_indices(len(own), 1)
        firsts.append(own[i])
        seconds.append(own[j])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    if len(first) > MAX_PAIRS:
        kept = np.sort(np.random.default_rng(seed).choice(len(first), MAX_PAIRS, replace=False))
        first, second = first[kept], second[kept]
    used, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    return Pairs(used, places[: len(first)], places[len(first) :])


def linear_kernel(x: Array, y: Array) -> Array:
    """Mean over features of the products: [a, b] from z-scores [a, F] and [b, F]."""
    kernel: Array = x @ y.T / max(1, x.shape[1])
    return kernel


def rbf_kernel(x: Array, y: Array, gamma: float) -> Array:
    """exp(-gamma times the mean over features of the squared differences): [a, b]."""
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.asarray(np.exp(-gamma * np.maximum(squares, 0) / max(1, x.shape[1])))


def solve(kernel: Array, pairs: Pairs, signs: Array, c: float) -> Array:
    """Weights of the cells [m], by scikit-learn's SVC: f(x) = sum_i weight_i k(i, x).

    Every pair goes in both ways round, so that SVC's intercept is 0.

    Args:
        kernel: [m, m] of `pairs.cells`.
        signs: [q], 0 for a pair with equal scores, which says nothing.

    Raises:
        FitError: all pairs have equal scores.
    """
    from sklearn.svm import SVC

    told = signs != 0
    if not told.any():
        raise FitError("all held-in scores of each task are equal")
    better = np.where(signs > 0, pairs.first, pairs.second)[told]
    worse = np.where(signs > 0, pairs.second, pairs.first)[told]
    gram = (
        kernel[np.ix_(better, better)]
        - kernel[np.ix_(better, worse)]
        - kernel[np.ix_(worse, better)]
        + kernel[np.ix_(worse, worse)]
    )
    n = len(better)
    machine = SVC(kernel="precomputed", C=c / (2 * n), tol=1e-5)
    machine.fit(np.block([[gram, -gram], [-gram, gram]]), np.repeat([1, -1], n))
    dual = np.zeros(2 * n)
    dual[machine.support_] = machine.dual_coef_[0]  # the label's sign is in it
    weights = np.zeros(len(kernel))
    np.add.at(weights, better, dual[:n] - dual[n:])
    np.add.at(weights, worse, dual[n:] - dual[:n])
    return weights
