"""Ranks, P(best) and regrets of corpora: what they are made of, and whether they hold."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from analysis.corpora.simulations import calibrated_world, ranking_figures, seeds_world

import forecast
from forecast.analysis.corpora.corpus_ranking import calibrated_draws, figures_of, pairs_of, places_of
from forecast.analysis.corpora.seed_noise import seed_draws, variance_prior
from forecast.inputs.published import datadecide

DATA = Path(__file__).parents[3] / "configs" / "data"
WORLDS = 60


def check(found: dict[str, float], signal: bool) -> None:
    """Probabilities and intervals hold, and P(best) beats climatology where there is a signal."""
    print(f"Brier score {found['brier']:.2f}, climatology {found['climatology']:.2f}")
    assert abs(found["said"] - found["right"]) < 2.5 * np.sqrt(0.25 / WORLDS)
    assert found["brier"] < (0.97 if signal else 1.03) * found["climatology"]
    assert found["held"] > 0.93
    # The surplus of `held` is that of whole numbers: without it intervals are as wide as they should be.
    assert 0.91 < found["held_within"] < 0.98


@pytest.mark.parametrize(
    ("corpora", "known", "per_group", "alike"),
    [(25, 25, 1, 0.0), (25, 12, 1, 0.0), (10, 6, 1, 0.0), (28, 28, 4, 0.5), (28, 20, 4, 0.9)],
)
@pytest.mark.parametrize("best", [0.0, 0.9])
def test_calibrated_probabilities_and_intervals_hold(
    corpora: int, known: int, per_group: int, alike: float, best: float
) -> None:
    worlds = (calibrated_world(w, corpora, known, 10, best, per_group, alike) for w in range(WORLDS))
    found = ranking_figures(worlds)
    check(found, best > 0)
    if best:
        assert found["expected"] == pytest.approx(found["paid"], abs=0.2)


@pytest.mark.parametrize(("corpora", "noise", "uneven"), [(25, 3.0, 0.0), (25, 0.3, 1.0), (6, 1.0, 0.0)])
def test_probabilities_of_seeds_hold(corpora: int, noise: float, uneven: float) -> None:
    """One deviation for all and a flat prior said 0.40 where 0.23 were right (25 corpora, noise 3)."""
    found = ranking_figures(seeds_world(w, corpora, 3, noise, uneven) for w in range(WORLDS))
    check(found, True)
    assert found["expected"] == pytest.approx(found["paid"], abs=0.35)


def test_a_corpus_with_a_target_is_forecast_from_the_others() -> None:
    """Its own target is not in its forecast: where a way has no signal the best measured is no favourite."""
    rng = np.random.default_rng(0)
    signals, goal = rng.normal(size=(1, 20)), rng.normal(size=20)
    goal[3] = 50.0
    found = calibrated_draws(signals, goal, np.arange(20), 500, 0)
    assert found is not None
    assert abs(found[0][3] - goal.mean()) < 2


def test_a_perfect_way_ranks_as_the_targets_do() -> None:
    truth = np.arange(12.0)
    found = calibrated_draws(np.stack([truth, -truth]), truth, np.arange(12), 200, 0)
    assert found is not None
    figures = figures_of(*found, truth, 0.95)
    assert list(figures.order) == list(range(11, -1, -1))
    # A line from normal scores to equal steps is not exact.
    assert figures.p_best[11] > 0.8 and figures.regret[11] < 0.2
    assert figures.regret[0] == pytest.approx(11, abs=2)


def test_errors_of_one_group_move_together() -> None:
    """Targets are those of the bases but for a trifle, and the way knows nothing."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 4)
    goal = rng.normal(size=10)[groups] + 0.01 * rng.normal(size=40)
    found = calibrated_draws(rng.normal(size=(1, 40)), goal, groups, 300, 0)
    assert found is not None
    apart = found[1] - found[0]
    correlation = np.corrcoef(apart.T)
    assert correlation[0, 1] > 0.8 and abs(correlation[0, 4]) < 0.2


