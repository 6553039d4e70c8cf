"""Intervals of ranks: they hold the rank under endless instances, also where candidates are nearly equal."""

import numpy as np
import pytest

from forecast.analysis.stats.rank_correlation import ranks
from forecast.analysis.stats.rank_intervals import p_above_next, rank_intervals


def redrawn(values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Means of [C, I] values under drawings of the instances: [draws, C]."""
    n = values.shape[1]
    weights = rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
    return weights @ values.T


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.3, 2.0])
def test_intervals_hold_the_rank_under_endless_instances(spread: float) -> None:
    """100 worlds of 8 candidates and 40 instances of which candidates share most of the difficulty."""
    rng = np.random.default_rng(int(100 * spread))
    held = []
    for _ in range(100):
        truth = spread * np.sort(rng.normal(size=8))
        values = truth[:, None] + rng.normal(size=40) + 0.5 * rng.normal(size=(8, 40))
        low, high = rank_intervals(values.mean(axis=1), redrawn(values, 200, rng), 0.9)
        true = ranks(truth)
        held.append((low <= true) & (true <= high))
    assert np.mean(held) >= 0.88


def test_clear_differences_give_one_rank_each() -> None:
    rng = np.random.default_rng(0)
    values = np.arange(6.0)[:, None] + 0.01 * rng.normal(size=(6, 30))
    low, high = rank_intervals(values.mean(axis=1), redrawn(values, 200, rng), 0.95)
    assert low.tolist() == high.tolist() == [6, 5, 4, 3, 2, 1]


def test_candidates_equal_in_all_drawings_share_a_range() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=30)
    values = np.stack([one, one, one - 5])
    drawn = redrawn(values, 100, rng)
    low, high = rank_intervals(values.mean(axis=1), drawn, 0.95)
    assert low.tolist() == [1, 1, 3] and high.tolist() == [2, 2, 3]
    assert p_above_next(drawn).tolist()[:2] == [0.5, 1.0]


def test_one_candidate_is_first() -> None:
    low, high = rank_intervals(np.zeros(1), np.zeros((5, 1)), 0.95)
    assert (low.tolist(), high.tolist()) == ([1], [1])
    assert np.isnan(p_above_next(np.zeros((5, 1)))).all()
