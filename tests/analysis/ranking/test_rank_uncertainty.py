"""The order of the candidates: sure where forecasts are good, unsure where not, silent without data."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from forecast.analysis.ranking.rank_uncertainty import Order, normal_standings, order_of

Array = NDArray[np.float64]
N = 12


def order(predicted: Array, scores: Array, family: int = 1, **options: object) -> Order:
    settings = {"confidence": 0.95, "draws": 400, "seed": 0, **options}
    n = predicted.shape[1]
    return order_of(
        "some scorer",
        tuple(f"c{i:02}" for i in range(n)),
        tuple(f"f{i // family}" for i in range(n)),
        predicted,
        scores,
        **settings,  # type: ignore[arg-type]
    )


def test_standings_are_normal_quantiles_of_ranks() -> None:
    found = normal_standings(np.array([[10.0, 30, np.nan, 30]]))
    np.testing.assert_allclose(found[0, [0, 1, 3]], norm.ppf([0.5 / 3, 2 / 3, 2 / 3]))
    assert np.isnan(found[0, 2])


def test_good_forecasts_give_narrow_ranks_and_useless_ones_all_of_them() -> None:
    rng = np.random.default_rng(0)
    truth = np.linspace(-2, 2, N)
    scores = truth + 0.2 * rng.normal(size=(5, N))
    good = order(truth + 0.1 * rng.normal(size=(5, N)), scores)
    useless = order(rng.normal(size=(5, N)), scores)
    assert [place.candidate for place in good.places] == [f"c{i:02}" for i in reversed(range(N))]
    assert all(p.rank_high - p.rank_low <= 4 for p in good.places)  # type: ignore[operator]
    assert np.mean([p.rank_high - p.rank_low for p in useless.places]) > 0.7 * N  # type: ignore[operator]
    assert np.mean([p.p_above_next for p in good.places[:-1]]) > 0.8  # type: ignore[arg-type]
    assert np.mean([p.p_above_next for p in useless.places[:-1]]) == pytest.approx(0.5, abs=0.1)  # type: ignore[arg-type]
    assert good.places[-1].p_above_next is None


def test_rank_intervals_hold_the_measured_ranks_at_their_rate() -> None:
    held, seen = 0, 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        ability = rng.normal(size=16)
        predicted = ability + 0.7 * rng.normal(size=(4, 16))
        found = order(predicted, ability + 0.5 * rng.normal(size=(4, 16)), draws=200, confidence=0.8)
        held += sum(p.rank_low <= p.measured_rank <= p.rank_high for p in found.places)  # type: ignore[operator]
        seen += len(found.places)
    # 480 ranks, those of one table dependent; 80 % wanted.
    assert 0.76 <= held / seen <= 0.95


def test_an_unmeasured_candidate_is_placed_like_any_other() -> None:
    rng = np.random.default_rng(0)
    truth = np.linspace(-2, 2, N)
    scores = truth + 0.2 * rng.normal(size=(3, N))
    scores[:, 5] = np.nan
    found = order(np.tile(truth, (3, 1)), scores)
    place = next(p for p in found.places if p.candidate == "c05")
    assert (place.measured_rank, place.n_tasks_measured, found.n_measured) == (None, 0, N - 1)
    assert place.rank == 7 and place.rank_low is not None and place.rank_low <= 7 <= place.rank_high  # type: ignore[operator]


def test_without_families_or_unseen_forecasts_there_are_no_probabilities() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, N))
    one_family = order(scores, scores, family=N)
    assert one_family.reason is not None and "3 families" in one_family.reason and one_family.unseen
    seen = order(scores, scores, unseen=False)
    assert seen.reason is not None and not seen.unseen
    for found in (one_family, seen):
        assert all(p.rank_low is None and p.p_above_next is None for p in found.places)
        assert [p.rank for p in found.places] == list(range(1, N + 1))


def test_candidates_without_a_forecast_have_no_place_and_equals_share_one() -> None:
    predicted = np.array([[1.0, 1.0, 0.0, np.nan]])
    found = order(predicted, np.array([[1.0, 2.0, 3.0, 4.0]]))
    assert [(p.candidate, p.rank) for p in found.places] == [("c00", 1.5), ("c01", 1.5), ("c02", 3.0)]
