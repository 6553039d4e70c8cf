"""Intervals over candidates: whom they draw, what rate they hold, what they say of too little."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from forecast.analysis.stats.family_bootstrap import (
    Spread,
    difference,
    interval,
    make_resamples,
    mean_rho,
    spread_of,
)

Array = NDArray[np.float64]


def panels(
    rng: np.random.Generator, candidates: int, tasks: int, r: float, family: int
) -> tuple[Array, Array]:
    """Predictions and scores [tasks, candidates] of a correlation about r; half of both is of the family."""

    def common() -> Array:
        own = rng.normal(size=candidates)
        kin = np.repeat(rng.normal(size=-(-candidates // family)), family)[:candidates]
        return own if family == 1 else np.sqrt(0.5) * kin + np.sqrt(0.5) * own

    ability, error = common(), common()
    noise = rng.normal(size=(2, tasks, candidates))
    scores = np.sqrt(0.8) * ability + np.sqrt(0.2) * noise[0]
    share = r / np.sqrt(0.8)
    wrong = np.sqrt(0.6) * error + np.sqrt(0.4) * noise[1]
    return share * ability + np.sqrt(1 - share**2) * wrong, scores


def test_mean_rho_is_scipys_over_the_panels_that_have_one() -> None:
    rng = np.random.default_rng(0)
    predicted, scores = rng.integers(0, 4, (4, 9)).astype(float), rng.integers(0, 5, (4, 9)).astype(float)
    scores[1, 2:5] = np.nan
    predicted[2] = 1.0  # says nothing
    scores[3, 2:] = np.nan  # two candidates
    expected = [
        spearmanr(predicted[k][~np.isnan(scores[k])], scores[k][~np.isnan(scores[k])]) for k in (0, 1)
    ]
    assert mean_rho(predicted, scores) == pytest.approx(np.mean([e.statistic for e in expected]))
    assert math.isnan(mean_rho(predicted[2:], scores[2:]))


def test_families_are_drawn_whole_and_only_those_that_count() -> None:
    families = np.array([0, 0, 1, 1, 1, 2, 3])
    members = np.array([True, True, True, False, True, True, False])
    drawn = make_resamples(families, members, 200, 0)
    assert drawn.n_families == 3
    groups = {(0, 1), (2, 4), (5,)}
    for row in drawn.drawn:
        found = [c for c in row.tolist() if c >= 0]
        while found:
            group = next(g for g in groups if g[0] == found[0])
            assert tuple(found[: len(group)]) == group
            found = found[len(group) :]
    left = [sorted(c for c in row.tolist() if c >= 0) for row in drawn.without]
    assert left == [[2, 4, 5], [0, 1, 5], [0, 1, 2, 4]]


@pytest.mark.parametrize(
    ("candidates", "tasks", "r", "family"), [(18, 6, 0.0, 1), (18, 6, 0.6, 3), (30, 1, 0.6, 2)]
)
def test_an_interval_holds_the_truth_at_its_rate(candidates: int, tasks: int, r: float, family: int) -> None:
    """A small copy of the simulation in the module's text: 95 % intervals, 93 to 100 % found there."""
    rng = np.random.default_rng(1)
    truth = float(mean_rho(*panels(np.random.default_rng(9), 4000, 2, r, 1)))
    held, runs = 0, 120
    families = np.arange(candidates) // family
    for seed in range(runs):
        predicted, scores = panels(rng, candidates, tasks, r, family)
        resamples = make_resamples(families, np.ones(candidates, bool), 150, seed)
        low, high = interval(spread_of(predicted, scores, resamples), candidates, resamples.n_families, 0.95)
        held += low <= truth <= high
    # Of 120 runs at 0.95 the standard error is 0.02.
    assert held / runs >= 0.90


def test_predictions_under_drawn_instances_are_taken_in_turn() -> None:
    """Without a change of candidates, resamples show the predictions of one drawing after another."""
    scores = np.arange(6.0)[None]
    forward, backward = scores.copy(), scores[:, ::-1].copy()
    resamples = make_resamples(np.arange(6), np.ones(6, bool), 40, 0)
    alone = spread_of(forward, scores, resamples)
    mixed = spread_of(forward, scores, resamples, np.stack([forward, backward]))
    np.testing.assert_allclose(mixed.drawn[::2], alone.drawn[::2])
    np.testing.assert_allclose(mixed.drawn[1::2], -alone.drawn[1::2])
    np.testing.assert_array_equal(mixed.without, alone.without)


def test_too_little_has_no_interval() -> None:
    scores = np.arange(4.0)[None]
    two = make_resamples(np.array([0, 0, 1, 1]), np.ones(4, bool), 50, 0)
    assert not two.enough
    assert all(map(math.isnan, interval(spread_of(scores, scores, two), 4, 2, 0.95)))
    assert not make_resamples(np.arange(4), np.ones(4, bool), 0, 0).enough
    assert not make_resamples(np.arange(4), np.zeros(4, bool), 9, 0).enough


def test_a_perfect_order_is_not_certain() -> None:
    scores = np.arange(8.0)[None]
    resamples = make_resamples(np.arange(8), np.ones(8, bool), 100, 0)
    low, high = interval(spread_of(scores, scores, resamples), 8, 8, 0.95)
    assert high == 1.0 and 0.5 < low < 1.0


def test_a_difference_is_paired() -> None:
    """Two scorers with the same errors differ surely, though each is unsure by itself."""
    rng = np.random.default_rng(0)
    luck = rng.normal(0.3, 0.2, 500)
    first = Spread(0.5, luck + 0.2, np.full(8, 0.5) + np.linspace(-0.02, 0.02, 8))
    second = Spread(0.3, luck, np.full(8, 0.3) + np.linspace(-0.02, 0.02, 8))
    found = difference(first, second, 8, 0.95)
    assert found.figure == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2) == found.high
    assert found.probability == 1.0
    same = difference(first, first, 8, 0.95)
    assert (same.figure, same.probability) == (0.0, 0.5)
    assert math.isnan(difference(first, second, 2, 0.95).low)
