"""Records count what stands in the lake; what is unknown is null."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from lakes import config_of, fill, solutions, tell

from forecast.analysis.ranking.report import rank_record
from forecast.analysis.ranking.single_proxy import rank_candidates
from forecast.errors import InputError
from forecast.plan import Failure, Plan, estimated_tokens, make_plan
from forecast.runs.records import load_failures, plan_record, save_failures, score_record
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse
from forecast.warehouse.population import load_population

TASKS = {"t": solutions(*"abc"), "u": solutions("a")}
CHOICES = {"c": [{"id": "1", "prompt": "p", "options": ["x", "y"], "answer": 0}]}


def plan_of(folder: Path, **candidates: str) -> Plan:
    return make_plan(
        config_of(
            folder, TASKS, candidates or {"a": "fake://1", "b": "fake://2"}, CHOICES, shard_trajectories=2
        )
    )


def test_plan_record_counts_work_done_and_left(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    fill(plan, only=["a"])
    sized = plan.candidates[1]
    settings = sized.settings.model_copy(update={"active_parameters": 50})
    plan = replace(
        plan,
        units=tuple(
            replace(u, candidate=replace(sized, settings=settings)) if u.candidate is sized else u
            for u in plan.units
        ),
    )
    record = plan_record(plan)
    assert (record["units"], record["done"]) == (8, 4)
    assert record["tasks"] == {"t": 3, "u": 1}
    assert record["direct_evaluation"] == {"c": 1}
    a, b = record["candidates"]
    assert (a["units"], a["done"], a["estimated_tokens"], a["estimated_flops"]) == (4, 4, 0, 0)
    left = sum(estimated_tokens(u.shard) for u in plan.units if u.candidate.name == "b")
    assert (b["units"], b["done"], b["estimated_tokens"], b["estimated_flops"]) == (4, 0, left, 2 * 50 * left)
    assert a["parameters"] is None
    assert record["failed"] == []
    json.dumps(record, allow_nan=False)


def test_unknown_parameters_are_null_not_zero(tmp_path: Path) -> None:
    record = plan_record(plan_of(tmp_path))
    assert [(c["parameters"], c["estimated_flops"]) for c in record["candidates"]] == [(None, None)] * 2


def test_score_record_counts_the_lake(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    tell(
        replace(plan, units=tuple(u for u in plan.units if u.candidate.name == "a")),
        lambda _, t: "too long" if t.instance_id == "b" else [{}, {}],
    )
    known = Failure("candidate", "b", "its weights are missing")
    record = score_record(plan, [known])
    assert (record["units"], record["done"], record["rows"]) == (6, 3, 6)
    assert [(c["candidate"], c["units"], c["done"], c["rows"]) for c in record["candidates"]] == [
        ("a", 3, 3, 6),
        ("b", 3, 0, 0),
    ]
    assert record["direct_evaluation"] == {"path": plan.folder("choices"), "units": 2, "done": 1, "rows": 4}
    assert (record["tokens_read"], record["scoring_seconds"]) == (40, 2.0)
    assert record["failed"][0] == {"candidate": "b", "error": "its weights are missing"}
    assert record["failed"][1]["instance_id"] == "b" and len(record["failed"]) == 2


def test_two_names_of_one_model_count_the_same_files(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, a="fake://1", alias="fake://1")
    fill(plan)
    record = score_record(plan, [])
    assert [c["rows"] for c in record["candidates"]] == [record["rows"]] * 2


def test_rank_record_is_the_ranking(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, **{name: f"fake://{i}" for i, name in enumerate("abcd")})
    fill(plan)
    build_warehouse(plan)
    with open_warehouse(plan.config.output) as db:
        ranking = rank_candidates(load_population(db), plan.config.ranking)
    failed = [{"candidate": "e", "error": "no weights"}]
    record = json.loads(json.dumps(rank_record(ranking, failed), allow_nan=False))
    assert [c["candidate"] for c in record["candidates"]] == [s.candidate for s in ranking.standings]
    assert record["candidates"][0]["parameters"] == 1000
    assert record["instances"] == {"t": 3, "u": 1}
    assert record["failed"] == failed
    (target,) = record["targets"]
    assert (target["target"], target["n_candidates"], target["n_items"]) == ("c", 4, 1)
    assert len(target["correlations"]) == 80
    assert target["correlations"][0] == target["plain_cross_entropy"]
    assert {c["ci_low"] for c in target["correlations"]} == {None}, "one item has no interval"
    if target["best"] is not None:
        assert target["best"] in target["correlations"]


def test_failures_are_kept_for_as_long_as_they_concern_the_same_candidates(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    failures = [Failure("candidate", "a", "NaN at token 3"), Failure("candidate", "b", "given up", "t", "7")]
    save_failures(plan, failures)
    assert load_failures(plan) == failures
    changed = plan_of(tmp_path, a="fake://9", b="fake://2")
    assert load_failures(changed) == failures[1:], "the candidate by the name of a is another one now"
    removed = plan_of(tmp_path, b="fake://2")
    assert load_failures(removed) == failures[1:]


def test_failures_of_the_plan_are_asked_of_the_plan(tmp_path: Path) -> None:
    config = config_of(tmp_path, TASKS, {"a": "fake://1"})
    (tmp_path / "solutions-u.jsonl").unlink()
    plan = make_plan(config)
    save_failures(plan, plan.failures)
    assert load_failures(plan) == list(plan.failures)
    (tmp_path / "solutions-u.jsonl").write_text(json.dumps(TASKS["u"][0]) + "\n")
    assert load_failures(make_plan(config)) == [], "a task that was put right has not failed"


def test_no_failures_yet(tmp_path: Path) -> None:
    assert load_failures(plan_of(tmp_path)) == []


@pytest.mark.parametrize("content", [b"", b"[", b"{}x", b'["a"]', b'[{"name": "a"}]', b"7"])
def test_a_damaged_file_of_failures_is_named(tmp_path: Path, content: bytes) -> None:
    plan = plan_of(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "failures.json").write_bytes(content)
    with pytest.raises(InputError, match=r"failures\.json"):
        load_failures(plan)


def test_score_record_names_damaged_files_and_counts_the_others(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    fill(plan)
    whole = score_record(plan, [])
    victim = plan.units[0]
    Path(plan.path(victim)).write_bytes(b"torn")
    record = score_record(plan, [])
    assert (whole["failed"], record["units"], record["done"]) == ([], whole["units"], whole["done"] - 1)
    (failed,) = record["failed"]
    assert failed["candidate"] == victim.candidate.name and plan.path(victim) in failed["error"]
