"""Baselines that a run brings along: rBridge from frontier tokens, cross-entropy on generic text."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lakes import config_of, solutions, tell

from forecast.analysis.ranking.feature_table_from_run import cells_of
from forecast.analysis.ranking.single_proxy import rank_candidates
from forecast.config.schema import Config, RankingConfig
from forecast.plan import Plan, make_plan
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse
from forecast.warehouse.population import load_population

THREE = {name: f"fake://{k + 1}" for k, name in enumerate("abc")}
LOSS = {"a": 1.0, "b": 2.0, "c": 4.0}


def plan_of(folder: Path, rows: list[dict[str, Any]], **generic: Any) -> Plan:
    """A task `t` with a column of frontier tokens, and perhaps generic text `web`."""
    tasks = {"t": rows, **({"web": solutions("1", "2")} if generic else {})}
    config = config_of(folder, tasks, THREE).model_dump(mode="json")
    config["trajectories"][0]["columns"]["frontier_tokens"] = "frontier"
    if generic:
        config["trajectories"][1].update(generic)
    scores = folder / "scores.csv"
    lines = [f"{name},t,acc,{0.9 - 0.1 * k}" for k, name in enumerate(THREE)]
    scores.write_text("\n".join(["candidate,task,metric,value", *lines]) + "\n")
    config["measured_scores"] = [{"format": "csv", "path": str(scores)}]
    return make_plan(Config.model_validate(config))


def read(plan: Plan) -> dict[str, np.ndarray]:
    """Covariates of the run's cells, by name: [candidates] of the one task."""
    with open_warehouse(plan.config.output) as db:
        table = cells_of(load_population(db), RankingConfig()).imported.table
    assert table.covariate_values is not None
    return {name: table.covariate_values[0, :, k] for k, name in enumerate(table.covariates)}


def frontier(*pieces: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"text": text, "prob": prob} for text, prob in pieces]


def test_rbridge_is_the_mean_over_instances_of_weighted_losses(tmp_path: Path) -> None:
    """By hand: two tokens of two letters; weights 0 and 1 after min-max, so half of the second's loss."""
    rows = [
        {**solutions("1", text="abcd")[0], "frontier": frontier(("ab", 0.2), ("cd", 0.8))},
        {**solutions("2", text="abcd")[0], "frontier": frontier(("a", 0.9), ("bcd", 0.3))},
    ]
    plan = plan_of(tmp_path, rows)
    tell(plan, lambda unit, t: [{"logprob": -LOSS[unit.candidate.name], "n_bytes": 2}] * 2)
    assert build_warehouse(plan) == []
    # First: weights 0, 1. Second: letters a .9, b .3 -> .6 and .3 -> weights 1, 0. Both: loss / 2.
    found = read(plan)
    np.testing.assert_allclose(found["rBridge"], [0.5, 1.0, 2.0])
    np.testing.assert_allclose(found["plain cross-entropy"], [1.0, 2.0, 4.0])


def test_a_bad_column_is_named_with_its_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows = [
        {**solutions("1", text="abcd")[0], "frontier": frontier(("ab", 0.2), ("cd", 0.8))},
        {**solutions("2", text="abcd")[0], "frontier": frontier(("ab", 0.2), ("xd", 0.8))},
    ]
    plan = plan_of(tmp_path, rows)
    tell(plan, lambda unit, t: [{"logprob": -1.0, "n_bytes": 2}] * 2)
    (failure,) = build_warehouse(plan, plan.failures)
    assert (failure.subject, failure.name) == ("task", "t")
    assert "solutions-t.jsonl:2: frontier token 2" in failure.error
    assert "rBridge" not in read(plan)


def test_generic_text_is_a_baseline_pooled_over_its_tokens_and_no_feature(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [{**row, "frontier": None} for row in solutions("1")], generic=True)
    plan = make_plan(
        plan.config.model_copy(
            update={
                "trajectories": tuple(
                    source.model_copy(
                        update={"columns": source.columns.model_copy(update={"frontier_tokens": None})}
                    )
                    for source in plan.config.trajectories
                )
            }
        )
    )
    # The first text has one token of 2 bytes, the second three of 4 bytes.
    tell(
        plan,
        lambda unit, t: (
            [{"logprob": -LOSS[unit.candidate.name], "n_bytes": 2}]
            if t.instance_id == "1"
            else [{"logprob": -2 * LOSS[unit.candidate.name], "n_bytes": 4}] * 3
        ),
    )
    assert build_warehouse(plan) == []
    with open_warehouse(plan.config.output) as db:
        population = load_population(db)
    assert set(population.proxies) == {"t"}
    found = read(plan)
    loss = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(found["generic text, nats per token"], 7 * loss / 4)
    np.testing.assert_allclose(found["generic text, bits per byte"], 7 * loss / math.log(2) / 14)


@pytest.mark.parametrize("alike", [False, True])
def test_proxies_are_over_bytes_by_default_where_tokenizers_differ(tmp_path: Path, alike: bool) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("1", "2")}, {"a": "fake://1", "b": "fake://2"}))
    cut = {
        "a": (1, 2.0),
        "b": (1, 1.5) if alike else (2, 3.0),
    }  # bytes and nats of a token; 4 bytes in all
    tell(
        plan,
        lambda unit, t: (
            [{"logprob": -cut[unit.candidate.name][1], "n_bytes": cut[unit.candidate.name][0]}]
            * (4 // cut[unit.candidate.name][0])
        ),
    )
    build_warehouse(plan)
    with open_warehouse(plan.config.output) as db:
        tokens, by_bytes, auto = (load_population(db, over) for over in ("tokens", "bytes", "auto"))
    assert (auto.over, auto.tokenizations) == (("tokens", 1) if alike else ("bytes", 2))
    np.testing.assert_allclose(tokens.proxies["t"].means()[:, 0], [2.0, cut["b"][1]])
    np.testing.assert_allclose(by_bytes.proxies["t"].means()[:, 0], [2.0, 1.5])
    chosen = tokens if alike else by_bytes
    np.testing.assert_array_equal(auto.proxies["t"].means(), chosen.proxies["t"].means())
    said = rank_candidates(auto, RankingConfig()).warnings
    assert any("over bytes, which compare" in text for text in said) == (not alike)
    loud = rank_candidates(tokens, RankingConfig()).warnings
    assert any("rank with --over bytes" in text for text in loud) == (not alike)


def test_a_missing_column_is_said(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, list(solutions("1")))
    tell(plan, lambda unit, t: [{"logprob": -1.0, "n_bytes": 1}])
    (failure,) = build_warehouse(plan, plan.failures)
    assert "no column 'frontier'" in failure.error
    with pytest.raises(KeyError):
        read(plan)["rBridge"]
