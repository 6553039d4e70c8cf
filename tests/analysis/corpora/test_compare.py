"""Rows, ceilings, frontier and choices of made-up tables whose answers are known."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analysis.corpora.small_runs import OBS, QUICK, TARGETS, Rows, find, report, world

from forecast.analysis.corpora.budget_choice import BudgetChooser
from forecast.analysis.corpora.compute_cost import Given
from forecast.analysis.corpora.corpora_result import CorporaOptions
from forecast.analysis.corpora.decision_accuracy import decision_accuracy
from forecast.analysis.corpora.report import record as record_of_result


def simple(
    values: dict[str, list[float]], size: str = "4M", seed: Any = 0, metric: str = "nll"
) -> list[list[Any]]:
    """Rows by corpus and task x, y, ... of one size and seed."""
    return [
        [corpus, size, seed, None, "xyz"[t], metric, value]
        for corpus, own in values.items()
        for t, value in enumerate(own)
    ]


def goals(values: dict[str, float], task: str = "x", seed: Any = "mean") -> list[list[Any]]:
    """Targets of one task."""
    return [[corpus, seed, task, "accuracy", value] for corpus, value in values.items()]


def test_seeds_and_their_mean_by_hand(tmp_path: Path) -> None:
    """Seed 0 orders a < b < c (loss 3, 2, 1), seed 1 has b best; the mean has b and c level."""
    observed = simple({"a": [3.0], "b": [2.0], "c": [1.0]}, seed=0)
    observed += simple({"a": [3.0], "b": [1.0], "c": [2.0]}, seed=1)
    found = report(tmp_path, observed, goals({"a": 0.1, "b": 0.2, "c": 0.3}))
    assert find(found, seed="0").decision_accuracy == 1.0
    assert find(found, seed="1").decision_accuracy == pytest.approx(2 / 3)
    mean = find(found, seed="mean")
    assert mean.decision_accuracy == pytest.approx(2.5 / 3)
    assert (mean.n_pairs, mean.n_ties, mean.n_predicted_ties, mean.n_seeds) == (3, 0, 1, 2)
    assert mean.spearman == pytest.approx(np.sqrt(3) / 2)
    record = mean.as_record()
    assert (record["seed"], record["size"], record["step"], record["task"]) == ("mean", "4M", None, "x")
    assert find(found, seed="1").as_record()["seed"] == 1


def test_means_that_are_equal_but_for_rounding_are_level(tmp_path: Path) -> None:
    observed = simple({"a": [0.5], "b": [0.6], "c": [0.55]}, seed=0)
    observed += simple({"a": [0.7], "b": [0.6], "c": [0.65]}, seed=1)
    row = find(report(tmp_path, observed, goals({"a": 0.1, "b": 0.2, "c": 0.3})), seed="mean")
    assert (row.decision_accuracy, row.n_predicted_ties, row.spearman) == (0.5, 3, None)
    assert "all values are equal" in row.reason


def test_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    observed, targets = world(corpora=4, seeds=2)
    tokens = {"10M": 1e9, "30M": 3e9, "100M": 1e10, "300M": 3e10}
    observed = [[*row, tokens[row[1]] * row[3] / 200] for row in observed]
    given = Given(target_size="1000M", parameters={"1000M": 1e9}, tokens={"1000M": 1e11})
    options = dataclasses.replace(QUICK, laws=True, given=given)
    first = record_of_result(report(tmp_path, observed, targets, options, columns=(*OBS, "tokens")), "t")
    assert first["scaling_laws"] and first["frontiers"]["macro"] and first["budget_choices"]
    assert set(first["frontiers_by_metric"]["x"]) == {"accuracy", "nll", "scaling laws"}
    rng = random.Random(0)
    observed, targets = rng.sample(observed, len(observed)), rng.sample(targets, len(targets))
    again = report(tmp_path, observed, targets, options, columns=(*OBS, "tokens"))
    assert record_of_result(again, "t") == first


def test_errors_of_shared_scaling_laws_are_against_each_target(tmp_path: Path) -> None:
    observed, targets = world(corpora=4, seeds=2)
    tokens = {"10M": 1e9, "30M": 3e9, "100M": 1e10, "300M": 3e10}
    observed = [
        [*row[:4], "macro", *row[5:], tokens[row[1]] * row[3] / 200] for row in observed if row[4] == "x"
    ]
    targets = [[*row[:4], row[4] + (0.2 if row[2] == "y" else 0.0)] for row in targets]
    given = Given(target_size="1000M", parameters={"1000M": 1e9}, tokens={"1000M": 1e11})
    options = dataclasses.replace(QUICK, laws=True, given=given)
    found = report(tmp_path, observed, targets, options, columns=(*OBS, "tokens"))
    place = {(r.law, r.metrics, r.sizes, r.task): r for r in found.laws if r.compared_with == "the target"}
    shared = [(r, place[*key[:3], task]) for key, r in place.items() if r.predicted for task in ("x", "y")]
    assert {other.task for _, other in shared} == {"x", "y"}
    for first, own in shared:
        actual = {
            c: np.mean([r[4] for r in targets if r[0] == c and r[2] == own.task]) for c in first.predicted
        }
        apart = [abs(v - actual[c]) for c, v in first.predicted.items() if v is not None]
        assert own.absolute_error == pytest.approx(np.mean(apart))


def test_rows_equal_figures_computed_one_by_one(tmp_path: Path) -> None:
    observed, targets = world(corpora=7)
    found = report(tmp_path, observed, targets)
    assert {t.task for t in found.targets.tasks} == {"macro", "x", "y"}
    table = {tuple(row[:6]): row[6] for row in observed}
    names = [f"c{c:02}" for c in range(7)]
    assert len(found.rows) == 2 * 4 * 2 * 4 * 3  # metrics, sizes, steps, seeds and their mean, tasks
    for row in found.rows:
        seeds = [0, 1, 2] if row.seed == "mean" else [int(row.seed)]
        tasks = ["x", "y"] if row.task == "macro" else [row.task]
        assert row.observed_tasks == tuple(tasks)
        keys = [[(n, row.size, s, row.step, t, row.metric) for s in seeds for t in tasks] for n in names]
        own = np.array([np.mean([table[key] for key in group]) for group in keys])
        goal = np.array([np.mean([r[4] for r in targets if r[0] == n and r[2] in tasks]) for n in names])
        sign = -1 if row.metric == "nll" else 1
        assert row.decision_accuracy == pytest.approx(decision_accuracy(sign * own, goal))
        assert row.ci_low <= row.decision_accuracy <= row.ci_high
        assert (row.seed_low is None) == (row.seed != "mean")


def test_a_macro_is_compared_with_the_mean_of_its_tasks(tmp_path: Path) -> None:
    observed = simple({"a": [3.0, 1.0], "b": [2.0, 1.5], "c": [1.0, 9.0], "d": [5.0]})
    found = report(
        tmp_path, observed, goals({"a": 0.3, "b": 0.4, "c": 0.2, "d": 0.1}, task="olmes_macro_avg")
    )
    row = find(found, seed="mean", task="olmes_macro_avg")
    assert row.observed_tasks == ("x", "y")
    assert (row.n_corpora, row.decision_accuracy) == (3, 1.0)  # d has no y
    assert any("the mean of 2 observed tasks (x, y) stands for them" in w for w in found.warnings)


def test_an_observed_macro_stands_for_a_target_macro_of_another_name(tmp_path: Path) -> None:
    observed = simple({"a": [3.0], "b": [2.0], "c": [1.0]})
    observed += [["abc"[i], "4M", 0, None, "all_avg", "nll", v] for i, v in enumerate([1.0, 3.0, 2.0])]
    found = report(tmp_path, observed, goals({"a": 0.1, "b": 0.2, "c": 0.3}, task="macro"))
    assert find(found, seed="mean").observed_tasks == ("all_avg",)


def test_missing_figure_has_its_reason(tmp_path: Path) -> None:
    observed = simple({"a": [3.0], "b": [2.0]}) + simple({"a": [1.0]}, size="8M")
    observed += simple({"z": [1.0]}, size="16M")
    found = report(tmp_path, observed, goals({"a": 0.1, "b": 0.2}))
    alone, nobody = find(found, size="8M", seed="mean"), find(found, size="16M", seed="mean")
    assert (alone.decision_accuracy, alone.n_pairs) == (None, 0)
    assert alone.reason.startswith("one corpus, a decision needs two")
    assert nobody.reason.startswith("no corpus has both this and a target")
    assert find(found, size="4M", seed="mean").spearman is None
    level = report(tmp_path, observed, goals({"a": 0.2, "b": 0.2}))
    row = find(level, size="4M", seed="mean")
    assert (row.decision_accuracy, row.n_ties) == (None, 1)
    assert "all of these corpora have the same target" in row.reason
    only = report(tmp_path, simple({"a": [3.0]}), goals({"a": 0.1}))
    assert "one corpus" in find(only, seed="mean").reason


def test_uneven_seeds_and_last_steps_have_a_warning(tmp_path: Path) -> None:
    observed = [
        [corpus, "8M", seed, step, "x", "nll", 3.0 - k]
        for k, corpus in enumerate("abc")
        for seed in (0, 1)
        for step in (10, 20 + k)
        if (corpus, seed) != ("a", 1)
    ]
    found = report(tmp_path, observed, goals({"a": 0.1, "b": 0.2, "c": 0.3}))
    own_last = find(found, step="final", seed="mean")
    assert (own_last.decision_accuracy, own_last.n_corpora) == (1.0, 3)
    assert find(found, step=20.0, seed="mean").n_corpora == 1
    assert any("fewer runs than the others for 1 of the corpora (a)" in w for w in found.warnings)


def test_given_means_serve_where_there_are_no_seeds(tmp_path: Path) -> None:
    found = report(tmp_path, simple({"a": [2.0], "b": [1.0]}, seed="mean"), goals({"a": 0.1, "b": 0.2}))
    (row,) = found.rows
    assert (row.seed, row.decision_accuracy, row.n_seeds) == ("mean", 1.0, None)


def test_the_ceiling_is_each_seed_against_the_others(tmp_path: Path) -> None:
    scores = {"s0": [1.0, 2.0, 3.0], "s1": [1.0, 3.0, 2.0], "s2": [2.0, 1.0, 3.0]}
    targets = [
        ["abc"[c], seed, "x", "accuracy", v] for seed, own in scores.items() for c, v in enumerate(own)
    ]
    found = report(tmp_path, simple({"a": [3.0], "b": [2.0], "c": [1.0]}), targets)
    (ceiling,) = found.ceilings
    # s0 against (1.5, 2, 2.5): all right; s1 against (1.5, 1.5, 3): ab is tied, ac right, bc wrong;
    # s2 against (1, 2.5, 2.5): bc is tied, ab wrong, ac right.
    assert ceiling.by_seed == {"s0": 1.0, "s1": 0.5, "s2": 0.5}
    assert ceiling.decision_accuracy == pytest.approx(2 / 3)
    assert find(found, seed="mean").n_ties == 0
    single = report(tmp_path, simple({"a": [3.0], "b": [2.0]}), goals({"a": 0.1, "b": 0.2}))
    assert single.ceilings[0].decision_accuracy is None
    assert "only their mean" in str(single.ceilings[0].reason)


COUNTED = (*OBS, "parameters", "active_parameters", "tokens", "scored_tokens")


def counted(rows: Rows, counts: dict[str, tuple[Any, ...]]) -> list[list[Any]]:
    """Rows with the counts of their sizes."""
    return [[*row, *counts[row[1]]] for row in rows]


def test_compute_fraction_counts_training_and_scoring(tmp_path: Path) -> None:
    both = simple({"a": [3.0, 1.0], "b": [2.0, 2.0]}, "small") + simple(
        {"a": [3.0, 1.0], "b": [2.0, 2.0]}, "large"
    )
    observed = counted(both, {"small": (100, 50, 1000, 20), "large": (1000, None, 10000, None)})
    targets = goals({"a": 0.1, "b": 0.2}) + goals({"a": 0.1, "b": 0.2}, "y")
    found = report(tmp_path, observed, targets, columns=COUNTED)
    target = 6 * 1000 * 10000
    small = find(found, size="small", task="x", seed="mean")
    assert small.compute_fraction == pytest.approx((6 * 50 * 1000 + 2 * 50 * 20) / target)
    macro = find(found, size="small", task="macro", seed="mean")
    assert macro.compute_fraction == pytest.approx((6 * 50 * 1000 + 2 * 50 * 40) / target)
    assert (macro.training_flops, macro.scoring_flops) == (6 * 50 * 1000, 2 * 50 * 40)
    assert find(found, size="large", task="x", seed="mean").compute_fraction == 1.0
    given = Given(
        parameters={"small": 10}, scored_tokens=5, target_size="large", expert_parameters=7, expert_tokens=3
    )
    found = report(tmp_path, observed, targets, dataclasses.replace(QUICK, given=given), columns=COUNTED)
    row = find(found, size="small", task="macro", seed="mean")
    assert row.compute_fraction == pytest.approx((6 * 10 * 1000 + 2 * 10 * 5) / target)
    assert found.accounting.expert_flops == 42


def test_the_targets_own_counts_come_first(tmp_path: Path) -> None:
    observed = counted(simple({"a": [3.0], "b": [2.0]}, "s"), {"s": (100, None, 1000, None)})
    targets = [[*row, "huge", 10**6, 10**8] for row in goals({"a": 0.1, "b": 0.2})]
    columns = (*TARGETS, "size", "parameters", "tokens")
    found = report(tmp_path, observed, targets, columns=COUNTED, target_columns=columns)
    assert found.accounting.target_size == "huge"
    assert find(found, seed="mean").compute_fraction == pytest.approx(1e5 / 1e14)


def test_unknown_sizes_have_no_fraction_and_say_why(tmp_path: Path) -> None:
    found = report(tmp_path, simple({"a": [3.0], "b": [2.0]}, "tiny"), goals({"a": 0.1, "b": 0.2}))
    row = find(found, seed="mean")
    assert (row.decision_accuracy, row.compute_fraction) == (1.0, None)
    assert "no parameters of this size" in row.reason
    assert found.frontiers["x"] == ()


def test_frontier_has_no_dominated_way(tmp_path: Path) -> None:
    observed, targets = world(corpora=9)
    tokens = {"10M": 1e9, "30M": 3e9, "100M": 1e10, "300M": 3e10}
    rows = [[*row, tokens[row[1]] * row[3] / 200] for row in observed]
    options = dataclasses.replace(QUICK, given=Given(target_size="300M"), budgets=(1e-9, 0.01))
    found = report(tmp_path, rows, targets, options, columns=(*OBS, "tokens"))
    for task, frontier in found.frontiers.items():
        assert frontier and all(point.way.size != "300M" for point in frontier)
        for way in found.ways[task]:
            if way.size != "300M" and way.cost < 1:
                dominated = any(
                    f.way.cost <= way.cost and f.way.accuracy >= way.accuracy - 1e-9 for f in frontier
                )
                assert dominated
        offered = [way for way in found.ways[task] if way.size != "300M"]
        for point in frontier:
            own = point.way
            assert not any(f.cost <= own.cost and f.accuracy > own.accuracy + 1e-9 for f in offered)
    nothing, chosen = (p for p in found.choices if p.task == "macro")
    assert nothing.way is None and chosen.way.cost <= 0.01
    affordable = [w for w in found.ways["macro"] if w.cost <= 0.01]
    assert chosen.way.accuracy == pytest.approx(max(w.accuracy for w in affordable))


def test_regret_by_hand() -> None:
    from forecast.analysis.corpora.pareto_frontier import Way

    goal = np.array([0.3, 0.5, 0.4])
    runs = np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 3.0]])  # the first puts c first, the second b and c
    way = Way("m", "s", None, 1, "proxy", 0.1, 0.5, runs)
    weights = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0], [1.0, 2.0, 0.0]])
    chooser = BudgetChooser("x", [way], goal, ["a", "b", "c"], weights)
    regret = chooser.regret_of(way)
    assert regret is not None
    assert regret.observed == pytest.approx((0.1 + 0.05) / 2)
    assert regret.resampled == pytest.approx(((0.1 + 0.05) / 2 + 0 + 0) / 3)
    assert (regret.best, regret.first) == ("b", ("c", "b"))
    assert regret.random == pytest.approx(0.1)
    chosen = chooser.choose(0.1)
    assert (chosen.way, chosen.chosen_again) == (way, 1.0)
    assert chosen.resampled_rechosen == pytest.approx(regret.resampled)
    assert chooser.choose(0.05).way is None


def test_metric_of_unknown_direction_is_on_no_frontier(tmp_path: Path) -> None:
    observed = simple({"a": [3.0], "b": [2.0], "c": [1.0]}, metric="entropy__uniform")
    found = report(tmp_path, observed, goals({"a": 0.1, "b": 0.2, "c": 0.3}))
    assert find(found, seed="mean").decision_accuracy == 0.0
    assert find(found, seed="mean").direction == "learned"
    assert found.ways["x"] == () and found.best == {}
    told = report(
        tmp_path,
        observed,
        goals({"a": 0.1, "b": 0.2, "c": 0.3}),
        CorporaOptions(lower=("entropy__uniform",), laws=False),
    )
    assert find(told, seed="mean").decision_accuracy == 1.0 and told.best


def test_an_input_embedding_is_no_compute(tmp_path: Path) -> None:
    """Untied: all parameters and the embedding; tied: the embedding is 0; as DataDecide's: neither."""
    columns = (*OBS, "parameters", "input_embedding", "tokens")
    counts = {"untied": (150, 50, 1000), "tied": (100, 0, 1000), "said": (100, None, 1000)}
    observed = [[*row, *counts[row[1]]] for size in counts for row in simple({"a": [3.0], "b": [2.0]}, size)]
    targets = [[*row, "huge", 1200, 200, 10**4] for row in goals({"a": 0.1, "b": 0.2})]
    wanted = (*TARGETS, "size", "parameters", "input_embedding", "tokens")
    found = report(tmp_path, observed, targets, columns=columns, target_columns=wanted)
    assert {find(found, size=size, seed="mean").compute_fraction for size in counts} == {100 * 1e3 / 1e7}


def test_ranking_without_calibration_says_why(tmp_path: Path) -> None:
    observed, targets = world(corpora=6)
    level = [[*row[:4], 0.5] for row in targets]
    for rows, options, words in (
        (targets, dataclasses.replace(QUICK, bootstraps=0), "without resamples"),
        (level, QUICK, "different targets"),
        ([row for row in targets if row[0] < "c03"], QUICK, "3 corpora have a target, 5 are needed"),
    ):
        ranking = report(tmp_path, observed, rows, options).ranking
        assert ranking is not None and ranking.over == "seeds"
        assert words in str(ranking.reason)
