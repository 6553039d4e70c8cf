"""Building the warehouse: aggregation, direct evaluation, who takes part, what is left out and said so."""

import json
import math
import random
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from lakes import config_of, fill, solutions, tell

from forecast.config.schema import Config
from forecast.errors import NoDataError
from forecast.inputs.trajectories import Trajectory
from forecast.plan import Failure, Plan, Unit, make_plan
from forecast.proxies.token_proxies import PROXIES
from forecast.tokenstats.version import STATISTICS_VERSION
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse

TWO = {"a": "fake://1", "b": "fake://2"}


def query(plan: Plan, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with open_warehouse(plan.config.output) as db:
        return db.execute(sql, values).fetchall()


def table(plan: Plan, name: str, *columns: str) -> list[tuple[Any, ...]]:
    return query(plan, f"SELECT {', '.join(columns)} FROM {name} ORDER BY ALL")


def costs(*values: float) -> list[Mapping[str, float]]:
    """Tokens with these cross-entropies."""
    return [{"logprob": -value} for value in values]


# --- aggregation


def test_means_over_instances_then_over_experts_with_both_spreads(tmp_path: Path) -> None:
    told = {("x", "1"): 1.0, ("x", "2"): 2.0, ("x", "3"): 6.0, ("y", "1"): 5.0}
    tasks = {"t": [*solutions("1", "2", "3", expert="x"), *solutions("1", expert="y")]}
    plan = make_plan(config_of(tmp_path, tasks, {"a": "fake://1"}))
    tell(plan, lambda _, t: costs(told[t.expert, t.instance_id]))
    build_warehouse(plan)
    where = "WHERE proxy = 'cross_entropy__uniform' ORDER BY ALL"
    assert query(plan, f"SELECT expert, value, instance_sd, n_instances FROM expert_proxies {where}") == [
        ("x", 3.0, pytest.approx(math.sqrt(7)), 3),
        ("y", 5.0, None, 1),  # one instance has no spread: null, not 0
    ]
    assert query(plan, f"SELECT value, expert_sd, n_experts, n_instances FROM task_proxies {where}") == [
        (4.0, pytest.approx(math.sqrt(2)), 2, 4)
    ]
    assert len(table(plan, "task_proxies", "proxy")) == 80


def test_one_expert_has_no_spread(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("1", "2")}, {"a": "fake://1"}))
    fill(plan)
    build_warehouse(plan)
    assert query(plan, "SELECT DISTINCT expert_sd, n_experts FROM task_proxies") == [(None, 1)]


# --- the same lake gives the same tables


def test_bits_do_not_depend_on_files_their_order_or_the_order_of_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    told: dict[tuple[str, str, str, str], list[Mapping[str, float]]] = {}

    def tokens(unit: Unit, t: Trajectory) -> list[Mapping[str, float]]:
        key = (unit.candidate.name, t.task, t.instance_id, t.expert)
        if key not in told:
            told[key] = [
                {
                    "logprob": -rng.exponential(),
                    "entropy": rng.random() * 6,
                    "rank": int(rng.integers(1, 50)),
                    "token_id": i % 7,
                }
                for i in range(300)
            ]
        return told[key]

    tasks = {"t": [*solutions(*"abcdefg"), *solutions(*"abc", expert="x")], "u": solutions("a")}
    choices = {
        "c": [{"id": str(i), "prompt": "p", "options": ["one", "two"], "answer": i % 2} for i in range(5)]
    }
    plans = []
    for name, shards in (("first", 4), ("again", 4), ("other-files", 1)):
        plan = make_plan(config_of(tmp_path / name, tasks, TWO, choices, shard_trajectories=shards))
        tell(plan, tokens)
        plans.append(plan)
    other = plans[2]
    plans[2] = replace(other, units=tuple(random.Random(0).sample(other.units, len(other.units))))
    for unit in other.units:  # and the rows within the files in any order
        path = Path(other.path(unit))
        file = pl.read_parquet(path)
        metadata = pl.read_parquet_metadata(path)
        file.sample(fraction=1, shuffle=True, seed=1).write_parquet(
            path, metadata={"forecast": metadata["forecast"]}
        )
    found = []
    for plan in plans:
        build_warehouse(plan)
        tables = (
            "instance_proxies",
            "expert_proxies",
            "task_proxies",
            "byte_instance_proxies",
            "byte_task_proxies",
            "bits_per_byte",
            "choice_results",
            "measured",
            "candidates",
        )
        found.append({name: query(plan, f"FROM {name}") for name in tables})
    assert len(found[0]["instance_proxies"]) == 2 * 11
    assert found[0] == found[1]  # equal as Python floats: to the bit
    assert found[0] == found[2]


