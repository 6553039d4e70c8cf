"""Curves with known parameters, and the closed forms against brute force."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from forecast.analysis.checkpoints.fit_window import Points
from forecast.analysis.checkpoints.shape_averaging import averaged_power, averaged_sigmoid, pooled_exponents
from forecast.analysis.stats.curve_fitting import (
    UNIT,
    FitError,
    best_ends,
    best_line,
    fit_log_linear,
    fit_monotone_spline,
    fit_power,
    fit_sigmoid,
)

U = np.array([0.07, 0.1, 0.18, 0.25, 0.31, 0.5, 0.62, 0.8, 0.93, 1.0])


@pytest.mark.parametrize(("a", "b", "c"), [(0.8, 0.1, 0.37), (0.6, -0.2, 1.4), (2.4, -0.9, 0.08)])
def test_a_power_law_without_noise_is_recovered(a: float, b: float, c: float) -> None:
    found = fit_power(U, a - b * U**-c)
    assert found.parameters == pytest.approx({"a": a, "b": b, "c": c}, rel=1e-4)
    np.testing.assert_allclose(found.at(np.array([18.0])), a - b * 18.0**-c, atol=1e-6)


def test_the_limit_of_a_power_law_stays_within_bounds() -> None:
    y = 0.7 + 0.12 * np.log(U)  # would pass 1 at 12 times the window
    assert fit_power(U, y).at(np.array([40.0]))[0] > 1
    bounded = fit_power(U, y, UNIT)
    assert bounded.parameters["a"] <= 1
    assert bounded.at(np.array([1e12]))[0] <= 1


def test_a_power_law_with_noise_is_at_least_as_good_as_a_general_optimiser_finds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        y = 0.7 - 0.1 * U**-0.5 + 0.01 * rng.standard_normal(len(U))
        found = fit_power(U, y, UNIT)

        def cost(p: np.ndarray, y: np.ndarray = y) -> float:
            return float(((p[0] - p[1] * U ** -p[2] - y) ** 2).sum())

        bounds = [(0, 1), (-5, 5), (0.01, 3)]
        best = min(
            minimize(cost, [0.7, 0.1, c], bounds=bounds, options={"maxiter": 2000}).fun
            for c in (0.05, 0.3, 1.0, 2.0)
        )
        assert found.rmse**2 * len(U) <= best * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_sigmoid_without_noise_is_recovered_whichever_way_it_runs(sign: float) -> None:
    x = sign * np.log(U)
    y = 0.25 + 0.6 * expit(1.3 * (sign * x - 0.2))
    found = fit_sigmoid(x, y)
    np.testing.assert_allclose(
        found.at(sign * np.array([0.5, 1.5, 2.9])),
        0.25 + 0.6 * expit(1.3 * (np.array([0.5, 1.5, 2.9]) - 0.2)),
        atol=2e-3,
    )
    assert found.parameters["low"] == pytest.approx(0.25, abs=2e-3)
    assert np.sign(found.parameters["k"]) == sign


def test_a_known_chance_level_is_kept() -> None:
    y = 0.25 + 0.6 * expit(2 * (np.log(U) - 0.5))
    assert fit_sigmoid(np.log(U), y, floor=(0.2, 0.2)).parameters["low"] == 0.2


def test_closed_forms_agree_with_a_search() -> None:
    rng = np.random.default_rng(1)
    share, y = rng.random((12, 7)), rng.random(12)
    low, high = best_ends(share, y, (0.1, 0.3), (0.4, 0.9))
    fine = np.linspace(0, 1, 201)
    lows, highs = 0.1 + 0.2 * fine, 0.4 + 0.5 * fine
    for g in range(7):
        values = lows[:, None, None] * (1 - share[:, g]) + highs[None, :, None] * share[:, g]
        costs = ((values - y) ** 2).sum(axis=2)
        own = ((low[g] * (1 - share[:, g]) + high[g] * share[:, g] - y) ** 2).sum()
        assert own <= costs.min() + 1e-9
        assert 0.1 - 1e-12 <= low[g] <= 0.3 + 1e-12
        assert 0.4 - 1e-12 <= high[g] <= 0.9 + 1e-12
    a, b = best_line(share, y, (-np.inf, np.inf))
    for g in range(7):
        slope, start = np.polyfit(share[:, g], y, 1)
        assert (a[g], b[g]) == pytest.approx((start, slope))


def test_a_straight_line_and_a_spline() -> None:
    y = 0.5 + 0.07 * np.log(U)
    assert fit_log_linear(U, y).parameters == pytest.approx({"a": 0.5, "b": 0.07})
    spline = fit_monotone_spline(U, y + np.array([0, 0.05] * 5))
    assert (np.diff(spline.at(np.linspace(0.07, 1.0, 50))) >= -1e-12).all()
    assert spline.at(np.array([1.0]))[0] == spline.at(np.array([18.0]))[0]


def test_too_few_points_and_nan_are_said() -> None:
    with pytest.raises(FitError, match="2 different points, this form needs 3"):
        fit_power(np.array([0.5, 1.0]), np.array([0.1, 0.2]))
    with pytest.raises(FitError, match="not finite"):
        fit_power(U, np.full(len(U), np.nan))
    with pytest.raises(FitError, match="needs 4"):
        fit_sigmoid(np.ones(10), U)


def test_averages_reproduce_curves_that_the_points_determine() -> None:
    y = 0.8 - 0.1 * U**-0.4
    found = averaged_power(Points(U, y), pooled_exponents([]))(np.array([2.0, 18.0]))
    np.testing.assert_allclose(found, 0.8 - 0.1 * np.array([2.0, 18.0]) ** -0.4, atol=2e-3)
    x = np.linspace(-2, 2, 30)
    z = 0.25 + 0.7 * expit(2 * x)
    np.testing.assert_allclose(averaged_sigmoid(x, z)(np.array([3.0])), 0.25 + 0.7 * expit(6.0), atol=0.02)


def test_the_exponents_of_other_series_help_one_that_cannot_tell_its_own() -> None:
    rng = np.random.default_rng(2)
    clear = [Points(U, k - 0.1 * U**-1.2 + 1e-4 * rng.standard_normal(len(U))) for k in (0.5, 0.6, 0.7, 0.8)]
    alone, helped = [], []
    for _ in range(40):
        vague = Points(U[5:], 0.8 - 0.1 * U[5:] ** -1.2 + 0.01 * rng.standard_normal(5))
        truth = 0.8 - 0.1 * 18.0**-1.2
        at = np.array([18.0])
        alone.append(averaged_power(vague, pooled_exponents([]))(at)[0] - truth)
        helped.append(averaged_power(vague, pooled_exponents([*clear, vague]))(at)[0] - truth)
    assert np.mean(np.square(helped)) < np.mean(np.square(alone))
