"""Ranks, P(best) and regrets of corpora: what they are made of, and whether they hold."""

import numpy as np
import pytest
from numpy.typing import NDArray

from forecast.analysis.corpora.corpus_ranking import calibrated_draws, figures_of, places_of, seed_draws

Array = NDArray[np.float64]


def world(seed: int, corpora: int, ways: int, best: float) -> tuple[Array, Array]:
    """Values of ways [W, C], of which one correlates by `best` with the truth [C] and the others less."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=corpora)
    r = rng.uniform(0, best, size=(ways, 1))
    r[rng.integers(ways)] = best
    return r * truth + np.sqrt(1 - r**2) * rng.normal(size=(ways, corpora)), truth


@pytest.mark.parametrize(("corpora", "known"), [(25, 25), (25, 12), (10, 6)])
@pytest.mark.parametrize("best", [0.0, 0.6, 0.9])
def test_probabilities_and_intervals_hold(corpora: int, known: int, best: float) -> None:
    said, right, brier, held, expected, paid = ([] for _ in range(6))
    for seed in range(60):
        signals, truth = world(seed, corpora, 10, best)
        goal = np.where(np.arange(corpora) < known, truth, np.nan)
        found = calibrated_draws(signals, goal, 200, seed)
        assert found is not None
        figures = figures_of(*found, signals[0], 0.95)
        first, winner = figures.order[0], truth.argmax()
        said.append(figures.p_best.max())
        right.append(figures.p_best.argmax() == winner)
        brier.append(((figures.p_best - (np.arange(corpora) == winner)) ** 2).sum())
        true_rank = 1 + np.argsort(np.argsort(-truth))
        held.append(((figures.low <= true_rank) & (true_rank <= figures.high)).mean())
        expected.append(figures.regret[first])
        paid.append(truth.max() - truth[first])
    no_idea = 1 - 1 / corpora  # Brier score of P(best) = 1 / n for all
    print(f"Brier score {np.mean(brier):.2f}, of no idea {no_idea:.2f}")
    error = np.sqrt(0.25 / len(said))
    assert abs(np.mean(said) - np.mean(right)) < 2.5 * error
    assert np.mean(brier) < (no_idea if best else 1.05 * no_idea)
    assert np.mean(held) > 0.93
    if best:
        assert abs(np.mean(expected) - np.mean(paid)) < 3 * np.std(paid) / np.sqrt(len(paid)) + 0.05


def test_a_corpus_with_a_target_is_forecast_from_the_others() -> None:
    """Its own target is not in its forecast: where a way has no signal the best measured is no favourite."""
    rng = np.random.default_rng(0)
    signals, goal = rng.normal(size=(1, 20)), rng.normal(size=20)
    goal[3] = 50.0
    found = calibrated_draws(signals, goal, 500, 0)
    assert found is not None
    assert abs(found[0][3] - goal.mean()) < 2


def test_a_perfect_way_ranks_as_the_targets_do() -> None:
    truth = np.arange(12.0)
    found = calibrated_draws(np.stack([truth, -truth]), truth, 200, 0)
    assert found is not None
    figures = figures_of(*found, truth, 0.95)
    assert list(figures.order) == list(range(11, -1, -1))
    # A line from normal scores to equal steps is not exact.
    assert figures.p_best[11] > 0.8 and figures.regret[11] < 0.2
    assert figures.regret[0] == pytest.approx(11, abs=2)


def test_seeds_give_the_noise_of_a_mean() -> None:
    """Of two corpora whose means differ by d, with a known deviation: P = Phi(d / (s sqrt(2 / k)))."""
    rng = np.random.default_rng(1)
    many = rng.normal(size=(200, 2)) + np.array([0.1, 0.0])
    drawn = seed_draws(many, 0)
    assert drawn is not None
    np.testing.assert_allclose(drawn.mean(axis=0), many.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(drawn.std(axis=0), many.std(ddof=1) / np.sqrt(200), rtol=0.1)
    gaps = many.copy()
    gaps[1:, 1] = np.nan  # one run: the deviation is the other's
    one = seed_draws(gaps, 0)
    assert one is not None and one[:, 1].std() == pytest.approx(many[:, 0].std(ddof=1), rel=0.1)
    assert seed_draws(many[:1], 0) is None


def test_places_without_draws_have_ranks_alone() -> None:
    values = np.array([3.0, 1.0, 3.0])
    found = figures_of(-values, None, -values, 0.95)
    places = places_of(found, ("a", "b", "c"), values, np.array([1, 1, 0]), None, None, "loss at 1M")
    assert [(p.corpus, p.rank, p.n_seeds) for p in places] == [("b", 1, 1), ("a", 2.5, 1), ("c", 2.5, None)]
    assert {(p.rank_low, p.p_best, p.p_above_next, p.expected_regret, p.forecast) for p in places} == {
        (None,) * 5
    }


def test_of_too_few_targets_no_line_is_fitted() -> None:
    assert calibrated_draws(np.ones((1, 4)), np.array([1.0, 2.0, np.nan, np.nan]), 50, 0) is None
