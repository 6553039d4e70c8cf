"""Correlations with gaps against scipy, slow definitions and published examples."""

import math

import numpy as np
import pytest
from scipy import stats

from forecast.analysis.stats.correlations import (
    average_ranks,
    kendall_where,
    partial_spearman,
    rho_interval,
    smallest_detectable_rho,
    spearman_where,
    unit_ranks,
    weighted_tau_where,
    williams,
    zou,
)


@pytest.mark.parametrize("seed", range(10))
def test_correlations_with_ties_and_gaps_equal_scipy_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(6, 45))
    x, y = rng.integers(0, 7, n).astype(float), rng.integers(0, 5, n).astype(float)
    x[0], x[1], y[0], y[1] = 0, 6, 0, 4
    x[2], y[3] = np.nan, np.nan
    both = np.isfinite(x) & np.isfinite(y)
    a, b = x[both], y[both]
    assert spearman_where(x, y) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-11)
    assert kendall_where(x, y) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-11)
    assert weighted_tau_where(x, y) == pytest.approx(stats.weightedtau(a, b).statistic, abs=1e-11)
    np.testing.assert_array_equal(average_ranks(x)[np.isfinite(x)], stats.rankdata(x[np.isfinite(x)]))
    assert np.isnan(average_ranks(x)[2])


def test_many_rows_at_once_and_gaps_of_their_own() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 5, 11)), rng.normal(size=(5, 11))
    x[rng.random(x.shape) < 0.2] = np.nan
    found = spearman_where(x, y)
    assert found.shape == (3, 5)
    for i, j in np.ndindex(found.shape):
        known = np.isfinite(x[i, j])
        expected = stats.spearmanr(x[i, j, known], y[j, known]).statistic
        assert found[i, j] == pytest.approx(expected, abs=1e-11)


def test_what_has_no_rho() -> None:
    nan = np.nan
    for x, y in (([1, 2, nan], [1, 2, 3]), ([1, 1, 1, nan], [1, 2, 3, 4]), ([1, 2, 3, 9], [5, 5, 5, nan])):
        a, b = np.array(x, float), np.array(y, float)
        assert np.isnan(spearman_where(a, b)) and np.isnan(kendall_where(a, b))
        assert np.isnan(weighted_tau_where(a, b))
    assert not unit_ranks(np.array([[2.0, 2, 2], [1, 2, nan]])).any()


def test_weighted_tau_cares_for_the_top() -> None:
    y = np.arange(10.0)
    top, bottom = y.copy(), y.copy()
    top[[8, 9]], bottom[[0, 1]] = top[[9, 8]], bottom[[1, 0]]
    assert weighted_tau_where(top, y) < weighted_tau_where(bottom, y) < 1


def test_partial_spearman_is_the_correlation_of_residual_ranks() -> None:
    rng = np.random.default_rng(1)
    given = rng.normal(size=40)
    x, y = given + rng.normal(size=40), given + rng.normal(size=40)
    ranks = [stats.rankdata(v) for v in (x, y, given)]
    rest = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    expected = stats.pearsonr(*rest).statistic
    gap = np.append(given, np.nan)
    found = partial_spearman(np.append(x, 1.0), np.append(y, 9.0), gap)
    assert found == pytest.approx(expected, abs=1e-10)
    assert abs(found) < 0.6 * spearman_where(x, y)
    assert np.isnan(partial_spearman(x, y, x)), "nothing is left of x"
    assert np.isnan(partial_spearman(x, y, np.ones(40)))


def test_zou_s_published_example() -> None:
    """Zou (2007): correlations .396 and .179 with the same variable, .088 with each other, n = 66."""
    low, high = zou(0.396, 0.179, 0.088, 66, 0.95)
    assert (round(low, 3), round(high, 3)) == (-0.093, 0.517)


def test_williams_test_holds_its_level_and_is_antisymmetric() -> None:
    rng = np.random.default_rng(2)
    cov = np.array([[1, 0.7, 0.5], [0.7, 1, 0.5], [0.5, 0.5, 1]])
    ps = []
    for _ in range(1500):
        r = np.corrcoef(rng.multivariate_normal(np.zeros(3), cov, size=25).T)
        ps.append(williams(r[0, 2], r[1, 2], r[0, 1], 25)[1])
    assert np.mean(np.array(ps) < 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(np.array(ps) < 0.5) == pytest.approx(0.5, abs=0.05)
    t, p = williams(0.6, 0.3, 0.4, 25)
    assert williams(0.3, 0.6, 0.4, 25) == (pytest.approx(-t), pytest.approx(p))
    assert all(map(math.isnan, (*williams(0.6, 0.3, 0.4, 3), *zou(0.6, 0.3, 0.4, 3, 0.95))))
    assert math.isnan(williams(0.5, 0.5, 1.0, 20)[0]), "the same predictions twice"


def test_smallest_detectable_rho_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(3)
    for n in (12, 18, 40):
        rho = smallest_detectable_rho(n)
        pearson = 2 * np.sin(np.pi * rho / 6)  # of a normal pair with this Spearman's rho
        x = rng.normal(size=(3000, n))
        y = pearson * x + np.sqrt(1 - pearson**2) * rng.normal(size=(3000, n))
        found = spearman_where(x, y)
        t = np.abs(found) * np.sqrt((n - 2) / np.maximum(1 - found**2, 1e-12))
        assert np.mean(t > stats.t.ppf(0.975, n - 2)) == pytest.approx(0.8, abs=0.03)
    assert smallest_detectable_rho(100) < smallest_detectable_rho(18) < smallest_detectable_rho(8) < 1
    assert math.isnan(smallest_detectable_rho(3))


def test_interval_of_a_perfect_rho_has_a_width() -> None:
    low, high = rho_interval(1.0, 12, 0.95)
    assert 0.98 < low < 0.995 and high == 1.0
    assert all(map(math.isnan, rho_interval(0.5, 3, 0.95)))
    low, high = rho_interval(0.5, 30, 0.95)
    assert low < 0.5 < high < 1
