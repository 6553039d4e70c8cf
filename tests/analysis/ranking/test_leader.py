"""What orders the candidates: evidence where there is some, else the default."""

from dataclasses import replace

import numpy as np
import pytest
from populations import PLACE, SIGNS, measured, noise, population_of, task_of

from forecast.analysis.ranking.feature_table_from_run import cells_of
from forecast.analysis.ranking.held_out import HeldOutResult, RankOptions, evaluate_held_out
from forecast.analysis.ranking.leader import DEFAULT_PROXY, held_out_leader
from forecast.analysis.ranking.report import answer
from forecast.analysis.ranking.single_proxy import Ranking, rank_candidates, with_held_out
from forecast.analysis.stats.rank_correlation import ranks
from forecast.config.schema import RankingConfig
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY
from forecast.warehouse.population import Population

SETTINGS = RankingConfig(bootstraps=100, permutations=99)
GOOD = "rank__uniform"


def world(
    seed: int, signal: float, *, candidates: int = 12, families: int = 6, instances: int = 20
) -> Population:
    """Two tasks whose scores have `signal` in common with one proxy, and none with the others."""
    rng = np.random.default_rng(seed)
    ability = rng.normal(size=candidates)
    values = noise(rng, candidates, instances) + 2 * noise(rng, candidates, 1)
    values[:, :, PLACE[GOOD]] = SIGNS[PLACE[GOOD]] * (
        ability[:, None] + 0.3 * rng.normal(size=(candidates, instances))
    )
    scores = [signal * ability + np.sqrt(1 - signal**2) * rng.normal(size=candidates) for _ in range(2)]
    found = population_of(
        {"t": task_of({"x": values})}, *(measured(f"exam {k}", own) for k, own in enumerate(scores))
    )
    return replace(found, families=tuple(f"f{i % families}" for i in range(candidates)))


def ranked(
    population: Population, scorers: tuple[str, ...] = ("univariate",)
) -> tuple[Ranking, HeldOutResult]:
    cells = cells_of(population, SETTINGS)
    options = RankOptions(scorers, ("leave-models-out",), permutations=99, bootstraps=100)
    held_out = evaluate_held_out(cells.imported, options, redraw=cells.redraw)
    alone = rank_candidates(population, SETTINGS)
    return with_held_out(alone, population, SETTINGS, held_out), held_out


def test_without_a_signal_the_default_leads() -> None:
    leaders = [rank_candidates(world(seed, 0.0), SETTINGS).leader for seed in range(40)]
    assert sum(leader.proxy == DEFAULT_PROXY for leader in leaders) >= 37
    reasons = {leader.reason.partition(" (p")[0] for leader in leaders if leader.proxy == DEFAULT_PROXY}
    assert "the best of 80 proxies may be chance" in reasons


def test_with_a_clear_signal_its_proxy_leads() -> None:
    leaders = [rank_candidates(world(seed, 0.98, families=12), SETTINGS).leader for seed in range(10)]
    assert sum(leader.proxy == GOOD for leader in leaders) >= 9
    assert all((leader.null_p or 1) <= 0.05 for leader in leaders if leader.proxy == GOOD)


def test_held_out_figures_decide_where_they_exist() -> None:
    ranking, held_out = ranked(world(3, 0.98))
    assert ranking.leader == held_out.leader and ranking.leader.scorer == "univariate"
    assert held_out.order is not None
    assert [s.candidate for s in ranking.standings] == [p.candidate for p in held_out.order.places]
    assert {s.interval_over for s in ranking.standings} == {"candidates and families"}
    nothing, held_out = ranked(world(3, 0.0))
    assert nothing.leader.proxy == DEFAULT_PROXY and "not seen" in nothing.leader.reason
    by_default = sorted(nothing.standings, key=lambda s: s.ranks[PLAIN_CROSS_ENTROPY])
    assert [s.rank for s in by_default] == sorted(s.rank for s in nothing.standings)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_held_out_leader_is_the_default_in_95_of_100_worlds_without_a_signal() -> None:
    leaders = [ranked(world(seed, 0.0), ("univariate", "ranksvm-linear"))[0].leader for seed in range(100)]
    assert sum(leader.proxy == DEFAULT_PROXY for leader in leaders) >= 92


def test_p_of_the_best_of_several_scorers_is_against_the_best_under_each_permutation() -> None:
    scorers = ("univariate", "ranksvm-linear")
    _, held_out = ranked(world(5, 0.5), scorers)
    own = [r for r in held_out.rows if r.scorer in scorers and r.spearman is not None]
    best = max(own, key=lambda r: r.spearman or 0.0)
    assert held_out.leader is not None and best.null.p is not None
    p = held_out_leader(held_out.rows, held_out.comparisons, scorers, {"leave-models-out": 0.9})
    assert p is not None and p.proxy == DEFAULT_PROXY, "the p that is given decides"
    (alone,) = {r.null.p for r in ranked(world(5, 0.5), (best.scorer,))[1].rows if r.scorer == best.scorer}
    assert alone == best.null.p, "a row's own p is not corrected"


