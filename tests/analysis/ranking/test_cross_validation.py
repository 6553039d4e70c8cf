"""Running protocols: nothing held out is looked at, figures are what they say, any scorer may take part."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from worlds import design, world

from forecast.analysis.ranking.cross_validation import FoldPredictions, run_protocols
from forecast.analysis.ranking.feature_table import Design
from forecast.analysis.ranking.permutation_null import permuted_scores
from forecast.analysis.ranking.scorers.base import FitError, Fitted, Scorer
from forecast.analysis.ranking.scorers.registry import OWN_MEAN, SCORERS, make_scorer
from forecast.analysis.ranking.splits import (
    LEAVE_2_TASKS_OUT,
    LEAVE_FAMILIES_OUT,
    LEAVE_MODELS_OUT,
    make_protocol,
)

Array = NDArray[np.float64]


def run(
    scorer: Scorer | str, name: str, scores: Array, made: Design, permutations: int = 0, workers: int = 1
) -> FoldPredictions:
    protocol = make_protocol(name, made.families, np.isfinite(scores), 0)
    many = permuted_scores(scores, made.usable, made.families, permutations, 0)
    job = (make_scorer(scorer) if isinstance(scorer, str) else scorer, protocol)
    (outcome,) = run_protocols(made, many, [job], seed=0, workers=workers)
    return outcome


@pytest.mark.parametrize("scorer", [*SCORERS, OWN_MEAN])
def test_scores_of_held_out_tasks_are_not_looked_at(scorer: str) -> None:
    """Under leave-2-tasks-out a panel must not change when the scores of its own task do."""
    table = world("ability", 0, 9, 4, 5)
    made = design(table)
    before = run(scorer, LEAVE_2_TASKS_OUT, table.scores, made)
    spoilt = table.scores.copy()
    spoilt[2] = np.random.default_rng(1).normal(size=9)
    after = run(scorer, LEAVE_2_TASKS_OUT, spoilt, made)
    np.testing.assert_array_equal(after.predicted[before.tasks == 2], before.predicted[before.tasks == 2])
    assert (after.predicted != before.predicted).any(), "where it is held in, it must matter"


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("name", [LEAVE_MODELS_OUT, LEAVE_FAMILIES_OUT])
def test_scores_of_held_out_candidates_are_not_looked_at(scorer: str, name: str) -> None:
    """No score of a candidate, on any task, may change its own predictions; nor its family's."""
    table = world("ability", 0, 12, 4, 5, family=2)
    made = design(table)
    before = run(scorer, name, table.scores, made)
    spoilt = table.scores.copy()
    spoilt[:, 6] = [9, -9, 9, -9]
    after = run(scorer, name, spoilt, made)
    kin = [6, 7] if name == LEAVE_FAMILIES_OUT else [6]
    np.testing.assert_array_equal(after.predicted[:, kin], before.predicted[:, kin])
    others = [c for c in range(12) if c not in (6, 7)]
    assert (after.predicted[:, others] != before.predicted[:, others]).any()


def test_figures_are_mean_rhos_of_the_panels() -> None:
    table = world("ability", 1, 10, 5, 4)
    made = design(table)
    for name in (LEAVE_2_TASKS_OUT, LEAVE_MODELS_OUT):
        outcome = run("univariate", name, table.scores, made, permutations=3)
        rhos = [
            spearmanr(outcome.predicted[k], table.scores[t]).statistic for k, t in enumerate(outcome.tasks)
        ]
        assert outcome.figures[0] == pytest.approx(np.mean(rhos), abs=1e-9)
        assert outcome.figures.shape == (4,)
        assert len(outcome.tasks) == (20 if name == LEAVE_2_TASKS_OUT else 5)


@pytest.mark.parametrize("scorer", ["sparse-3", "ranksvm-linear"])
def test_processes_and_batches_change_nothing(scorer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = world("ability", 2, 9, 4, 5)
    made = design(table)
    monkeypatch.setattr("forecast.analysis.ranking.cross_validation._SMALL", 0.0)
    alone = run(scorer, LEAVE_MODELS_OUT, table.scores, made, permutations=5)
    shared = run(scorer, LEAVE_MODELS_OUT, table.scores, made, permutations=5, workers=2)
    np.testing.assert_array_equal(shared.predicted, alone.predicted)
    np.testing.assert_array_equal(shared.figures, alone.figures)
    assert shared.chosen == alone.chosen


@dataclass(frozen=True)
class First:
    """Scores by the first feature; knows nothing of batches."""

    name: str = "first feature"

    def fit(self, design: Design, scores: Array, groups: object = None, seed: int = 0) -> Fitted:
        if not np.isfinite(scores).any():
            raise FitError("nothing")
        return make_scorer("univariate").fit(design.select(design.features[:1]), scores)


def test_anything_with_fit_and_score_is_a_scorer() -> None:
    table = world("ability", 3, 9, 4, 5)
    made = design(table)
    found = run(First(), LEAVE_MODELS_OUT, table.scores, made, permutations=4)
    only = made.select(made.features[:1])
    expected = run("univariate", LEAVE_MODELS_OUT, table.scores, only, permutations=4)
    np.testing.assert_array_equal(found.figures, expected.figures)
    assert found.scorer == "first feature" and set(found.chosen) == set(expected.chosen)


def test_progress_reaches_the_end() -> None:
    table = world("ability", 3, 9, 4, 5)
    made = design(table)
    protocol = make_protocol(LEAVE_MODELS_OUT, made.families, np.isfinite(table.scores), 0)
    told: list[tuple[float, float]] = []
    run_protocols(
        made,
        table.scores[None],
        [(make_scorer(name), protocol) for name in SCORERS],
        seed=0,
        on_cost=lambda done, total: told.append((done, total)),
    )
    shares = [done / total for done, total in told]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)


def test_candidates_without_scores_get_predictions() -> None:
    table = world("ability", 4, 12, 4, 5)
    made = design(table)
    scores = table.scores.copy()
    scores[:, 9:] = np.nan
    outcome = run("univariate", LEAVE_MODELS_OUT, scores, made)
    assert np.isfinite(outcome.predicted).all()
    np.testing.assert_array_equal(outcome.truth(scores), scores)
