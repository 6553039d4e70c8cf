"""Rank correlations and the test of the best of many."""

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from forecast.analysis.stats.rank_correlation import best_of_many_p, kendall, ranks, spearman

Array = NDArray[np.float64]
ALL = np.ones(80, bool)
NONE = np.zeros(80, bool)


def tau_b(x: Array, y: Array) -> float:
    """Kendall's tau-b by its definition, pair by pair."""
    i, j = np.triu_indices(len(x), 1)
    a, b = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
    return float((a * b).sum() / np.sqrt((a != 0).sum() * (b != 0).sum()))


@pytest.mark.parametrize("seed", range(20))
def test_correlations_with_many_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 40))
    x = rng.integers(0, 6, n).astype(float)
    y = rng.integers(0, 4, n).astype(float)
    x[0], x[1], y[0], y[1] = 0, 5, 0, 3  # neither is constant
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-11)
    assert kendall(x, y) == pytest.approx(tau_b(x, y), abs=1e-11)


def test_columns_are_taken_together() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (4, 7, 12)).astype(float), rng.normal(size=(4, 1, 12))
    found = spearman(x, y)
    assert found.shape == (4, 7)
    for i in range(4):
        for k in range(7):
            assert found[i, k] == pytest.approx(stats.spearmanr(x[i, k], y[i, 0]).statistic, abs=1e-11)


def test_perfect_agreement_is_exactly_one() -> None:
    rng = np.random.default_rng(0)
    for n in range(3, 60):
        x = rng.normal(size=n)
        assert spearman(x, np.exp(x)) == 1.0
        assert spearman(x, -x) == -1.0


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1, 1, 1, 1], [1, 2, 3, 4]),
        ([1, 2, 3, 4], [0, 0, 0, 0]),
        ([1, 2], [1, 2]),
        ([1], [1]),
        ([], []),
    ],
)
def test_no_rho_where_it_means_nothing(x: list[float], y: list[float]) -> None:
    assert np.isnan(spearman(np.array(x, float), np.array(y, float)))
    assert np.isnan(kendall(np.array(x, float), np.array(y, float)))


def test_no_rho_from_missing_values() -> None:
    assert np.isnan(spearman(np.array([1.0, 2.0, np.nan, 4.0]), np.arange(4.0)))


def test_ranks_share_ties_and_leave_out_what_is_missing() -> None:
    found = ranks(np.array([0.5, np.nan, 0.9, 0.5, 0.1]))
    np.testing.assert_array_equal(found, [2.5, np.nan, 1.0, 2.5, 4.0])


def test_calibration_of_the_best_of_80_under_noise() -> None:
    """The method's figures for n = 18: mean 0.61, 95th percentile 0.75 (20,000 runs: 0.6115 and 0.742)."""
    rng = np.random.default_rng(0)
    runs = [spearman(rng.normal(size=(500, 80, 18)), rng.normal(size=(500, 1, 18))) for _ in range(6)]
    best = np.abs(np.concatenate(runs)).max(axis=1)
    assert best.mean() == pytest.approx(0.61, abs=0.01)
    assert np.quantile(best, 0.95) == pytest.approx(0.745, abs=0.015)
    _, null_mean = best_of_many_p(
        rng.normal(size=(80, 18)), rng.normal(size=18), ALL, range(18), 2000, seed=1
    )
    assert null_mean == pytest.approx(0.61, abs=0.02)


@pytest.mark.parametrize("either_way", [ALL, NONE], ids=["either way", "one way"])
def test_p_is_uniform_under_noise_though_the_best_is_picked(either_way: NDArray[np.bool_]) -> None:
    rng = np.random.default_rng(2)
    found = []
    for i in range(400):
        common = rng.normal(size=11)  # proxies resemble each other
        features = common + rng.normal(size=(80, 11))
        found.append(best_of_many_p(features, rng.normal(size=11), either_way, range(11), 99, seed=i)[0])
    # 400 draws of a uniform: standard error of a share 0.011 at 0.05 and 0.025 at 0.5
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(np.array(found) <= 0.5) == pytest.approx(0.5, abs=0.08)


def test_p_finds_what_is_there_and_is_never_zero() -> None:
    rng = np.random.default_rng(3)
    features, scores = rng.normal(size=(80, 18)), np.arange(18.0)
    features[40] = scores
    p, null_mean = best_of_many_p(features, scores, NONE, range(18), 500, seed=0)
    assert p == 1 / 501
    assert 0.4 < null_mean < 0.8
    p, _ = best_of_many_p(-scores[None], scores, np.array([False]), range(18), 500, seed=0)
    assert p == 1.0, "a feature that points the wrong way is no success where the direction is known"
    p, _ = best_of_many_p(-scores[None], scores, np.array([True]), range(18), 500, seed=0)
    assert p == 1 / 501


def test_p_with_ties_counts_equal_figures_as_reached() -> None:
    """Of three candidates a third of all orders give rho of 1 or -1, whatever the rounding."""
    p, _ = best_of_many_p(
        np.array([[1.0, 2.0, 3.0]]), np.array([0.1, 0.2, 0.3]), np.array([True]), range(3), 4000, seed=0
    )
    assert p == 1 / 3, "every order is taken once"


def test_no_p_without_rho_or_permutations() -> None:
    features = np.random.default_rng(0).normal(size=(80, 6))
    assert np.isnan(best_of_many_p(features, np.ones(6), ALL, range(6), 100, 0)).all()
    assert np.isnan(best_of_many_p(np.ones((80, 6)), np.arange(6.0), ALL, range(6), 100, 0)).all()
    assert np.isnan(best_of_many_p(features, np.arange(6.0), ALL, range(6), 0, 0)).all()
    assert np.isnan(best_of_many_p(features[:, :2], np.arange(2.0), ALL, range(2), 100, 0)).all()


def test_constant_features_do_not_hide_the_others() -> None:
    features = np.random.default_rng(0).normal(size=(80, 9))
    features[7] = 1.0
    p, null_mean = best_of_many_p(features, np.arange(9.0), ALL, range(9), 200, 0)
    assert 0 < p <= 1 and 0 < null_mean < 1


def test_memory_of_many_candidates_and_permutations() -> None:
    rng = np.random.default_rng(0)
    features, scores = rng.normal(size=(80, 1000)), rng.normal(size=1000)
    tracemalloc.start()
    try:
        best_of_many_p(features, scores, ALL, range(1000), 1000, seed=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40e6, "a thousand permutations of a thousand candidates are 8 MB; times 80 proxies 640"
