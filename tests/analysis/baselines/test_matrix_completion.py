"""Matrix completion in logit space."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from forecast.analysis.baselines.matrix_completion import CLIP, PUBLISHED_RIDGE, complete, factorised
from forecast.errors import FitError, InputError

Array = NDArray[np.float64]


def world(rng: np.random.Generator, models: int, benchmarks: int, rank: int, noise: float = 0.0) -> Array:
    """Scores whose logits are a column's offset plus `rank` factors, the first of them one of ability."""
    weights = np.vstack([rng.uniform(0.5, 1.5, (1, benchmarks)), rng.normal(0, 0.6, (rank - 1, benchmarks))])
    logits = rng.normal(0, 0.7, benchmarks) + rng.normal(0, 0.8, (models, rank)) @ weights
    return expit(logits + rng.normal(0, noise, logits.shape))


def hidden_at_random(
    rng: np.random.Generator, scores: Array, share: float
) -> tuple[Array, NDArray[np.bool_]]:
    hidden = rng.random(scores.shape) < share
    return np.where(hidden, np.nan, scores), hidden


@pytest.mark.parametrize("rank", [1, 2])
def test_hidden_cells_of_a_world_of_low_rank_are_recovered(rank: int) -> None:
    rng = np.random.default_rng(rank)
    scores = world(rng, 60, 16, rank)
    gaps, hidden = hidden_at_random(rng, scores, 0.2)
    found = complete(gaps, ridge=1e-3).values
    assert np.sqrt(np.mean((found - scores)[hidden] ** 2)) < 0.01
    assert np.abs(found - scores)[~hidden].max() < 0.01
    chosen = complete(gaps)
    assert chosen.ridge_chosen and chosen.ridge <= 0.1, "nothing is noise here"
    assert np.sqrt(np.mean((chosen.values - scores)[hidden] ** 2)) < 0.03


def test_missing_at_random_is_recovered_within_noise() -> None:
    rng = np.random.default_rng(5)
    truth = world(rng, 100, 14, 2)
    noisy = expit(logit(truth) + rng.normal(0, 0.15, truth.shape))
    gaps, hidden = hidden_at_random(rng, noisy, 0.25)
    found = complete(gaps)
    error = np.sqrt(np.mean((found.values - truth)[hidden] ** 2))
    assert error < 0.05 < truth.std() / 3
    assert found.hidden_rmse == pytest.approx(np.sqrt(np.mean((found.values - noisy)[hidden] ** 2)), rel=0.25)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_models_and_benchmarks_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gaps, _ = hidden_at_random(rng, world(rng, 25, 7, 2, noise=0.3), 0.2)
    rows, columns = rng.permutation(25), rng.permutation(7)
    expected, found = complete(gaps), complete(gaps[rows][:, columns])
    assert found.ridge == expected.ridge
    assert found.hidden_rmse == pytest.approx(expected.hidden_rmse, rel=1e-3), "the same cells were hidden"
    np.testing.assert_allclose(found.values, expected.values[rows][:, columns], atol=1e-4)


@pytest.mark.parametrize("ridge", [0.3, 2.0])
def test_the_least_squares_are_the_least(ridge: float) -> None:
    """Against a general minimiser of the objective, from many starts."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=(14, 1)) * rng.normal(size=6) + 0.5 * rng.normal(size=(14, 1)) * rng.normal(size=6)
    z += rng.normal(0, 0.2, z.shape)
    z[(z > 0.4) & (rng.random(z.shape) < 0.7)] = np.nan  # missing high scores: the mean has to be refitted
    known, k = np.isfinite(z), 2

    def parts(p: Array) -> tuple[float, Array, Array, Array, Array]:
        a, c, u, v = np.split(p[1:], np.cumsum([14, 6, 14 * k]))
        return p[0], a, c, u.reshape(14, k), v.reshape(6, k)

    def fitted(p: Array) -> Array:
        mu, a, c, u, v = parts(p)
        return mu + a[:, None] + c + u @ v.T

    def objective(p: Array) -> float:
        return float(((z - fitted(p))[known] ** 2).sum() + ridge * (p[1:] ** 2).sum())

    runs = [minimize(objective, rng.normal(0, 0.3, 1 + 20 * (1 + k)), method="BFGS") for _ in range(6)]
    best = min(runs, key=lambda run: run.fun)
    np.testing.assert_allclose(factorised(z, k, ridge), fitted(best.x), atol=2e-3)


def test_rows_and_columns_that_say_nothing_stay_empty_with_a_reason() -> None:
    rng = np.random.default_rng(3)
    scores = world(rng, 20, 6, 1)
    scores[4] = np.nan
    scores[:, 2] = np.nan
    scores[:, 5] = np.where(np.isnan(scores[:, 5]), np.nan, 0.25)
    names = [f"m{i}" for i in range(20)]
    found = complete(scores, models=names, benchmarks=list("abcdef"))
    assert np.isnan(found.values[4]).all() and np.isnan(found.values[:, [2, 5]]).all()
    assert found.row_reasons == {4: "'m4': no score on a benchmark that tells models apart"}
    assert found.column_reasons == {2: "'c': no model has a score", 5: "'f': all 19 known scores are 0.25"}
    rest = np.delete(np.delete(scores, 4, axis=0), [2, 5], axis=1)
    np.testing.assert_allclose(np.delete(np.delete(found.values, 4, 0), [2, 5], 1), complete(rest).values)


def test_scores_of_zero_and_one_stay_finite() -> None:
    rng = np.random.default_rng(4)
    scores = world(rng, 20, 5, 1)
    scores[:8, 0], scores[8:12, 1] = 0.0, 1.0
    found = complete(scores)
    assert np.isfinite(found.values).all() and (found.values > 0).all() and (found.values < 1).all()
    nearly = np.array([[0.0, 0.2], [CLIP / 5, 0.4], [0.0, 0.7], [0.0, np.nan]])
    np.testing.assert_allclose(
        complete(nearly).values[:, 0], CLIP, err_msg="no difference is left after clipping"
    )


def test_a_small_table_takes_the_published_ridge() -> None:
    found = complete(world(np.random.default_rng(6), 5, 4, 1))
    assert (found.ridge, found.ridge_chosen, found.hidden_rmse) == (PUBLISHED_RIDGE, False, None)


def test_bad_input_is_refused_in_words() -> None:
    scores = world(np.random.default_rng(7), 10, 4, 1)
    with pytest.raises(InputError, match=r"model 1, benchmark 1: score .* outside 0..1 .and 39 more"):
        complete(100 * scores + 1)
    with pytest.raises(FitError, match=r"0 models and 0 benchmarks .*all 1 known scores"):
        complete(scores[:1])
    with pytest.raises(FitError, match="10 models and 1 benchmarks"):
        complete(scores[:, :1])
    with pytest.raises(FitError, match=r"0 models and 0 benchmarks .*no model has a score"):
        complete(np.full((5, 3), np.nan))
    with pytest.raises(InputError, match="expected a table"):
        complete(scores[0])
    with pytest.raises(InputError, match="ridge above 0"):
        complete(scores, ridge=0.0)