# --- direct evaluation


def test_the_best_option_per_character_is_the_answer_and_ties_share(tmp_path: Path) -> None:
    items = [
        {"id": "short wins", "prompt": "p", "options": ["ab", "abcd"], "answer": 0},
        {"id": "tie of two", "prompt": "p", "options": ["ab", "cd", "ef"], "answer": 1},
        {"id": "tie elsewhere", "prompt": "p", "options": ["ab", "cd", "ef"], "answer": 2},
        {"id": "tie of all", "prompt": "p", "options": ["ab", "cd", "ef", "gh"], "answer": 3},
    ]
    logprobs = {
        "short wins": [
            [-1.0, -1.0],
            [-3.0, -2.0],
        ],  # -1 and -1.25 a character: the sums alone, -2 and -5, agree
        "tie of two": [[-1.0], [-0.5, -0.5], [-4.0]],
        "tie elsewhere": [[-1.0], [-1.0], [-4.0]],
        "tie of all": [[-1.0], [-1.0], [-1.0], [-1.0]],
    }
    items.append({"id": "long wins", "prompt": "p", "options": ["ab", "abcd"], "answer": 1})
    logprobs["long wins"] = [
        [-2.0],
        [-2.4],
    ]  # by the sum the short one would win, by the character it does not
    plan = make_plan(config_of(tmp_path, {"t": solutions("1")}, {"a": "fake://1"}, {"c": items}))

    def told(_: Unit, t: Trajectory) -> list[Mapping[str, float]]:
        if t.task == "t":
            return costs(1.0)
        return [{"logprob": value} for value in logprobs[t.instance_id][int(t.expert)]]

    tell(plan, told)
    build_warehouse(plan)
    assert table(plan, "choice_results", "instance_id", "correct", "first_choice", "answer") == [
        ("long wins", 1.0, 1, 1),
        ("short wins", 1.0, 0, 0),
        ("tie elsewhere", 0.0, 0, 2),
        ("tie of all", 0.25, 0, 3),
        ("tie of two", 0.5, 0, 1),
    ]
    correct = [1.0, 1.0, 0.0, 0.25, 0.5]
    assert table(plan, "measured", "candidate", "task", "metric", "value", "stderr", "n_items", "source") == [
        (
            "a",
            "c",
            "accuracy_per_character",
            pytest.approx(statistics.fmean(correct)),
            pytest.approx(statistics.stdev(correct) / math.sqrt(5)),
            5,
            "direct evaluation",
        )
    ]


def test_one_item_has_no_standard_error(tmp_path: Path) -> None:
    items = [{"id": "1", "prompt": "p", "options": ["x", "y"], "answer": 0}]
    plan = make_plan(config_of(tmp_path, {"t": solutions("1")}, TWO, {"c": items}))
    fill(plan)
    build_warehouse(plan)
    assert [row[1:] for row in table(plan, "measured", "candidate", "stderr", "n_items")] == [
        (None, 1),
        (None, 1),
    ]


