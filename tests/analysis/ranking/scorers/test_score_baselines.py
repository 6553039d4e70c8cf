"""Baselines from scores alone: they see what they may, forecast what they should, and say why they cannot."""

import numpy as np
import pytest
from worlds import design, table_of

from forecast.analysis.ranking.cross_validation import run_protocols
from forecast.analysis.ranking.scorers.registry import OWN_MEAN, make_scorer
from forecast.analysis.ranking.scorers.score_baselines import FROM_SCORES, FromScores
from forecast.analysis.ranking.splits import KNOWN_TASKS, LEAVE_MODELS_OUT, make_protocol

NAMES = [scorer.name for scorer in FROM_SCORES]


def scores_of_one_ability(candidates: int = 12, tasks: int = 4, noise: float = 0.2) -> np.ndarray:
    """[T, C]: sigmoids of one ability with a slope and a level for each task."""
    rng = np.random.default_rng(0)
    ability = rng.permutation(np.linspace(-2, 2, candidates))
    slope, level = rng.uniform(0.6, 1.4, tasks), rng.uniform(-1, 1, tasks)
    logits = slope[:, None] * ability + level[:, None] + noise * rng.normal(size=(tasks, candidates))
    return 1 / (1 + np.exp(-logits))


def outcome_of(scorer: FromScores, scores: np.ndarray, name: str = KNOWN_TASKS):
    made = design(table_of(np.zeros((*scores.shape, 1)), scores, family=2))
    protocol = make_protocol(name, made.families, np.isfinite(scores), 0)
    (outcome,) = run_protocols(made, np.stack([scores, scores[:, ::-1]]), [(scorer, protocol)], seed=0)
    return outcome, protocol


@pytest.mark.parametrize(
    "scorer", [*FROM_SCORES[:2], pytest.param(FROM_SCORES[2], marks=pytest.mark.slow)], ids=NAMES
)
def test_other_tasks_forecast_a_task_of_the_same_ability(scorer: FromScores) -> None:
    outcome, _ = outcome_of(scorer, scores_of_one_ability())
    assert outcome.reason is None
    assert outcome.figures.shape == (1,), "permuting candidates would change nothing"
    assert outcome.figures[0] > 0.85


@pytest.mark.parametrize("scorer", FROM_SCORES[:2], ids=NAMES[:2])
def test_a_held_out_score_is_not_looked_at(scorer: FromScores) -> None:
    """Changing a candidate's score on a task must not change its own forecast there, but it may elsewhere."""
    scores = scores_of_one_ability()
    before, protocol = outcome_of(scorer, scores)
    spoilt = scores.copy()
    spoilt[1, 4] = 1 - spoilt[1, 4]
    after, _ = outcome_of(scorer, spoilt)
    fold = next(fold for fold in protocol.folds if fold.test[4])
    np.testing.assert_allclose(after.predicted[1, fold.test], before.predicted[1, fold.test], atol=1e-9)
    assert not np.allclose(after.predicted[0, 4], before.predicted[0, 4], atol=1e-4)


def test_own_mean_under_known_tasks_is_the_mean_over_the_other_tasks() -> None:
    scores = np.array([[1.0, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5]])
    outcome, _ = outcome_of(make_scorer(OWN_MEAN), scores)  # type: ignore[arg-type]
    # Of task 1 the other three agree nearly, so its own order comes out turned round.
    assert np.corrcoef(outcome.predicted[1], scores[1])[0, 1] < -0.9
    assert np.corrcoef(outcome.predicted[3], scores[3])[0, 1] > 0.8


def test_elsewhere_and_on_other_scales_the_reason_stands_in_place_of_a_number() -> None:
    scores = scores_of_one_ability()
    elsewhere, _ = outcome_of(FROM_SCORES[0], scores, LEAVE_MODELS_OUT)
    assert np.isnan(elsewhere.figures).all() and "known-tasks only" in str(elsewhere.reason)
    percent, _ = outcome_of(FROM_SCORES[0], 100 * scores)
    assert np.isnan(percent.figures).all() and "fractions" in str(percent.reason)
    flat = scores.copy()
    flat[:, :] = 0.5
    flat[0] = scores[0]
    unfit, _ = outcome_of(FROM_SCORES[0], flat)
    assert np.isnan(unfit.figures).all() and "no fit for t00" in str(unfit.reason)
