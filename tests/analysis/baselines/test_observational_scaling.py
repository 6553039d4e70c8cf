"""Observational scaling laws: components with missing scores, the link."""

import numpy as np
import pytest
from numpy.typing import NDArray

from forecast.analysis.baselines.observational_scaling import (
    fit_components,
    fit_observational,
)
from forecast.errors import FitError, InputError

Array = NDArray[np.float64]


def one_factor(
    rng: np.random.Generator, models: int, benchmarks: int, noise: float = 0.0
) -> tuple[Array, Array]:
    """Scores that rise in a line with ability, and a target that follows it by a sigmoid."""
    ability = rng.normal(size=models)
    ability = np.clip(ability, -2, 2)
    slopes, offsets = rng.uniform(0.05, 0.15, benchmarks), rng.uniform(0.4, 0.6, benchmarks)
    scores = offsets + ability[:, None] * slopes + rng.normal(0, noise, (models, benchmarks))
    target = 0.25 + 0.65 / (1 + np.exp(-1.5 * ability - 0.2)) + rng.normal(0, noise, models)
    return np.clip(scores, 0, 1), np.clip(target, 0, 1)


def with_gaps(rng: np.random.Generator, scores: Array, share: float) -> Array:
    gaps = np.where(rng.random(scores.shape) < share, np.nan, scores)
    empty = ~np.isfinite(gaps).any(axis=1)
    gaps[empty, 0] = scores[empty, 0]
    return gaps


@pytest.mark.parametrize("seed", range(5))
def test_one_factor_is_recovered_through_missing_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, target = one_factor(rng, 70, 6)
    gaps = with_gaps(rng, scores, 0.3)
    fit = fit_observational(gaps[:50], target[:50], n_components=1)
    found = fit.predict(gaps[50:])
    np.testing.assert_allclose(found.values, target[50:], atol=1e-3)
    assert found.reasons == (None,) * 20
    assert fit.components.explained[0] == pytest.approx(1, abs=1e-6)


def test_components_beyond_the_rank_are_not_made_up() -> None:
    scores, _ = one_factor(np.random.default_rng(0), 30, 5)
    assert fit_components(scores, n_components=3).loadings.shape == (5, 1)


def test_missing_at_random_costs_no_more_than_noise() -> None:
    rng = np.random.default_rng(3)
    scores, target = one_factor(rng, 150, 7, noise=0.02)
    gaps = with_gaps(rng, scores, 0.25)
    full = fit_observational(scores[:100], target[:100]).predict(scores[100:]).values
    holed = fit_observational(gaps[:100], target[:100]).predict(gaps[100:]).values
    assert np.sqrt(np.mean((full - target[100:]) ** 2)) < 0.04
    assert np.sqrt(np.mean((holed - target[100:]) ** 2)) < 0.06
    assert target.std() > 0.15


def test_a_full_table_gives_the_ordinary_components() -> None:
    """Against the eigenvectors of the correlation matrix."""
    scores = np.random.default_rng(4).uniform(0.1, 0.9, (40, 5))
    found = fit_components(scores, n_components=3)
    values, vectors = np.linalg.eigh(np.corrcoef(scores.T))
    order = np.argsort(-values)[:3]
    for k, j in enumerate(order):
        assert abs(found.loadings[:, k] @ vectors[:, j]) == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(found.explained, values[order] / 5, atol=1e-9)
    places = found.project(scores)
    np.testing.assert_allclose(places.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(places.T, bias=True), np.diag(values[order]), atol=1e-9)