def test_an_item_with_an_unread_option_is_left_out_for_all(tmp_path: Path) -> None:
    items = [{"id": i, "prompt": "p", "options": ["x", "y"], "answer": 0} for i in ("1", "2")]
    plan = make_plan(config_of(tmp_path, {"t": solutions("1")}, TWO, {"c": items}))

    def told(unit: Unit, t: Trajectory) -> list[Mapping[str, float]] | str:
        unread = unit.candidate.name == "b" and t.task == "c" and (t.instance_id, t.expert) == ("2", "1")
        return "no token starts inside the solution" if unread else costs(1.0)

    tell(plan, told)
    (failure,) = build_warehouse(plan)
    assert (failure.name, failure.task, failure.instance_id) == ("b", "c", "2")
    assert table(plan, "choice_results", "instance_id") == [("1",), ("1",)]
    assert table(plan, "unscored", "kind", "candidate", "task", "expert", "instance_id") == [
        ("choices", "b", "c", "1", "2")
    ]


# --- who takes part


def test_instances_that_one_candidate_could_not_read_are_left_out_for_all(tmp_path: Path) -> None:
    tasks = {"t": [*solutions("1", "2", expert="x"), *solutions("1", "2", expert="y")]}
    plan = make_plan(config_of(tmp_path, tasks, TWO))

    def told(unit: Unit, t: Trajectory) -> list[Mapping[str, float]] | str:
        if (unit.candidate.name, t.expert, t.instance_id) == ("b", "y", "1"):
            return "4000 tokens do not fit the context of 2048"
        return [{"logprob": -1.0, "token_id": 1 if t.instance_id == "1" and t.expert == "y" else 2}]

    tell(plan, told)
    (failure,) = build_warehouse(plan)
    assert failure.as_record() == {
        "candidate": "b",
        "task": "t",
        "instance_id": "1",
        "error": "candidate 'b', task 't', instance '1': 4000 tokens do not fit the context of 2048",
    }
    read = [("x", "1"), ("x", "2"), ("y", "2")]
    assert table(plan, "instance_proxies", "expert", "instance_id") == sorted(read * 2)
    assert table(plan, "unscored", "candidate", "expert", "instance_id") == [("b", "y", "1")]
    assert query(plan, "SELECT status, error FROM candidates ORDER BY place") == [("complete", None)] * 2


def test_frequencies_count_only_the_instances_that_take_part(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("1", "2")}, TWO))

    def told(unit: Unit, t: Trajectory) -> list[Mapping[str, float]] | str:
        if t.instance_id == "2":
            return "too long" if unit.candidate.name == "b" else [{"token_id": 1}] * 98
        return [{"token_id": 1, "logprob": -1.0}, {"token_id": 2, "logprob": -3.0}]

    tell(plan, told)
    build_warehouse(plan)
    weighted = {row[0] for row in table(plan, "instance_proxies", "cross_entropy__frequency")}
    assert weighted == {2.0}, "both token types are equally frequent among what was read by both candidates"


def test_a_candidate_that_can_read_nothing_of_a_task_is_set_aside(tmp_path: Path) -> None:
    tasks = {"long": solutions("1", "2"), "short": solutions("1")}
    plan = make_plan(config_of(tmp_path, tasks, {**TWO, "tiny": "fake://3"}))
    tell(plan, lambda u, t: "too long" if (u.candidate.name, t.task) == ("tiny", "long") else costs(1.0))
    (failure,) = build_warehouse(plan)
    assert (failure.subject, failure.name, failure.task) == ("candidate", "tiny", None)
    assert "none of the 2 instances of task 'long'" in failure.error and "too long" in failure.error
    assert query(plan, "SELECT candidate, status, error FROM candidates ORDER BY place") == [
        ("a", "complete", None),
        ("b", "complete", None),
        ("tiny", "failed", failure.error),
    ]
    assert len(table(plan, "instance_proxies", "task")) == 2 * 3, "the others keep all their texts"


