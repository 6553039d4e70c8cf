"""Rankings: which proxy orders the candidates, in which direction, and what is said beside the figures."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from populations import PLACE, SIGNS, evaluated, measured, noise, population_of, proxies_of, task_of

from forecast.analysis.ranking.single_proxy import MEAN_TARGET, Ranking, rank_candidates
from forecast.config.schema import RankingConfig
from forecast.errors import NoDataError
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES
from forecast.warehouse.population import Population, Target, TaskProxies

Array = NDArray[np.float64]
QUICK = RankingConfig(bootstraps=50, permutations=50)
ENTROPY = "entropy__uniform"


def one_task(
    good: Mapping[str, Array], candidates: int = 8, instances: int = 6, seed: int = 0
) -> TaskProxies:
    """Noise, but for the proxies named: these have for each candidate its value, higher is better."""
    values = noise(np.random.default_rng(seed), candidates, instances)
    for name, quality in good.items():
        values[:, :, PLACE[name]] = quality[:, None] * SIGNS[PLACE[name]]
    return task_of({"human": values})


def ranked(*targets: Target, settings: RankingConfig = QUICK, **good: Array) -> Ranking:
    return rank_candidates(population_of({"t": one_task(good)}, *targets), settings)


def order(ranking: Ranking) -> list[str]:
    return [standing.candidate for standing in ranking.standings]


def said(ranking: Ranking, words: str) -> bool:
    return any(words in warning for warning in ranking.warnings)


UP = np.arange(8.0)
NAMES = [f"c{i:02}" for i in range(8)]


# --- which proxy leads, and where


@pytest.mark.parametrize("lead", [p.name for p in PROXIES if not p.learned][::7])
def test_the_proxy_that_agrees_best_orders_the_candidates(lead: str) -> None:
    ranking = ranked(measured("t", UP), **{lead: UP})
    assert ranking.shown[0] == lead
    assert PLAIN_CROSS_ENTROPY in ranking.shown[-1:] or lead == PLAIN_CROSS_ENTROPY
    assert order(ranking) == NAMES[::-1]
    best = ranking.reports[0].best()
    assert best is not None
    assert (best.proxy, best.spearman, best.kendall, best.n_candidates) == (lead, 1.0, 1.0, 8)
    assert [s.rank for s in ranking.standings] == list(range(1, 9))
    assert [s.measured_rank for s in ranking.standings] == list(range(1, 9))
    assert ranking.standings[0].values[lead] == pytest.approx(7.0 * SIGNS[PLACE[lead]]), (
        "as it is, not turned"
    )
    assert said(ranking, f"{lead} agrees best of 80 proxies") and said(ranking, "optimistically biased")
    assert said(ranking, "best of 80 under shuffled scores") and said(ranking, "n = 8")


def test_figures_have_their_sign_turned_so_that_positive_is_good() -> None:
    ranking = ranked(
        measured("t", UP), cross_entropy__uniform=UP, rank__uniform=-UP, top1_accuracy__uniform=UP
    )
    rho = {c.proxy: c.spearman for c in ranking.reports[0].correlations}
    assert rho["cross_entropy__uniform"] == 1.0, "the lowest cross-entropy belongs to the best"
    assert rho["rank__uniform"] == -1.0, "the best have the highest rank numbers here"
    assert rho["top1_accuracy__uniform"] == 1.0


@pytest.mark.parametrize("turn", [1, -1])
def test_the_direction_of_entropy_is_learned(turn: int) -> None:
    ranking = ranked(measured("t", UP), **{ENTROPY: turn * UP})
    assert ranking.shown[0] == ENTROPY
    assert order(ranking) == NAMES[::-1], "whichever way entropy runs"
    correlation = ranking.reports[0].correlations[PLACE[ENTROPY]]
    assert correlation.spearman == turn, "printed as it is"
    assert correlation.agreement == 1.0
    assert [s.ranks[ENTROPY] for s in ranking.standings] == list(range(1, 9)), (
        "the shown ranks are those of the order"
    )


def test_a_known_direction_is_never_turned_round() -> None:
    """Else chance would put the worst candidates first wherever there are few scores."""
    others = {p.name: np.zeros(8) for p in PROXIES}
    good = {
        **others,
        PLAIN_CROSS_ENTROPY: -UP,
        "top1_accuracy__uniform": np.array([0, 0, 0, 1, 0, 0, 1, 1.0]),
    }
    ranking = ranked(measured("t", UP), **good)
    assert ranking.shown == (PLAIN_CROSS_ENTROPY, "top1_accuracy__uniform"), "nothing beats the null"
    assert said(ranking, "cross_entropy__uniform disagrees with the scores (rho -1.00) more strongly")
    assert said(ranking, "or lower scores are better")
    assert {s.candidate: s.ranks[PLAIN_CROSS_ENTROPY] for s in ranking.standings}["c00"] == 1


def test_the_first_of_equals_leads_and_each_metric_is_shown_once() -> None:
    names = [
        "top5_accuracy__uniform",
        "top1_accuracy__frequency",
        "top1_accuracy__uniform",
        "margin__probability",
    ]
    ranking = ranked(measured("t", UP), **dict.fromkeys(names, UP))
    assert ranking.shown == (
        "top1_accuracy__uniform",
        "top5_accuracy__uniform",
        "margin__probability",
        PLAIN_CROSS_ENTROPY,
    )


def test_tied_candidates_share_their_rank() -> None:
    quality = np.array([1.0, 2.0, 2.0, 2.0, 3.0, 4.0, 5.0, 5.0])
    ranking = ranked(measured("t", quality), top1_accuracy__uniform=quality)
    assert [s.rank for s in ranking.standings] == [1.5, 1.5, 3, 4, 6, 6, 6, 8]
    assert order(ranking) == ["c06", "c07", "c05", "c04", "c01", "c02", "c03", "c00"], "by name among equals"


# --- several targets


def test_several_targets_are_reported_each_and_as_their_mean() -> None:
    first, second = measured("t", UP), measured("exam", UP[::-1] + 3 * (UP == 0), [0.3] * 8)
    population = population_of({"t": one_task({}), "u": one_task({}, seed=1)}, first, second)
    ranking = rank_candidates(population, QUICK)
    assert [r.target for r in ranking.reports] == [MEAN_TARGET, "t", "exam"]
    assert [r.tasks for r in ranking.reports] == [("t", "u"), ("t",), ("t", "u")]
    assert ranking.standings[0].measured is not None
    means = {s.candidate: s.measured for s in ranking.standings}
    assert means["c00"] == 5.0 and means["c01"] == 3.5


def test_errors_of_a_mean_add_up_and_one_unknown_leaves_it_unknown() -> None:
    with_errors = ranked(measured("t", UP, [0.3] * 8), measured("u", UP, [0.4] * 8))
    assert [s.measured_stderr for s in with_errors.standings] == pytest.approx([0.25] * 8)
    assert not said(with_errors, "no standard error")
    without = ranked(measured("t", UP, [0.3] * 8), measured("u", UP))
    assert {s.measured_stderr for s in without.standings} == {None}
    assert said(without, "no standard error for scores of u: intervals take them as exact")


def test_means_that_are_equal_on_paper_are_tied() -> None:
    a = np.array([0.3, 0.4, 0.1, 0.2, 0.0, 0.0, 0.0, 0.0])
    b = np.array([0.6, 0.5, 0.2, 0.0, 0.0, 0.0, 0.0, 0.1])
    assert (0.3 + 0.6) / 2 != (0.4 + 0.5) / 2, "this is what rounding does"
    ranking = ranked(measured("t", a), measured("u", b))
    by_name = {s.candidate: s.measured_rank for s in ranking.standings}
    assert by_name["c00"] == by_name["c01"] == 1.5


def test_where_too_few_have_all_scores_the_widest_target_leads() -> None:
    few = measured("few", [0.5, 0.6, *[math.nan] * 6])
    ranking = ranked(few, measured("wide", [math.nan, *UP[1:]]), top1_accuracy__uniform=UP)
    assert [(r.target, r.n_candidates) for r in ranking.reports] == [("wide", 7), ("few", 2)]
    assert said(ranking, "few is not among the tasks that the order is judged by: 2 of 8")
    assert order(ranking) == NAMES[::-1], "the one without a score stands where the proxy puts it"
    assert ranking.standings[-1].measured is None and ranking.standings[-1].measured_rank is None


def test_a_task_measured_on_half_of_the_candidates_takes_no_evidence_away() -> None:
    """Six of six candidates stay, each judged by the tasks that it has."""
    half = measured("half", [0.1, 0.3, 0.5, 0.7, *[math.nan] * 4])
    ranking = ranked(measured("t", UP), measured("u", UP + 1), half, top1_accuracy__uniform=UP)
    mean = ranking.reports[0]
    assert (mean.target, mean.measured, mean.n_candidates) == (MEAN_TARGET, ("t", "u", "half"), 8)
    plain = next(c for c in mean.correlations if c.proxy == "top1_accuracy__uniform")
    assert plain.spearman is not None and plain.spearman > 0.8
    assert said(ranking, "of z-scores, over the tasks that a candidate has (t, u, half)")
    sparse = measured("u", [0.1, *[math.nan] * 3, *UP[4:]]), measured("v", [0.1, *[math.nan] * 3, *UP[4:]])
    ranking = ranked(measured("t", UP), *sparse, top1_accuracy__uniform=UP)
    assert ranking.reports[0].n_candidates == 5
    assert said(ranking, "fewer than half of the tasks measured, so without a mean: c01, c02, c03")


def test_three_candidates_give_no_interval() -> None:
    ranking = ranked(measured("t", [1.0, 2.0, 3.0, *[math.nan] * 5]), top1_accuracy__uniform=UP)
    assert ranking.reports[0].n_candidates == 3
    assert all(c.ci_low is None for c in ranking.reports[0].correlations)


def test_scales_that_do_not_fit_are_said() -> None:
    assert said(ranked(measured("t", UP / 10), measured("u", UP * 10)), "different scales")
    assert not said(ranked(measured("t", UP / 10), measured("u", UP / 20)), "different scales")


def test_proxies_of_the_configured_tasks_forecast_a_target() -> None:
    proxies = {"t": one_task({}), "u": one_task({"top1_accuracy__uniform": UP}, seed=1)}
    settings = QUICK.model_copy(update={"targets": {"exam": ("u",), "typo": ("t",)}})
    ranking = rank_candidates(population_of(proxies, measured("exam", UP)), settings)
    assert ranking.reports[0].tasks == ("u",)
    assert order(ranking) == NAMES[::-1]
    assert said(ranking, "ranking.targets names typo")


def test_a_target_whose_tasks_were_not_read_is_left_out() -> None:
    settings = QUICK.model_copy(update={"targets": {"exam": ("gone",)}})
    ranking = rank_candidates(
        population_of({"t": one_task({})}, measured("exam", UP), measured("t", UP)), settings
    )
    assert [r.target for r in ranking.reports] == ["t"]
    assert said(ranking, "exam: no task that ranking.targets names for it was read")


# --- little or nothing to go by


def assert_no_figures(ranking: Ranking) -> None:
    for report in ranking.reports:
        assert report.best() is None
        assert (report.best_p, report.best_null_mean) == (None, None)
        for c in report.correlations:
            assert (c.spearman, c.kendall, c.ci_low, c.ci_high) == (None, None, None, None)
    assert ranking.shown == (PLAIN_CROSS_ENTROPY,)
    json.dumps([asdict(s) for s in ranking.standings], allow_nan=False)


def test_without_scores_plain_cross_entropy_orders() -> None:
    ranking = ranked(**{PLAIN_CROSS_ENTROPY: UP})
    assert ranking.reports == ()
    assert order(ranking) == NAMES[::-1]
    assert ranking.shown[0] == PLAIN_CROSS_ENTROPY
    assert {(s.measured, s.measured_stderr, s.measured_rank) for s in ranking.standings} == {
        (None, None, None)
    }
    assert ranking.warnings == (
        "no measured scores: candidates stand in the order of plain cross-entropy, unchecked",
    )


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_candidates_have_an_order_and_no_figures(n: int) -> None:
    task = one_task({PLAIN_CROSS_ENTROPY: UP[:n]}, candidates=n)
    targets = [measured("t", UP[:n]), evaluated("u", np.tile(UP[:n, None], (1, 4)))]
    ranking = rank_candidates(population_of({"t": task, "v": task}, *targets), QUICK)
    assert_no_figures(ranking)
    assert order(ranking) == NAMES[:n][::-1]
    assert said(ranking, f"rho is undefined with {n} measured candidates (it takes 3)")


def test_scores_that_are_all_tied_give_no_figures() -> None:
    ranking = ranked(evaluated("t", np.ones((8, 20))), **{PLAIN_CROSS_ENTROPY: UP})
    assert_no_figures(ranking)
    assert order(ranking) == NAMES[::-1]
    assert said(ranking, "all scores or all proxies are equal")


def test_scores_tied_by_their_means_have_no_interval_though_resamples_differ() -> None:
    items = np.array([np.roll([1.0, 0, 0, 1, 0, 1], i) for i in range(8)])
    assert_no_figures(ranked(evaluated("t", items)))


def test_proxies_that_are_all_tied_give_no_figures() -> None:
    values = proxies_of(np.ones((8, 5)))
    assert_no_figures(rank_candidates(population_of({"t": values}, measured("t", UP)), QUICK))


def test_one_instance_has_figures_but_no_interval() -> None:
    population = population_of({"t": one_task({}, instances=1)}, measured("t", UP, [0.1] * 8))
    ranking = rank_candidates(population, QUICK)
    assert {c.ci_low for c in ranking.reports[0].correlations} == {None}
    assert all(c.spearman is not None for c in ranking.reports[0].correlations)
    assert said(ranking, "no intervals")


def test_intervals_and_p_can_be_switched_off() -> None:
    ranking = ranked(measured("t", UP), settings=RankingConfig(bootstraps=0, permutations=0))
    report = ranking.reports[0]
    assert (report.best_p, report.best_null_mean) == (None, None)
    assert {c.ci_high for c in report.correlations} == {None}
    assert report.best() is not None
    assert not said(ranking, "shuffled") and not said(ranking, "None")


def test_no_proxies() -> None:
    population = Population(("a",), ("id",), (None,), (None,), {}, (), (None,))
    with pytest.raises(NoDataError):
        rank_candidates(population, QUICK)


# --- what must be said


def test_one_model_under_two_names_is_said() -> None:
    population = population_of({"t": one_task({})}, measured("t", UP))
    twins = Population(
        population.candidates,
        ("same", *population.identities[1:7], "same"),
        population.families,
        population.parameters,
        population.proxies,
        population.targets,
        population.training_flops,
    )
    assert said(rank_candidates(twins, QUICK), "one model under several names, each counted in n: c00 = c07")
    assert not said(rank_candidates(population, QUICK), "one model under")


def test_metrics_that_are_not_used_are_said() -> None:
    target = Target("t", "acc", UP, UP * math.nan, None, other_metrics=("f1",))
    assert said(ranked(target), "t: acc is used, not f1")


def test_the_same_population_gives_the_same_ranking() -> None:
    assert ranked(measured("t", UP, [0.2] * 8)) == ranked(measured("t", UP, [0.2] * 8))


def test_a_ranking_under_noise_says_so_by_its_p() -> None:
    """The best of 80 looks strong among few candidates, and p tells."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(40):
        population = population_of({"t": one_task({}, seed=seed)}, measured("t", rng.normal(size=8)))
        report = rank_candidates(population, RankingConfig(bootstraps=0, permutations=99)).reports[0]
        best = report.best()
        assert best is not None and best.spearman is not None and report.best_p is not None
        found.append((best.agreement, report.best_p))
    agreement, p = np.array(found).T
    assert agreement.mean() > 0.6
    assert (p < 0.05).mean() < 0.2 and 0.3 < p.mean() < 0.7
