"""The whole report on made-up tables whose truth is known: what it finds, warns of and refuses."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from worlds import imported, table_of, world

from forecast.analysis.ranking.feature_table import CellTable
from forecast.analysis.ranking.held_out import HeldOutResult, RankOptions, evaluate_held_out
from forecast.analysis.ranking.held_out_metrics import ScorerRow
from forecast.analysis.ranking.held_out_report import report_record
from forecast.analysis.ranking.scorers.registry import OWN_MEAN, SCORERS
from forecast.analysis.ranking.scorers.score_baselines import FROM_SCORES
from forecast.analysis.ranking.splits import (
    KNOWN_TASKS,
    LEAVE_2_TASKS_OUT,
    LEAVE_FAMILIES_OUT,
    LEAVE_MODELS_OUT,
    PROTOCOLS,
)
from forecast.errors import ConfigError

FEATURE_SCORERS = ("univariate", "ranksvm-linear")
HONEST = (LEAVE_MODELS_OUT,)


def report(table: CellTable, **options: object) -> HeldOutResult:
    settings = {"permutations": 59, "bootstraps": 100, "scorers": FEATURE_SCORERS, **options}
    return evaluate_held_out(imported(table), RankOptions(**settings))  # type: ignore[arg-type]


def row(found: HeldOutResult, scorer: str, protocol: str) -> ScorerRow:
    (one,) = [r for r in found.rows if (r.scorer, r.protocol) == (scorer, protocol)]
    return one


def said(found: HeldOutResult, words: str) -> bool:
    return any(words in warning for warning in found.warnings)


def test_ability_is_found_under_every_protocol() -> None:
    found = report(world("ability", 2, 14, 4, 20, family=2), permutations=39)
    for protocol in PROTOCOLS:
        for scorer in FEATURE_SCORERS:
            one = row(found, scorer, protocol)
            assert one.spearman is not None and one.spearman > 0.5
            assert one.null.p is not None and one.null.p <= 0.1
            assert one.ci_low is not None and one.ci_high is not None
            assert one.ci_low < one.spearman < one.ci_high
    assert not said(found, "recognises")
    assert found.order is not None and found.order.unseen and found.order.reason is None


def test_a_fingerprint_ranks_held_out_tasks_but_no_new_model() -> None:
    """The simulation of the method: a false 0.7 and more where only tasks are held out, and a warning."""
    found = report(world("fingerprint", 0), scorers=("ranksvm-linear",), permutations=39)
    false = row(found, "ranksvm-linear", LEAVE_2_TASKS_OUT)
    assert false.spearman is not None and false.spearman > 0.7
    assert false.null.mean is not None and false.null.mean > 0.5, "recognition alone goes that far"
    for protocol in (LEAVE_MODELS_OUT, LEAVE_FAMILIES_OUT):
        honest = row(found, "ranksvm-linear", protocol)
        assert honest.spearman is not None and honest.null.p is not None and honest.null.q95 is not None
        assert honest.null.p > 0.05 and honest.spearman < honest.null.q95
    assert said(found, "the scorer recognises models by a fingerprint, not ability")
    assert said(found, "not better: ranksvm-linear"), "the candidates' own mean is the bar"


@pytest.mark.slow
def test_a_fingerprint_over_many_worlds() -> None:
    """Published with the method: 0.76 for RankSVM, 0.46 univariate; for new models nothing is left."""
    rhos: dict[tuple[str, str], list[float]] = {}
    for seed in range(12):
        found = report(
            world("fingerprint", seed),
            scorers=("univariate", "ranksvm-linear"),
            protocols=(LEAVE_2_TASKS_OUT, LEAVE_MODELS_OUT),
            permutations=0,
            bootstraps=0,
        )
        for one in found.rows:
            if one.spearman is not None:
                rhos.setdefault((one.protocol, one.scorer), []).append(one.spearman)
    means = {key: float(np.mean(values)) for key, values in rhos.items()}
    assert means[LEAVE_2_TASKS_OUT, "ranksvm-linear"] == pytest.approx(0.76, abs=0.05)
    assert means[LEAVE_2_TASKS_OUT, "univariate"] == pytest.approx(0.44, abs=0.07)
    assert means[LEAVE_2_TASKS_OUT, OWN_MEAN] > means[LEAVE_2_TASKS_OUT, "ranksvm-linear"]
    for scorer in ("univariate", "ranksvm-linear"):
        # 12 worlds, each with a deviation of about 0.22: three standard errors are 0.19.
        assert abs(means[LEAVE_MODELS_OUT, scorer]) < 0.19


def test_every_scorer_stands_in_the_table_with_the_bar_and_the_baselines() -> None:
    table = world("ability", 2, candidates=9, tasks=3, features=4, family=2)
    scores = 1 / (1 + np.exp(-table.scores))
    found = report(replace(table, scores=scores), scorers=SCORERS, permutations=3)
    by_protocol = {p: {r.scorer for r in found.rows if r.protocol == p} for p in PROTOCOLS}
    for protocol in (LEAVE_2_TASKS_OUT, LEAVE_MODELS_OUT, LEAVE_FAMILIES_OUT):
        assert by_protocol[protocol] == {*SCORERS, OWN_MEAN}
    assert by_protocol[KNOWN_TASKS] == {*SCORERS, OWN_MEAN, *(scorer.name for scorer in FROM_SCORES)}
    for scorer in FROM_SCORES:
        one = row(found, scorer.name, KNOWN_TASKS)
        assert one.spearman is not None and one.spearman > 0.3, "scores of other tasks tell much here"
        assert one.null.p is None and one.reason is not None
    bar = row(found, OWN_MEAN, LEAVE_MODELS_OUT)
    assert bar.spearman is None and bar.reason is not None and "no held-in score" in bar.reason


def test_order_of_rows_and_monotone_changes_of_scores_do_not_matter() -> None:
    table = world("ability", 5, candidates=9, tasks=3, features=4, family=2)
    bent = table.scores.copy()
    bent[0] = np.exp(bent[0])
    bent[1] = 7 * bent[1] - 100
    before, after = (
        report_record(report(each, scorers=SCORERS, protocols=HONEST, permutations=3), "t")
        for each in (table, replace(table, scores=bent))
    )
    assert before["rows"] == after["rows"]
    assert before["ranking"] == after["ranking"]


def test_the_record_is_json_with_nulls_and_no_nan() -> None:
    table = world("noise", 0, candidates=6, tasks=3, features=2)
    text = json.dumps(report_record(report(table, permutations=3), "t.csv"), allow_nan=False)
    read = json.loads(text)
    assert {"rows", "warnings"} <= set(read)
    for one in read["rows"]:
        assert {"scorer", "protocol", "spearman", "ci_low", "ci_high", "null_p"} <= set(one)
        assert {"n_candidates", "n_tasks", "tau_b", "weighted_tau", "reason"} <= set(one)
        assert one["spearman"] is not None or one["reason"]


@pytest.mark.parametrize("candidates", [1, 2])
def test_one_or_two_candidates_have_no_figures(candidates: int) -> None:
    found = report(world("noise", 0, candidates=candidates, tasks=4, features=3))
    for one in found.rows:
        assert one.spearman is None and one.ci_low is None and one.null.p is None
        assert one.reason is not None and "3 candidates" in one.reason
    assert found.order is None or all(place.rank_low is None for place in found.order.places)
    assert said(found, f"n = {candidates} candidates")


def test_few_candidates_have_few_orders() -> None:
    found = report(world("ability", 0, candidates=4, tasks=4, features=2))
    ps = [r.null.p for r in found.rows if r.null.p is not None]
    assert ps and min(ps) >= 1 / math.factorial(4) - 1e-12, "24 orders: no p can be smaller"
    assert said(found, "every figure may be chance")


def test_constant_features_and_tied_scores_are_no_numbers() -> None:
    table = world("ability", 0, candidates=8, tasks=4, features=3)
    constant = report(replace(table, values=np.ones_like(table.values)))
    assert all(r.spearman is None for r in constant.rows if r.scorer in FEATURE_SCORERS)
    assert said(constant, "the same for all candidates")
    tied = report(replace(table, scores=np.ones_like(table.scores)))
    assert all(r.spearman is None and r.reason for r in tied.rows)
    assert said(tied, "all 8 scores are equal")


def test_a_task_with_one_score_is_left_out_and_named() -> None:
    table = world("ability", 0, candidates=8, tasks=4, features=3)
    scores = table.scores.copy()
    scores[2, 1:] = np.nan
    found = report(replace(table, scores=scores), protocols=HONEST)
    assert said(found, "t02 (1 candidates")
    rest = [0, 1, 3]
    others = replace(table, tasks=("t00", "t01", "t03"), values=table.values[rest], scores=scores[rest])
    whole = report(others, protocols=HONEST)
    for a, b in zip(found.rows, whole.rows, strict=True):
        assert (a.spearman, a.null.p) == (b.spearman, b.null.p)
        assert a.spearman is None or a.n_tasks == b.n_tasks == 3


def test_without_bootstraps_or_permutations_there_are_no_intervals_and_no_p() -> None:
    found = report(world("ability", 0, candidates=8, tasks=4, features=3), permutations=0, bootstraps=0)
    for one in found.rows:
        assert one.ci_low is None and one.null.p is None
    assert any(one.spearman is not None for one in found.rows)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    table = world("noise", 0, candidates=6, tasks=3, features=2)
    with pytest.raises(ConfigError, match="leave-models-out"):
        report(table, protocols=("leave-model-out",))
    with pytest.raises(ConfigError, match="ranksvm-rbf"):
        report(table, scorers=("ranksvm-rbg",))


def test_scores_that_are_no_fractions_leave_the_baselines_empty_with_the_reason() -> None:
    rng = np.random.default_rng(0)
    table = table_of(rng.normal(size=(4, 9, 3)), 100 * rng.uniform(size=(4, 9)), family=2)
    found = report(table, permutations=0)
    for scorer in FROM_SCORES:
        one = row(found, scorer.name, KNOWN_TASKS)
        assert one.spearman is None and one.reason is not None and "fractions" in one.reason


def test_a_covariate_has_a_row_and_takes_away_what_it_explains() -> None:
    """Scores that are the covariate and nothing else leave no partial correlation to a feature."""
    table = world("ability", 4, candidates=14, tasks=4, features=3)
    size = np.tile(np.arange(14.0), (4, 1))
    rng = np.random.default_rng(0)
    values = size[:, :, None] + rng.normal(scale=2, size=(4, 14, 3))
    given = replace(
        table,
        values=values,
        scores=size + rng.normal(scale=1.5, size=size.shape),
        covariates=("parameters",),
        covariate_values=size[:, :, None],
    )
    found = report(given, permutations=9, bootstraps=50, scorers=("univariate",))
    baseline = row(found, "baseline: parameters", LEAVE_MODELS_OUT)
    assert baseline.spearman is not None and baseline.spearman > 0.85
    scorer = row(found, "univariate", LEAVE_MODELS_OUT)
    assert scorer.spearman is not None and scorer.spearman > 0.7
    partial = scorer.partial["parameters"]
    assert partial is not None and abs(partial) < 0.45


def test_renamed_and_reordered_candidates_have_the_same_figures() -> None:
    table = world("ability", 1, 12, 4, 6, family=2)
    order = np.random.default_rng(1).permutation(12)
    renamed = replace(
        table,
        candidates=tuple(f"x{i:02d}" for i in range(12)),
        families=tuple(table.families[c][::-1] + "z" for c in order),
        values=table.values[:, order],
        scores=table.scores[:, order],
    )
    before, after = (report(t, scorers=("univariate",), protocols=PROTOCOLS) for t in (table, renamed))
    assert [(r.spearman, r.ci_low, r.null) for r in after.rows] == [
        (r.spearman, r.ci_low, r.null) for r in before.rows
    ]


def test_mean_over_deals_varies_less_with_the_seed_and_lies_within_them() -> None:
    table = world("ability", 1, 12, 4, 6)

    def rows(repeats: int) -> list[ScorerRow]:
        return [
            row(
                report(
                    table,
                    seed=seed,
                    fold_repeats=repeats,
                    permutations=0,
                    bootstraps=2,
                    protocols=HONEST,
                    scorers=("univariate",),
                ),
                "univariate",
                LEAVE_MODELS_OUT,
            )
            for seed in range(12)
        ]

    once, thrice = rows(1), rows(3)
    assert np.std([r.spearman for r in thrice]) < 0.8 * np.std([r.spearman for r in once])
    assert all(r.repeat_low is None for r in once)
    assert all(r.repeat_low <= r.spearman <= r.repeat_high and r.n_repeats == 3 for r in thrice)  # type: ignore[operator]