def test_every_candidate_has_an_interval_also_where_nothing_is_measured() -> None:
    bare = replace(world(0, 0.0), targets=())
    ranking = rank_candidates(bare, SETTINGS)
    assert ranking.leader.proxy == DEFAULT_PROXY and len(ranking.standings) == 12
    for standing in ranking.standings:
        assert standing.rank_low is not None and standing.rank_high is not None
        assert standing.rank_low <= standing.rank <= standing.rank_high
        assert standing.interval_over == "instances"
    assert ranking.interval_reason is not None


def test_one_instance_gives_no_interval_and_a_reason() -> None:
    bare = replace(world(0, 0.0, instances=1), targets=())
    ranking = rank_candidates(bare, SETTINGS)
    assert {(s.rank_low, s.rank_high, s.p_above_next, s.interval_over) for s in ranking.standings} == {
        (None, None, None, None)
    }
    assert ranking.interval_reason is not None and ranking.interval_reason.startswith("no rank intervals")


def test_two_names_of_one_model_stand_at_one_place() -> None:
    found = world(3, 0.98)
    twins = replace(found, identities=(*found.identities[:-1], found.identities[0]))
    values = twins.proxies["t"].experts["x"].values
    values[-1] = values[0]
    for target in twins.targets:
        target.values[-1] = target.values[0]
    ranking, _ = ranked(twins)
    assert ranking.leader.scorer == "univariate" and len(ranking.standings) == 12
    by_name = {s.candidate: s for s in ranking.standings}
    assert by_name["c00"].rank == by_name["c11"].rank and by_name["c00"].value == by_name["c11"].value


def test_checkpoints_of_one_run_stand_along_the_steps_with_the_best_so_far() -> None:
    bare = replace(world(0, 0.0), targets=())
    steps = tuple(100 * (12 - i) for i in range(12))
    ranking = rank_candidates(replace(bare, steps=steps, runs=("mine",) * 12), SETTINGS)
    assert [s.step for s in ranking.standings] == sorted(steps) and ranking.run == "mine"
    best = min(ranking.standings, key=lambda s: s.rank)
    assert answer(ranking)[0].startswith(f"{best.candidate} is the best checkpoint of mine so far")
    mixed = rank_candidates(replace(bare, steps=steps, runs=("mine",) * 6 + ("other",) * 6), SETTINGS)
    assert mixed.run is None and [s.rank for s in mixed.standings] == sorted(s.rank for s in mixed.standings)
    assert {s.step for s in mixed.standings} == set(steps)


def test_equal_scores_are_no_evidence_for_a_rank() -> None:
    equal = replace(world(0, 0.0), targets=(measured("exam", [0.5] * 12),))
    ranking = rank_candidates(equal, SETTINGS)
    assert {s.interval_over for s in ranking.standings} == {"instances"}
    assert ranking.interval_reason is not None and "stand alike" in ranking.interval_reason


@pytest.mark.parametrize(("families", "over"), [(1, "instances"), (6, "candidates and families")])
@pytest.mark.parametrize("signal", [0.0, 0.5, 0.9])
def test_intervals_hold_their_rate_with_one_family_and_with_six(
    families: int, over: str, signal: float
) -> None:
    """Over instances the rank by endless instances, over candidates that by the measured scores."""
    held = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        ability = rng.normal(size=12)
        values = noise(rng, 12, 20)
        place = PLACE[DEFAULT_PROXY]
        values[:, :, place] = SIGNS[place] * (ability[:, None] + 0.5 * rng.normal(size=(12, 20)))
        scores = signal * ability + np.sqrt(1 - signal**2) * rng.normal(size=(3, 12))
        targets = [measured(f"exam {k}", own) for k, own in enumerate(scores)]
        found = replace(
            population_of({"t": task_of({"x": values})}, *targets),
            families=tuple(f"f{i % families}" for i in range(12)),
        )
        ranking = rank_candidates(found, RankingConfig(bootstraps=200, permutations=0))
        by_ability = dict(zip(found.candidates, ranks(ability), strict=True))
        for standing in ranking.standings:
            assert standing.interval_over == over and standing.rank_low is not None
            true = by_ability[standing.candidate] if families == 1 else standing.measured_rank
            held.append(standing.rank_low <= (true or 0.0) <= (standing.rank_high or 0.0))
    assert np.mean(held) >= 0.94