def test_many_seeds_leave_the_noise_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    many = rng.normal(size=(200, 8)) + np.arange(8)
    found = seed_draws(many, 0)
    assert found is not None
    centre, drawn = found
    np.testing.assert_allclose(centre, many.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(drawn.mean(axis=0), centre, atol=0.02)
    np.testing.assert_allclose(drawn.std(axis=0), many.std(ddof=1, axis=0).mean() / np.sqrt(200), rtol=0.1)


def test_steady_corpora_are_not_blurred_by_those_that_diverge() -> None:
    """Of 12 corpora four have a hundred times the noise; the others' order is certain."""
    rng = np.random.default_rng(2)
    truth = np.append(np.arange(8.0), np.full(4, 4.0))
    deviation = np.append(np.full(8, 0.05), np.full(4, 5.0))
    runs = truth + deviation * rng.normal(size=(3, 12))
    found = seed_draws(runs, 0)
    assert found is not None
    assert found[1][:, :8].std(axis=0).max() < 0.2 < found[1][:, 8:].std(axis=0).min()
    assert np.isfinite(variance_prior(runs.var(axis=0, ddof=1), np.full(12, 2))[0])
    assert np.isinf(variance_prior(np.full(12, 1.0), np.full(12, 2))[0])


def test_a_corpus_of_one_run_has_its_noise_from_the_others() -> None:
    rng = np.random.default_rng(3)
    runs = np.arange(6.0) + 0.3 * rng.normal(size=(3, 6))
    runs[1:, 2] = np.nan
    found = seed_draws(runs, 0)
    assert found is not None
    assert found[1][:, 2].std() == pytest.approx(np.sqrt(3) * found[1][:, 3].std(), rel=0.25)
    assert seed_draws(runs[:1], 0) is None


def test_equal_runs_have_draws_without_noise() -> None:
    found = seed_draws(np.tile([1.0, 2.0, 3.0], (2, 1)), 0)
    assert found is not None
    np.testing.assert_allclose(found[0], [1, 2, 3])
    np.testing.assert_allclose(found[1].std(axis=0), 0, atol=1e-9)


def test_places_without_draws_have_ranks_alone() -> None:
    values = np.array([3.0, 1.0, 3.0])
    found = figures_of(-values, None, -values, 0.95)
    places = places_of(found, ("a", "b", "c"), values, np.array([1, 1, 0]), None, None, "loss at 1M")
    assert [(p.corpus, p.rank, p.n_seeds) for p in places] == [("b", 1, 1), ("a", 2.5, 1), ("c", 2.5, None)]
    assert {(p.rank_low, p.p_best, p.p_above_next, p.expected_regret, p.forecast) for p in places} == {
        (None,) * 5
    }


def test_of_too_few_targets_no_line_is_fitted() -> None:
    goal = np.array([1.0, 2.0, np.nan, np.nan])
    assert calibrated_draws(np.ones((1, 4)), goal, np.arange(4), 50, 0) is None


def test_pairs_are_of_the_leading_corpora_and_agree_with_the_next() -> None:
    rng = np.random.default_rng(0)
    centre = np.arange(14.0)
    draws = centre + 2 * rng.normal(size=(2000, 14))
    found = figures_of(centre, draws, centre, 0.95)
    names = [f"c{k}" for k in range(14)]
    pairs = pairs_of(found, names)
    assert len(pairs) == 45 and {p.corpus for p in pairs} == set(names[5:])
    places = places_of(found, names, centre, np.ones(14), None, None, "loss")
    by_name = {(p.corpus, p.other): p.p_better for p in pairs}
    for place, after in itertools.pairwise(places[:10]):
        assert by_name[place.corpus, after.corpus] == place.p_above_next
    level = figures_of(np.zeros(2), np.zeros((10, 2)), np.zeros(2), 0.95)
    assert level.pairwise.tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_equal_draws_prefer_no_corpus() -> None:
    """They were ranked by their place in the table: 1, 2, 3 without any width."""
    level = figures_of(np.zeros(4), np.zeros((4000, 4)), np.zeros(4), 0.95)
    np.testing.assert_allclose(level.p_best, 0.25, atol=0.03)
    assert (level.rank.tolist(), level.low.tolist(), level.high.tolist()) == ([2.5] * 4, [1] * 4, [4] * 4)
    draws = np.tile([3.0, 1.0, 3.0, 2.0], (4000, 1))
    found = figures_of(draws[0], draws, draws[0], 0.95)
    assert found.low.tolist() == [1, 4, 1, 3] and found.high.tolist() == [2, 4, 2, 3]
    assert found.p_best[[1, 3]].tolist() == [0, 0]


def test_rank_intervals_hold_on_published_runs() -> None:
    """DataDecide up to 150M, targets of 12 of its 25 corpora: the ranks of the other 13 at 1B."""
    sizes = ["4M", "16M", "60M", "150M"]
    small = datadecide.convert(str(DATA / "datadecide_olmes10_nll_per_char_final.csv"))
    small = small.filter(pl.col("size").is_in(sizes))
    targets = datadecide.convert(str(DATA / "datadecide_target_1b_accuracy.csv")).filter(
        task=datadecide.MACRO
    )
    true_rank = dict(zip(targets["corpus"], targets["value"].rank(descending=True), strict=True))
    held = []
    for seed in range(6):
        known = targets.sample(12, seed=seed)
        found = forecast.compare_corpora(
            small, known, scaling_laws=False, permutations=0, bootstraps=200, workers=1
        )
        assert found.ranking is not None and found.ranking.over == "corpora"
        unknown = [p for p in found.ranking.places if p.measured is None]
        assert len(unknown) == 13
        held += [p.rank_low <= true_rank[p.corpus] <= p.rank_high for p in unknown]  # type: ignore[operator]
    assert np.mean(held) >= 0.88