def test_a_task_of_which_no_instance_was_read_by_all_is_named(tmp_path: Path) -> None:
    tasks = {"t": solutions("1", "2"), "u": solutions("1")}
    plan = make_plan(config_of(tmp_path, tasks, TWO))
    unread = {("a", "1"), ("b", "2")}
    tell(
        plan,
        lambda u, t: "no" if t.task == "t" and (u.candidate.name, t.instance_id) in unread else costs(1.0),
    )
    failures = build_warehouse(plan)
    assert [(f.subject, f.name) for f in failures] == [("candidate", "a"), ("candidate", "b"), ("task", "t")]
    assert "none of its 2 instances was read by every candidate" in failures[2].error
    assert table(plan, "instance_proxies", "task") == [("u",), ("u",)]


def test_incomplete_and_failed_candidates_have_a_reason_and_no_numbers(tmp_path: Path) -> None:
    names = {"done": "fake://1", "open": "fake://2", "given up": "fake://3", "absent": "/nowhere/model"}
    choices = {"c": [{"id": "1", "prompt": "p", "options": ["x", "y"], "answer": 0}]}
    config = config_of(tmp_path, {"t": solutions(*"123")}, names, choices, shard_trajectories=2)
    plan = make_plan(config)
    plan = replace(
        plan,
        candidates=plan.candidates[:3],
        units=tuple(u for u in plan.units if u.candidate.name != "absent"),
    )
    absent = Failure("candidate", "absent", "candidate 'absent': no model folder at /nowhere/model")
    fill(plan, only=["done"])
    one = next(unit for unit in plan.units if unit.candidate.name == "open")
    fill(replace(plan, units=(one,)))
    failures = [absent, Failure("candidate", "given up", "its numbers are NaN")]
    assert build_warehouse(plan, failures) == failures
    assert query(
        plan, "SELECT candidate, status, error, vocab_size, device FROM candidates ORDER BY place"
    ) == [
        ("done", "complete", None, 512, "none"),
        ("open", "incomplete", "2 of 3 units are not scored yet", None, None),
        ("given up", "failed", "its numbers are NaN", None, None),
        ("absent", "failed", absent.error, None, None),
    ]
    (done,) = query(plan, "SELECT candidate_id FROM candidates WHERE status = 'complete'")
    for name in ("instance_proxies", "expert_proxies", "task_proxies", "choice_results"):
        assert query(plan, f"SELECT DISTINCT candidate_id FROM {name}") == [done], name
    assert query(plan, "SELECT DISTINCT candidate FROM measured") == [("done",)]
    assert query(plan, "SELECT count(*) FROM units") == [(3,)]


def test_a_failure_that_a_candidate_has_outlived_is_gone(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("1")}, TWO))
    fill(plan)
    stale, lasting = Failure("candidate", "a", "the disk was full"), Failure("task", "u", "no such file")
    assert build_warehouse(plan, [stale, lasting]) == [lasting]
    assert query(plan, "SELECT DISTINCT status FROM candidates") == [("complete",)]


def test_two_names_of_one_model_share_its_rows(tmp_path: Path) -> None:
    plan = make_plan(
        config_of(tmp_path, {"t": solutions("1")}, {"a": "fake://1", "alias": "fake://1", "b": "fake://2"})
    )
    fill(plan)
    build_warehouse(plan)
    rows = query(
        plan,
        "SELECT candidate, status FROM candidates JOIN instance_proxies USING (candidate_id) ORDER BY place",
    )
    assert rows == [("a", "complete"), ("alias", "complete"), ("b", "complete")]
    assert query(plan, "SELECT count(*) FROM instance_proxies") == [(2,)]


# --- measured scores


