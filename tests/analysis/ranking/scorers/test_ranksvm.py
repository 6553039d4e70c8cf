"""RankSVM against a general solver for quadratic programmes, and the two solvers against each other."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from worlds import design, table_of, world

from forecast.analysis.ranking.scorers.ranksvm import LINEAR, RBF, FittedRankSVM, RankSVM, ranksvm
from forecast.analysis.ranking.scorers.ranksvm_batched import solve_many
from forecast.analysis.ranking.scorers.ranksvm_pairs import (
    MAX_PAIRS,
    linear_kernel,
    pairs_of,
    rbf_kernel,
    solve,
)

Array = NDArray[np.float64]


def programme(x: Array, scores: Array, gamma: float | None, c: float) -> Array:
    """f at the cells [T, C] by the primal problem, pair by pair: minimise |f|^2 / 2 + C mean slack.

    f = L v with k = L L', so that |f|^2 = v'v; slack_p >= 0 and slack_p >= 1 - (f(better) - f(worse)).
    """
    tasks, n, features = x.shape
    cells = x.reshape(-1, features)
    if gamma is None:
        k = cells @ cells.T / features
    else:
        k = np.exp(-gamma * ((cells[:, None] - cells[None]) ** 2).mean(axis=2))
    better, worse = [], []
    for t in range(tasks):
        for i in range(n):
            for j in range(n):
                if scores[t, i] > scores[t, j]:
                    better.append(t * n + i)
                    worse.append(t * n + j)
    values, vectors = np.linalg.eigh(k)
    root = (vectors * np.sqrt(np.maximum(values, 0)))[:, values > 1e-9]  # [cells, m]
    gaps = root[better] - root[worse]  # [pairs, m]
    m, p = root.shape[1], len(better)

    def loss(v: Array) -> float:
        return float(v[:m] @ v[:m] / 2 + c * v[m:].mean())

    def slope(v: Array) -> Array:
        return np.concatenate([v[:m], np.full(p, c / p)])

    jacobian = np.hstack([gaps, np.eye(p)])
    found = minimize(
        loss,
        np.concatenate([np.zeros(m), np.ones(p)]),
        jac=slope,
        method="SLSQP",
        bounds=[(None, None)] * m + [(0, None)] * p,
        constraints={"type": "ineq", "fun": lambda v: jacobian @ v - 1, "jac": lambda v: jacobian},
        options={"maxiter": 2000, "ftol": 1e-10},
    )
    assert found.success, found.message
    return np.asarray(root @ found.x[:m]).reshape(tasks, n)


@pytest.mark.parametrize("gamma", [None, 0.3])
@pytest.mark.parametrize("c", [0.5, 5.0, 50.0])
def test_a_tiny_case_equals_the_quadratic_programme(gamma: float | None, c: float) -> None:
    rng = np.random.default_rng(7)
    table = table_of(rng.normal(size=(2, 4, 3)), np.array([[1.0, 2, 2, 4], [3, 1, 2, 2]]))
    made = design(table)
    expected = programme(made.z, table.scores, gamma, c)
    found = RankSVM("one point", ((gamma, c),)).fit(made, table.scores).score(made)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    pairs = pairs_of(made.usable, 0)
    x = made.z.reshape(8, 3)
    kernel = linear_kernel(x, x) if gamma is None else rbf_kernel(x, x, gamma)
    weights, _ = solve_many(kernel, pairs, pairs.signs(table.scores[None]), c)
    np.testing.assert_allclose((kernel @ weights[:, 0]).reshape(2, 4), expected, atol=0.01)


@pytest.mark.parametrize("gamma", [None, 0.05, 1.0])
def test_many_problems_at_once_equal_scikit_learn_s(gamma: float | None) -> None:
    table = world("ability", 1, 10, 3, 13)
    made = design(table)
    rng = np.random.default_rng(0)
    scores = np.stack([table.scores[:, rng.permutation(10)] for _ in range(5)])
    scores[3] = np.round(scores[3])  # ties
    scores[4] = 1.0  # nothing but ties
    pairs = pairs_of(made.usable, 0)
    x = made.z.reshape(30, 13)
    kernel = linear_kernel(x, x) if gamma is None else rbf_kernel(x, x, gamma)
    start = None
    for c in (0.3, 30.0, 300.0):
        weights, start = solve_many(kernel, pairs, pairs.signs(scores), c, start)
        assert not weights[:, 4].any()
        for p in range(4):
            expected = kernel @ solve(kernel, pairs, pairs.signs(scores)[:, p], c)
            np.testing.assert_allclose(kernel @ weights[:, p], expected, atol=0.02)


def test_a_pair_s_kernel_is_antisymmetric_and_scores_follow_from_it() -> None:
    """f(x) - f(y) = sum_p a_p (k(i,x) - k(i,y) - k(j,x) + k(j,y)), whatever kernel is taken."""
    table = world("ability", 2, 6, 2, 4)
    made = design(table)
    fitted = RankSVM("one point", ((0.4, 20.0),)).fit(made, table.scores)
    swapped = RankSVM("one point", ((0.4, 20.0),)).fit(made, -table.scores)
    np.testing.assert_allclose(fitted.score(made), -swapped.score(made), atol=1e-3)
    assert fitted.weights.sum() == pytest.approx(0, abs=1e-9), "pairs give as much as they take"


def test_linear_keeps_only_coefficients_and_orders_unseen_cells() -> None:
    table = world("ability", 3, 12, 5, 20)
    fitted = ranksvm(LINEAR).fit(design(table), table.scores)
    assert fitted.gamma is None and fitted.cells.shape == (1, 20)
    unseen = world("ability", 3, 12, 5, 20)
    x = np.random.default_rng(1).normal(size=(1, 2, 20))
    both = FittedRankSVM(fitted.features, None, 1.0, fitted.cells, fitted.weights)
    made = design(table_of(x, unseen.scores[:1, :2]))
    gap = np.diff(both.score(made)[0])[0]
    assert gap == pytest.approx(float(fitted.cells[0] @ np.diff(made.z[0], axis=0)[0]), rel=1e-9)


def test_inner_folds_choose_what_carries_over() -> None:
    """Marks of single candidates carry over tasks but not over candidates: gamma follows the protocol."""
    table = world("fingerprint", 0, 15, 4, 30)
    made = design(table)
    known = ranksvm(RBF).fit(made, table.scores, None)
    new = ranksvm(RBF).fit(made, table.scores, np.arange(15))
    assert (known.gamma, known.c) != (new.gamma, new.c)


def test_more_pairs_than_a_fit_can_hold_are_sampled_with_the_seed() -> None:
    cells = np.ones((6, 60), bool)
    first, again, other = pairs_of(cells, 0), pairs_of(cells, 0), pairs_of(cells, 1)
    assert len(first.first) == MAX_PAIRS < 6 * 60 * 59 // 2
    np.testing.assert_array_equal(first.first, again.first)
    assert (first.first != other.first).any()
    tasks = first.cells // 60
    assert (tasks[first.first] == tasks[first.second]).all(), "a pair is of one task"
