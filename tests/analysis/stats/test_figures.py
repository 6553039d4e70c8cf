import numpy as np
import pytest
from scipy import stats

from forecast.analysis.stats.figures import rho_of


def test_rho_is_scipy_s_over_the_candidates_that_have_both() -> None:
    x = np.array([1.0, 5.0, np.nan, 2.0, 2.0, 9.0])
    y = np.array([2.0, 4.0, 8.0, np.nan, 3.0, 3.0])
    kept = [0, 1, 4, 5]
    found = rho_of(x, y, 0.95)
    assert found.spearman == pytest.approx(stats.spearmanr(x[kept], y[kept]).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(x[kept], y[kept]).statistic)
    assert found.n == 4 and found.reason is None
    assert found.low is not None and found.high is not None
    assert found.low < found.spearman < found.high


def test_what_has_no_rho_says_why() -> None:
    few = rho_of(np.array([1.0, 2.0, np.nan]), np.array([1.0, 2.0, 3.0]), 0.95)
    assert (few.spearman, few.low, few.n) == (None, None, 2)
    assert few.reason is not None and "takes 3" in few.reason
    equal = rho_of(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0]), 0.95)
    assert equal.spearman is None and equal.n == 3
    assert equal.reason is not None and "equal" in equal.reason


def test_three_candidates_have_a_rho_without_an_interval() -> None:
    found = rho_of(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]), 0.95)
    assert (found.spearman, found.low, found.high) == (0.5, None, None)