def test_measured_scores_are_imported_and_nothing_is_filled_in(tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("candidate,task,metric,value,stderr\na,exam,accuracy,0.5,0.01\nb,exam,accuracy,0.25,\n")
    sources = [{"format": "csv", "path": str(scores)}]
    plan = make_plan(config_of(tmp_path, {"t": solutions("1")}, TWO, measured_scores=sources))
    fill(plan)
    assert build_warehouse(plan) == []
    assert table(plan, "measured", "*") == [
        ("a", "exam", "accuracy", 0.5, 0.01, None, str(scores)),
        ("b", "exam", "accuracy", 0.25, None, None, str(scores)),
    ]


def test_a_bad_or_contradicting_score_file_is_named_and_the_others_count(tmp_path: Path) -> None:
    for name, row in (
        ("good", "a,exam,accuracy,0.5"),
        ("twice", "a,exam,accuracy,0.6"),
        ("bad", "who,exam,accuracy,1"),
    ):
        (tmp_path / f"{name}.csv").write_text(f"candidate,task,metric,value\n{row}\n")
    sources = [{"format": "csv", "path": str(tmp_path / f"{name}.csv")} for name in ("good", "twice", "bad")]
    plan = make_plan(config_of(tmp_path, {"t": solutions("1")}, TWO, measured_scores=sources))
    fill(plan)
    twice, bad = build_warehouse(plan, plan.failures)
    assert (twice.subject, twice.name) == ("measured_scores", str(tmp_path / "twice.csv"))
    assert "a / exam / accuracy is also in" in twice.error and "good.csv" in twice.error
    assert "who" in bad.error and "bad.csv:2" in bad.error
    assert table(plan, "measured", "candidate", "value") == [("a", 0.5)]
    assert [row[0] for row in query(plan, "SELECT error FROM failures ORDER BY place")] == [
        twice.error,
        bad.error,
    ]


# --- no data


def test_nothing_scored_yet(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("1")}, TWO))
    with pytest.raises(NoDataError, match="forecast score"):
        build_warehouse(plan)
    assert not (tmp_path / "out").exists()


def test_units_of_an_earlier_version_are_not_read_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, {"t": solutions("a")}, {"a": "fake://1"})
    with monkeypatch.context() as earlier:
        earlier.setattr("forecast.plan.STATISTICS_VERSION", STATISTICS_VERSION - 1)
        fill(make_plan(config))
    plan = make_plan(config)
    assert not plan.done()
    with pytest.raises(NoDataError, match=r"forecast score.*earlier version"):
        build_warehouse(plan)
    fill(plan)
    assert plan.done()


def test_every_candidate_failed(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("1")}, TWO))
    tell(plan, lambda *_: "too long for it")
    with pytest.raises(
        NoDataError, match=r"candidate 'a' could read none of the 1 instances.*too long for it"
    ):
        build_warehouse(plan)


def test_no_task_could_be_loaded_but_options_were_scored(tmp_path: Path) -> None:
    choices = {"c": [{"id": "1", "prompt": "p", "options": ["x", "y"], "answer": 0}]}
    config = config_of(tmp_path, {"t": solutions("1")}, TWO, choices)
    (tmp_path / "solutions-t.jsonl").write_text("no JSON\n")
    plan = make_plan(config)
    fill(plan)
    (failure,) = build_warehouse(plan, plan.failures)
    assert failure.subject == "task"
    for name in ("instance_proxies", "expert_proxies", "task_proxies"):
        assert query(plan, f"FROM {name}") == []
    assert len(table(plan, "measured", "candidate")) == 2


def test_addresses_to_deliver_to_are_not_kept(tmp_path: Path) -> None:
    nightly = {
        "watch": [{"run": "r", "hub": "o/r"}],
        "deliver": [{"webhook": "https://chat.example/SECRET"}, {"command": ["post", "SECRET"]}],
    }
    plan = make_plan(config_of(tmp_path, {"t": solutions("1")}, TWO, nightly=nightly))
    fill(plan)
    build_warehouse(plan)
    ((config,),) = query(plan, "SELECT config FROM run")
    assert "SECRET" not in config and Config.model_validate_json(config).nightly is not None