def test_filled_in_scores_are_the_fixed_point_of_a_rank_one_approximation() -> None:
    rng = np.random.default_rng(5)
    scores, _ = one_factor(rng, 40, 6, noise=0.03)
    gaps = with_gaps(rng, scores, 0.2)
    found = fit_components(gaps, n_components=6)
    z = found.project(gaps) @ found.loadings.T  # all components: the filled-in table itself
    known = np.isfinite(gaps)
    np.testing.assert_allclose((z * found.scale + found.mean)[known], gaps[known], atol=1e-9)
    u, s, rows = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
    approximation = z.mean(axis=0) + s[0] * np.outer(u[:, 0], rows[0])
    np.testing.assert_allclose(z[~known], approximation[~known], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_models_and_benchmarks_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, target = one_factor(rng, 50, 6, noise=0.04)
    gaps = with_gaps(rng, scores, 0.15)
    expected = fit_observational(gaps[:40], target[:40]).predict(gaps[40:]).values
    rows, columns, new = rng.permutation(40), rng.permutation(6), rng.permutation(10)
    fit = fit_observational(gaps[:40][rows][:, columns], target[:40][rows])
    np.testing.assert_allclose(fit.predict(gaps[40:][new][:, columns]).values, expected[new], atol=1e-6)


def test_held_out_models_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(7)
    scores, target = one_factor(rng, 40, 5, noise=0.03)
    fit = fit_observational(scores[:30], target[:30])
    together = fit.predict(scores[30:]).values
    alone = [fit.predict(scores[i : i + 1]).values[0] for i in range(30, 40)]
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_models_without_target_count_for_components_only() -> None:
    rng = np.random.default_rng(8)
    scores, target = one_factor(rng, 40, 5, noise=0.03)
    unknown = target.copy()
    unknown[20:] = np.nan
    fit = fit_observational(scores, unknown)
    assert fit.link.n_models == 20
    np.testing.assert_allclose(fit.components.loadings, fit_components(scores).loadings)


def test_columns_and_models_that_say_nothing_are_named() -> None:
    rng = np.random.default_rng(9)
    scores, target = one_factor(rng, 30, 4)
    wide = np.column_stack([scores, np.full(30, 0.25), np.full(30, np.nan)])
    fit = fit_observational(wide, target, n_components=1, benchmarks=["a", "b", "c", "d", "flat", "empty"])
    assert fit.components.left_out == (
        "'flat': all 30 known scores are 0.25",
        "'empty': no model has a score",
    )
    narrow = fit_observational(scores, target, n_components=1)
    np.testing.assert_allclose(fit.predict(wide).values, narrow.predict(scores).values, atol=1e-9)
    blank = np.full((2, 6), np.nan)
    blank[1, 4] = 0.25
    found = fit.predict(blank)
    assert np.isnan(found.values).all()
    assert found.reasons[0] is not None and "no score on any" in found.reasons[0]


def test_bad_input_is_refused_in_words() -> None:
    rng = np.random.default_rng(10)
    scores, target = one_factor(rng, 20, 3)
    percent = scores.copy()
    percent[4, 1] = 43.8
    with pytest.raises(
        InputError, match=r"model 5, 'mmlu': score 43.8 is outside 0..1; .*percentages by 100"
    ):
        fit_observational(percent, target, benchmarks=["arc", "mmlu", "sciq"])
    with pytest.raises(InputError, match=r"model 1, target: score 55 is outside 0..1 .and 19 more"):
        fit_observational(scores, np.full(20, 55.0))
    with pytest.raises(FitError, match="no benchmark tells the models apart: benchmark 1: all 1 known"):
        fit_observational(scores[:1], target[:1])
    with pytest.raises(FitError, match="2 models with scores; components need at least 3"):
        fit_observational(scores[:2], target[:2])
    with pytest.raises(FitError, match="no benchmark tells the models apart"):
        fit_observational(np.full((20, 3), np.nan), target)
    with pytest.raises(FitError, match="0 models with all predictors"):
        fit_observational(scores, np.full(20, np.nan))
    with pytest.raises(InputError, match="2 benchmarks, but the components are of 3"):
        fit_observational(scores, target, n_components=1).predict(scores[:, :2])
    with pytest.raises(InputError, match="target's scores of 20 models"):
        fit_observational(scores, target[:5])
