"""Many RankSVMs on the same cells at once: the permutation null fits half a million.

scikit-learn takes one problem at a time and some 20 ms for it. Problems that share their cells differ only in
the signs of their pairs, so here one accelerated projected gradient method (FISTA, restarted where it
overshoots) works on all of them together. It is the problem of `svm_pairs.solve`, solved until no pair's
margin is wrong by more than `_TOLERANCE`; a test holds the two to each other, and both to a general solver
for quadratic programmes.

With b the signed dual variable of a pair, D the [q, m] matrix of differences and K the kernel of the cells:

    minimise  1/2 b' D K D' b - s' b,   b between 0 and s C / (number of pairs that are not tied)
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from forecast.analysis.ranking.scorers.ranksvm_pairs import Pairs

Array = NDArray[np.float64]
Singles = NDArray[np.float32]

_TOLERANCE = 5e-3  # of a margin of 1
_MAX_STEPS = 3000
_CHECK = 10  # steps between looks at who has converged


def solve_many(
    kernel: Array, pairs: Pairs, signs: Array, c: float, start: Singles | None = None
) -> tuple[Array, Singles]:
    """Weights of the cells for many problems.

    Args:
        kernel: [m, m] of `pairs.cells`.
        signs: [q, B] of 1, -1, or 0 for a pair that says nothing in that problem.
        start: signed dual variables [q, B] to start from, e.g. those for a smaller C.

    Returns:
        weights [m, B], all 0 for a problem without a pair; signed dual variables [q, B].
    """
    q, n_problems = signs.shape
    weights = np.zeros((len(kernel), n_problems))
    bound = (c / np.maximum((signs != 0).sum(axis=0), 1)).astype(np.float32)
    s = signs.astype(np.float32)
    low, high = np.minimum(0, s) * bound, np.maximum(0, s) * bound
    b = np.zeros((q, n_problems), np.float32) if start is None else np.clip(start, low, high)
    if q == 0 or n_problems == 0:
        return weights, b
    ones = np.ones(q, np.float32)
    rows, columns = np.tile(np.arange(q), 2), np.concatenate([pairs.first, pairs.second])
    differences = csr_array((np.concatenate([ones, -ones]), (rows, columns)), shape=(q, len(kernel)))
    back = csr_array(differences.T)
    k = kernel.astype(np.float32)
    steepest = float(np.linalg.eigvals((back @ differences).toarray() @ kernel).real.max(initial=0.0))
    if steepest > 1e-9:  # else all cells are alike
        _descend(b, s, low, high, (k, differences, back), np.float32(1 / (1.001 * steepest)))
    weights[:] = back @ b
    return weights, b


def _descend(
    solution: Singles,
    signs: Singles,
    low: Singles,
    high: Singles,
    matrices: tuple[Singles, csr_array, csr_array],
    step: np.float32,
) -> None:
    """Improve `solution` [q, B] in place, until every problem has converged or for `_MAX_STEPS` steps."""
    kernel, differences, back = matrices
    active = np.arange(solution.shape[1])
    b, s, lo, hi = solution.copy(), signs, low, high
    at, momentum = b.copy(), np.ones(b.shape[1], np.float32)
    for count in range(1, _MAX_STEPS + 1):
        gradient = differences @ (kernel @ (back @ at))
        gradient -= s
        new = at - step * gradient
        np.clip(new, lo, hi, out=new)
        moved = new - b
        if count % _CHECK == 0:
            off = np.abs(new - at).max(axis=0) / step
            done = off < _TOLERANCE
            if done.any():
                solution[:, active[done]] = new[:, done]
                left = ~done
                if not left.any():
                    return
                active, momentum = active[left], momentum[left]
                b, new, at, moved = b[:, left], new[:, left], at[:, left], moved[:, left]
                s, lo, hi = s[:, left], lo[:, left], hi[:, left]
        # Restart where the last step went uphill (O'Donoghue and Candes): the momentum was too large.
        uphill = np.einsum("qb,qb->b", at - new, moved) > 0
        momentum = np.where(uphill, np.float32(1), momentum)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        carry = np.where(uphill, np.float32(0), (momentum - 1) / following).astype(np.float32)
        at = new + carry * moved
        b, momentum = new, following.astype(np.float32)
    solution[:, active] = b