def test_tables_are_there_without_options_and_scores(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("1")}, TWO))
    fill(plan)
    build_warehouse(plan)
    for name in ("choice_items", "choice_results", "measured", "unscored", "failures"):
        assert query(plan, f"FROM {name}") == []
    (run,) = query(plan, 'SELECT name, "window", lake FROM run')
    assert run == ("test", "last-1000-tokens", str(tmp_path / "out" / "lake"))
    assert len(query(plan, "FROM instance_proxies")[0]) == 7 + len(PROXIES)


# --- damage


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "harm", ["truncated", "emptied", "footer", "page", "foreign", "misplaced", "not a number"]
)
def test_a_damaged_file_spoils_its_candidate_alone(tmp_path: Path, harm: str) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions(*"abcdef")}, TWO, shard_trajectories=3))
    fill(plan)
    build_warehouse(plan)
    served = tmp_path / "out" / "warehouse.duckdb"
    victim = Path(plan.path(plan.units[2]))
    if harm == "truncated":
        victim.write_bytes(victim.read_bytes()[:-100])
    elif harm == "emptied":
        victim.write_bytes(b"")
    elif harm == "footer":
        _flip(victim, victim.stat().st_size - 40)
    elif harm == "page":
        _flip(victim, victim.read_bytes().index(b"\x28\xb5\x2f\xfd") + 12)  # inside the first zstd frame
    elif harm == "foreign":
        pl.DataFrame({"x": [1]}).write_parquet(victim)
    elif harm == "misplaced":
        victim.write_bytes(Path(plan.path(plan.units[3])).read_bytes())
    else:
        metadata = pl.read_parquet_metadata(victim)["forecast"]
        broken = pl.read_parquet(victim).with_columns(logprob=pl.lit(math.nan, pl.Float32))
        broken.write_parquet(victim, metadata={"forecast": metadata})
    alone = make_plan(
        config_of(tmp_path, {"t": solutions(*"abcdef")}, {"a": "fake://1"}, shard_trajectories=3)
    )
    (failure,) = build_warehouse(plan)
    assert (failure.subject, failure.name) == ("candidate", "b")
    assert victim.name in failure.error and "delete it and run `forecast score` again" in failure.error
    found = table(plan, "task_proxies", "candidate_id", "proxy", "value")
    assert found and {row[0] for row in found} == {plan.candidates[0].candidate_id}
    build_warehouse(alone)
    assert table(alone, "task_proxies", "candidate_id", "proxy", "value") == found
    assert [p.name for p in served.parent.iterdir() if p.is_file()] == [served.name], "no temporary is left"
    victim.unlink()
    fill(plan)
    assert build_warehouse(plan) == []


def test_damage_of_every_candidate_leaves_the_served_file(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("a", "b")}, TWO, shard_trajectories=1))
    fill(plan)
    build_warehouse(plan)
    served = tmp_path / "out" / "warehouse.duckdb"
    before = served.read_bytes()
    for unit in plan.units:
        Path(plan.path(unit)).write_bytes(b"")
    with pytest.raises(NoDataError, match=r"(?s)'a' is left out: .*1 more of its files.*'b' is left out"):
        build_warehouse(plan)
    assert served.read_bytes() == before


@pytest.mark.parametrize("parameters", [2**63, 10**40, -1])
def test_a_count_of_parameters_that_no_table_holds_costs_its_candidate_alone(
    tmp_path: Path, parameters: int
) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("1", "2")}, TWO))
    fill(plan)
    path = plan.path(plan.units[0])
    metadata = json.loads(pl.read_parquet_metadata(path)["forecast"])
    own = {**metadata, "parameters": parameters}
    del own["checksum"]
    pl.read_parquet(path).write_parquet(path, metadata={"forecast": json.dumps(own)})
    (failure,) = build_warehouse(plan)
    assert (failure.subject, failure.name) == ("candidate", "a") and "parameters" in failure.error
    assert table(plan, "candidates", "candidate", "status") == [("a", "failed"), ("b", "complete")]
