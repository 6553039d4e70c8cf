"""The bounded sigmoid."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from forecast.analysis.stats.links import fit_sigmoid
from forecast.errors import FitError, InputError


def sigmoid(t: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-t))


@pytest.mark.parametrize("seed", range(5))
def test_a_noise_free_sigmoid_is_recovered_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 2)) * [3, 0.01] + [100, -5]  # units that have nothing in common
    weights, low, high = np.array([0.7, -150.0]), rng.uniform(0.1, 0.3), rng.uniform(0.8, 0.95)
    b = -weights @ x.mean(axis=0) + 0.3
    y = low + (high - low) * sigmoid(b + x @ weights)
    link = fit_sigmoid(x, y)
    assert link.lower == pytest.approx(low, abs=1e-4)
    assert link.upper == pytest.approx(high, abs=1e-4)
    np.testing.assert_allclose(link.weights, weights, rtol=1e-3)
    np.testing.assert_allclose(link.predict(x), y, atol=1e-6)
    assert link.n_models == 60


def test_fixed_limits_agree_with_another_optimiser() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 1))
    y = np.clip(0.25 + 0.75 * sigmoid(0.4 + 1.3 * x[:, 0]) + rng.normal(0, 0.05, 40), 0, 1)
    link = fit_sigmoid(x, y, lower=0.25, upper=1.0)
    (b, w), _ = curve_fit(lambda t, b, w: 0.25 + 0.75 * sigmoid(b + w * t), x[:, 0], y)
    assert (link.lower, link.upper) == (0.25, 1.0)
    assert link.intercept == pytest.approx(b, abs=1e-4)
    assert link.weights[0] == pytest.approx(w, abs=1e-4)
    assert link.rmse == pytest.approx(float(np.sqrt(np.mean((link.predict(x) - y) ** 2))))


def test_a_falling_predictor_and_a_step() -> None:
    x = np.linspace(-1, 1, 20)[:, None]
    falling = fit_sigmoid(x, 0.9 - 0.3 * x[:, 0] ** 3 - 0.3 * x[:, 0])
    assert falling.weights[0] < 0
    step = fit_sigmoid(x, (x[:, 0] > 0).astype(float))
    assert np.isfinite(step.weights).all(), "a step must not send the slope to infinity"
    np.testing.assert_allclose(step.predict(x), (x[:, 0] > 0), atol=0.2)


def test_rows_with_gaps_are_left_out_and_not_predicted() -> None:
    x = np.linspace(-2, 2, 30)[:, None]
    y = 0.2 + 0.6 * sigmoid(x[:, 0])
    gaps = x.copy()
    gaps[3] = np.nan
    y_gaps = y.copy()
    y_gaps[7] = np.nan
    link = fit_sigmoid(gaps, y_gaps)
    assert link.n_models == 28
    np.testing.assert_allclose(link.predict(x), y, atol=1e-4)
    assert np.isnan(link.predict(gaps)[3])


def test_what_cannot_be_fitted_says_so() -> None:
    x = np.linspace(0, 1, 6)[:, None]
    y = np.linspace(0.1, 0.6, 6)
    with pytest.raises(FitError, match=r"4 models .* sigmoid of 4 parameters; at least 5"):
        fit_sigmoid(x[:4], y[:4])
    fit_sigmoid(x[:4], y[:4], lower=0.0, upper=1.0)
    with pytest.raises(FitError, match=r"all 6 known scores of the target are 0\.5"):
        fit_sigmoid(x, np.full(6, 0.5))
    with pytest.raises(FitError, match="one value for all 6 models"):
        fit_sigmoid(np.ones((6, 1)), y)
    with pytest.raises(InputError, match="0 <= lower < upper <= 1, got 25 and 1"):
        fit_sigmoid(x, y, lower=25.0)
