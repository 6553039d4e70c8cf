"""Intervals and nulls against slow ways to the same numbers, and how often an interval holds the truth."""

import numpy as np
import pytest
from numpy.typing import NDArray

from forecast.analysis.corpora.bootstrap import (
    best_of_many,
    corpus_intervals,
    corpus_weights,
    pair_weights,
    seed_deviation,
)
from forecast.analysis.corpora.decision_accuracy import decision_accuracy, pair_signs

Array = NDArray[np.float64]


def drawn_again(x: Array, y: Array, weights: Array) -> float:
    """Corpora copied out one by one; pairs of copies of one corpus do not count."""
    index = np.repeat(np.arange(len(x)), weights.astype(int))
    score, n = 0.0, 0
    for a in range(len(index)):
        for b in range(a):
            i, j = index[a], index[b]
            if i != j and y[i] != y[j]:
                n += 1
                score += 0.5 if x[i] == x[j] else (x[i] > x[j]) == (y[i] > y[j])
    return score / n


def test_an_interval_is_that_of_corpora_copied_out_one_by_one() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(5, size=9).astype(float)
    x = np.stack([y + rng.integers(-2, 3, size=9), rng.normal(size=9)])
    weights = corpus_weights(np.arange(9), 200, seed=1)
    low, high = corpus_intervals(
        pair_signs(x), pair_signs(y), np.array([9, 9]), pair_weights(weights), confidence=0.9
    )
    for r in range(2):
        slow = [drawn_again(x[r], y, w) for w in weights]
        assert (low[r], high[r]) == pytest.approx(tuple(np.quantile(slow, [0.05, 0.95])))


def test_few_corpora_have_no_interval_and_perfect_ones_a_lower_end() -> None:
    x = np.arange(12.0)
    for n, has in ((4, False), (5, True), (12, True)):
        signs = pair_signs(x[:n])
        weights = pair_weights(corpus_weights(np.arange(n), 200, 0))
        (low,), (high,) = corpus_intervals(signs[None], signs, np.array([n]), weights, 0.95)
        assert np.isfinite(low) == has
        if has:
            assert high == 1.0 and 0.0 < low < 1.0
    assert np.isnan(corpus_intervals(signs[None], signs, np.array([12]), np.zeros((0, 66)), 0.95)[0]).all()


def test_interval_covers_the_true_figure_at_its_level() -> None:
    """Normal qualities with noise: the true figure is 1/2 + arcsin(r) / pi."""
    rng = np.random.default_rng(0)
    n, r, hits, runs = 15, 0.8, 0, 300
    truth = 0.5 + np.arcsin(r) / np.pi
    for run in range(runs):
        x = rng.normal(size=n)
        y = r * x + np.sqrt(1 - r**2) * rng.normal(size=n)
        weights = pair_weights(corpus_weights(np.arange(n), 200, run))
        (low,), (high,) = corpus_intervals(pair_signs(x)[None], pair_signs(y), np.array([n]), weights, 0.95)
        hits += low <= truth <= high
    assert 0.90 <= hits / runs <= 0.99


def test_seed_deviation_equals_that_of_repeated_runs() -> None:
    """Against runs that are really made again."""
    rng = np.random.default_rng(0)
    quality, goal = rng.normal(size=(2, 20))
    said, made = [], []
    for run in range(60):
        seeds = quality + 0.7 * rng.normal(size=(3, 20))
        made.append(decision_accuracy(seeds.mean(axis=0), goal))
        said.append(seed_deviation(seeds, goal[None], 100, run))
    assert np.mean(said) == pytest.approx(np.std(made), rel=0.25)


def test_one_seed_has_no_spread_and_missing_runs_are_passed_over() -> None:
    rng = np.random.default_rng(0)
    goal = rng.normal(size=6)
    assert np.isnan(seed_deviation(rng.normal(size=(1, 6)), goal[None], 50, 0))
    runs = rng.normal(size=(3, 6))
    runs[1:, 0] = np.nan
    runs[0, 1] = np.nan
    assert seed_deviation(runs, goal[None], 50, 0) > 0
    level = np.tile(goal, (3, 1))
    assert seed_deviation(level, goal[None], 50, 0) == 0.0


def test_best_of_many_equals_permuting_one_by_one() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 10))
    goal = rng.normal(size=10)
    goal[3] = np.nan
    found = best_of_many(pair_signs(x), goal, np.arange(10), 80, seed=5)
    assert found is not None
    figures = [decision_accuracy(row, goal) for row in x]
    assert (found.row, found.n_rows) == (int(np.argmax(figures)), 8)
    assert found.accuracy == pytest.approx(max(figures))
    again = np.random.default_rng(5)
    known = np.flatnonzero(np.isfinite(goal))
    null = []
    for _ in range(80):
        permuted = goal.copy()
        permuted[known] = goal[again.permutation(known)]
        null.append(max(decision_accuracy(row, permuted) for row in x))
    assert found.null.mean == pytest.approx(np.mean(null))
    assert found.null.p == pytest.approx((1 + sum(f >= max(figures) - 1e-9 for f in null)) / 81)


def test_nothing_to_compare_has_no_best() -> None:
    assert best_of_many(np.full((2, 3), np.nan), np.array([1.0, 2.0, 3.0]), np.arange(3), 10, 0) is None
    assert best_of_many(pair_signs(np.eye(3)), np.ones(3), np.arange(3), 10, 0) is None
