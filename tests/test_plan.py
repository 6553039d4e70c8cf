"""The plan: pure, and addressed by what shapes the numbers and by nothing else."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lakes import config_of, fill, solutions

from forecast.config.schema import Config
from forecast.plan import Plan, Unit, estimated_flops, estimated_tokens, joint_units, make_plan

TASKS = {"t": [*solutions(*"abcde"), *solutions(*"ab", expert="model")], "u": solutions("a")}
CHOICES = {"c": [{"id": i, "prompt": f"{i}?", "options": ["x", "y"], "answer": 0} for i in "abcde"]}


def model_folder(folder: Path, content: bytes = b"\0" * 8, **files: str) -> Path:
    """A folder in Hugging Face layout with one tensor of four bfloat16 numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + content)
    (folder / "config.json").write_text(files.pop("config", "{}"))
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def addresses(plan: Plan, kind: str | None = None) -> list[str]:
    return [unit.address for unit in plan.units if kind in (None, unit.shard.kind)]


def real_config(tmp_path: Path, **changes: Any) -> Config:
    """One candidate with files of its own."""
    config = config_of(tmp_path, TASKS, {"m": str(tmp_path / "model")}, CHOICES, engine={"kind": "torch"})
    return Config.model_validate({**config.model_dump(), **changes})


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    model_folder(tmp_path / "model")
    return lambda **changes: make_plan(real_config(tmp_path, **changes))


def test_shards_hold_each_text_once_by_task_and_expert(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, TASKS, {"a": "fake://1"}, CHOICES, shard_trajectories=2))
    shards = [
        (u.shard.kind, u.shard.task, [(t.expert, t.instance_id) for t in u.shard.trajectories])
        for u in plan.units
    ]
    assert shards == [
        ("trajectories", "t", [("human", "a"), ("human", "b")]),
        ("trajectories", "t", [("human", "c"), ("human", "d")]),
        ("trajectories", "t", [("human", "e")]),
        ("trajectories", "t", [("model", "a"), ("model", "b")]),
        ("trajectories", "u", [("human", "a")]),
        ("choices", "c", [(o, i) for i in "abcd" for o in "01"]),
        ("choices", "c", [("0", "e"), ("1", "e")]),
    ]
    assert plan.path(plan.units[0]).startswith(str(tmp_path / "out" / "lake") + "/")
    assert plan.path(plan.units[-1]).startswith(str(tmp_path / "out" / "choices") + "/")


def test_experts_share_blocks_of_prompts_and_an_expert_more_changes_nothing(tmp_path: Path) -> None:
    def plan_of(*experts: str) -> Plan:
        texts = [
            t for expert in experts for t in solutions(*("bd" if expert == "part" else "abcd"), expert=expert)
        ]
        return make_plan(config_of(tmp_path, {"t": texts}, {"a": "fake://1"}, CHOICES, shard_trajectories=2))

    both, all_three = plan_of("human", "model"), plan_of("human", "model", "part")
    assert set(addresses(both)) < set(addresses(all_three))
    groups = [
        [(u.shard.trajectories[0].expert, len(u.shard.trajectories)) for u in g]
        for g in joint_units(all_three.units)
    ]
    assert groups[:2] == [[("human", 2), ("model", 2), ("part", 1)]] * 2
    assert all(len(group) == 1 for group in groups[2:]) and len(groups) == 4  # options
    assert sorted(u.address for g in joint_units(all_three.units) for u in g) == sorted(addresses(all_three))


def test_planning_writes_nothing_and_says_the_same_twice(tmp_path: Path) -> None:
    config = config_of(tmp_path, TASKS, {"a": "fake://1"}, CHOICES)
    before = sorted(tmp_path.rglob("*"))
    assert make_plan(config) == make_plan(config)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"output": "/elsewhere"},
        {"engine": {"kind": "torch", "batch_tokens": 1024, "device": "cpu"}},
        {"cluster": {"actors": 7, "cpus_per_actor": 2, "address": "ray://host:10001"}},
        {"ranking": {"bootstraps": 3}},
        {"measured_scores": [{"format": "csv", "path": "/scores.csv"}]},
        {"direct_evaluation": []},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_cannot_change_a_number_is_not_in_the_address(
    planned: Callable[..., Plan], changes: dict[str, Any]
) -> None:
    assert addresses(planned(**changes), "trajectories") == addresses(planned(), "trajectories")


@pytest.mark.parametrize(
    "field", ["name", "family", "parameters", "training_tokens", "corpus", "seed", "step"]
)
def test_facts_about_a_candidate_are_not_in_the_address(
    planned: Callable[..., Plan], field: str, tmp_path: Path
) -> None:
    value = {"name": "other", "family": "x", "corpus": "c"}.get(field, 3)
    candidate = {"name": "m", "source": str(tmp_path / "model"), field: value}
    assert addresses(planned(candidates=[candidate])) == addresses(planned())


def test_where_the_files_of_a_candidate_lie_is_not_in_the_address(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    before = addresses(planned())
    (tmp_path / "model").rename(tmp_path / "moved")
    assert addresses(planned(candidates=[{"name": "m", "source": str(tmp_path / "moved")}])) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"window": {"last_tokens": 999}},
        {"window": {"last_bytes": 1000}},
        {"window": "all"},
        {"too_long": "truncate_prefix"},
        {"prompt_form": "chat"},
        {"engine": {"kind": "torch", "dtype": "bfloat16"}},
    ],
    ids=str,
)
def test_what_changes_numbers_is_in_the_address(
    planned: Callable[..., Plan], changes: dict[str, Any]
) -> None:
    assert not set(addresses(planned(**changes), "trajectories")) & set(addresses(planned(), "trajectories"))


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float16"},
        {"prompt_form": "chat"},
        {"quantize": 4},
        {"drop_layers": 1},
        {"context_length": 9},
        {"vocab_size": 9},
    ],
    ids=lambda change: next(iter(change)),
)
def test_variants_of_a_candidate_have_addresses_of_their_own(
    planned: Callable[..., Plan], change: dict[str, Any], tmp_path: Path
) -> None:
    candidate = {"name": "m", "source": str(tmp_path / "model"), **change}
    assert not set(addresses(planned(candidates=[candidate]))) & set(addresses(planned()))


@pytest.mark.parametrize("what", ["weights", "config", "tokenizer"])
def test_files_of_a_candidate_are_in_the_address_though_their_names_stay(
    planned: Callable[..., Plan], tmp_path: Path, what: str
) -> None:
    before = addresses(planned())
    if what == "weights":
        model_folder(tmp_path / "model", b"\1" * 8)
    elif what == "config":
        model_folder(tmp_path / "model", config='{"x": 1}')
    else:
        model_folder(tmp_path / "model", tokenizer__json="{}")
    assert not set(addresses(planned())) & set(before)


@pytest.mark.parametrize("field", ["prompt", "solution", "id", "expert"])
def test_texts_are_in_the_address(tmp_path: Path, field: str) -> None:
    rows = solutions("a", "b", "c")
    plan = make_plan(config_of(tmp_path, {"t": rows}, {"a": "fake://1"}, shard_trajectories=1))
    rows[1] = {**rows[1], field: "changed"}
    changed = make_plan(config_of(tmp_path, {"t": rows}, {"a": "fake://1"}, shard_trajectories=1))
    assert len(set(addresses(plan)) ^ set(addresses(changed))) == 2, "one unit is another, the others stay"


def test_texts_cannot_be_shifted_from_prompt_to_solution_unseen(tmp_path: Path) -> None:
    found = set()
    for i, (prompt, solution) in enumerate([("ab", "c"), ("a", "bc")]):
        rows = [{"id": "1", "expert": "x", "prompt": prompt, "solution": solution}]
        found |= set(addresses(make_plan(config_of(tmp_path / str(i), {"t": rows}, {"a": "fake://1"}))))
    assert len(found) == 2


def test_options_are_read_raw_and_whole_whatever_the_window(planned: Callable[..., Plan]) -> None:
    assert addresses(planned(window="all"), "choices") == addresses(planned(), "choices")


def test_a_larger_limit_keeps_the_full_shards(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"t": solutions(*"abcdefgh")}, {"a": "fake://1"}, shard_trajectories=3)

    def limited(n: int) -> list[str]:
        source = config.trajectories[0].model_copy(update={"limit": n})
        return addresses(make_plan(config.model_copy(update={"trajectories": (source,)})))

    assert limited(6) == limited(8)[:2]
    assert limited(7)[:2] == limited(8)[:2] and limited(7)[2] != limited(8)[2]


def test_two_names_of_one_model_share_their_units(tmp_path: Path) -> None:
    twice = config_of(tmp_path, TASKS, {"a": "fake://1", "again": "fake://1", "b": "fake://2"}, CHOICES)
    once = config_of(tmp_path, TASKS, {"a": "fake://1", "b": "fake://2"}, CHOICES)
    assert addresses(make_plan(twice)) == addresses(make_plan(once))
    assert [c.name for c in make_plan(twice).candidates] == ["a", "again", "b"]


def test_a_bad_task_and_a_bad_candidate_are_reported_and_the_others_planned(tmp_path: Path) -> None:
    candidates = {"a": "fake://1", "lost": str(tmp_path / "nowhere")}
    config = config_of(tmp_path, TASKS, candidates, {**CHOICES, "d": CHOICES["c"]}, engine={"kind": "torch"})
    (tmp_path / "solutions-t.jsonl").write_text('{"id": "a"}\n')
    (tmp_path / "choices-d.jsonl").unlink()
    model_folder(tmp_path / "m")
    good = {"name": "good", "source": str(tmp_path / "m")}
    lost = {"name": "lost", "source": str(tmp_path / "nowhere")}
    plan = make_plan(Config.model_validate({**config.model_dump(), "candidates": [good, lost]}))
    assert [(f.subject, f.name) for f in plan.failures] == [
        ("task", "t"),
        ("task", "d"),
        ("candidate", "lost"),
    ]
    assert f"{tmp_path / 'solutions-t.jsonl'}:1" in plan.failures[0].error
    assert plan.failures[0].as_record() == {"task": "t", "error": plan.failures[0].error}
    assert plan.failures[2].as_record() == {"candidate": "lost", "error": plan.failures[2].error}
    assert [(u.candidate.name, u.shard.kind, u.shard.task) for u in plan.units] == [
        ("good", "trajectories", "u"),
        ("good", "choices", "c"),
    ]
    assert (list(plan.trajectories), list(plan.choices)) == (["u"], ["c"])


def test_done_is_what_has_a_file(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, TASKS, {"a": "fake://1", "b": "fake://2"}, CHOICES))
    assert plan.done() == frozenset()
    fill(plan, only=["a"])
    assert plan.done() == {u.address for u in plan.units if u.candidate.name == "a"}
    a_file = Path(plan.path(plan.units[0]))
    a_file.rename(a_file.with_name(f".{a_file.name}"))
    assert plan.units[0].address not in plan.done(), "a hidden file is not there yet"


def test_estimates_know_what_they_do_not_know(tmp_path: Path) -> None:
    rows = [{"id": "1", "expert": "x", "prompt": "é" * 100, "solution": "a" * 200}]
    config = config_of(tmp_path, {"t": rows}, {"a": "fake://1"})
    (unit,) = make_plan(config).units
    assert estimated_tokens(unit.shard) == 100, "four bytes a token; é has two"
    assert estimated_flops(unit) is None

    def sized(**facts: int) -> Unit:
        candidate = config.candidates[0].model_copy(update=facts)
        return make_plan(config.model_copy(update={"candidates": (candidate,)})).units[0]

    assert estimated_flops(sized(parameters=1000)) == 2 * 1000 * 100
    assert estimated_flops(sized(parameters=1000, active_parameters=10)) == 2 * 10 * 100


def test_prompts_that_end_in_a_space_are_noted(tmp_path: Path) -> None:
    lines = [("Say: ", "ok"), ("Say:", " ok"), ("Say:\n", "ok"), ("Say: ", "  ok")]
    rows = [{"id": str(i), "prompt": p, "solution": s, "expert": "a"} for i, (p, s) in enumerate(lines)]
    (note,) = make_plan(config_of(tmp_path, {"t": rows}, {"a": "fake://1"}, CHOICES)).notes()
    assert note.startswith("task 't': 1 of 4 prompts end in a space")


@pytest.mark.parametrize(
    ("prompt", "solution", "is_glued"),
    [
        ("How many are left?", "Janet has 3", True),
        ("Answer", "42", True),
        ("How many are left?", " Janet has 3", False),
        ("How many are left?\n", "Janet has 3", False),
        ("", "Ordinary text", False),
        ("f(", "x)", False),
        ("\u591a\u5c11\uff1f", "\u4e09", False),
        ("\u591a\u5c11", "\u4e09", False),
    ],
)
def test_solution_right_behind_its_prompt_is_noted_with_the_fix(
    prompt: str, solution: str, is_glued: bool, tmp_path: Path
) -> None:
    rows = [{"id": "1", "prompt": prompt, "solution": solution, "expert": "a"}]
    notes = make_plan(config_of(tmp_path, {"t": rows}, {"a": "fake://1"})).notes()
    assert len(notes) == is_glued
    assert all('solution_template: " {solution}"' in note for note in notes)
    chat = make_plan(config_of(tmp_path, {"t": rows}, {"a": "fake://1"}, prompt_form="chat"))
    assert chat.notes() == []


def test_option_right_behind_its_prompt_is_noted_with_the_fix(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"t": solutions("a")}, {"a": "fake://1"}, CHOICES)
    assert make_plan(config).notes() == []
    (source,) = config.direct_evaluation
    glued = config.model_copy(
        update={"direct_evaluation": (source.model_copy(update={"choice_prefix": ""}),)}
    )
    (note,) = make_plan(glued).notes()
    assert 'choice_prefix: " "' in note and "10 of 10" in note


def test_scores_are_read_and_checked_with_the_plan(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("candidate,task,metric,value\na,exam,acc,0.5\nother,exam,acc,0.4\n")
    (tmp_path / "bad.csv").write_text("candidate,task,metric,score\na,exam,acc,0.5\n")
    sources = [{"format": "csv", "path": str(tmp_path / name)} for name in ("good.csv", "bad.csv")]
    config = config_of(tmp_path, {"t": solutions("a")}, {"a": "fake://1"}, measured_scores=sources)
    plan = make_plan(config)
    assert [(s.candidate, s.task, s.value) for s in plan.scores] == [("a", "exam", 0.5)]
    (failure,) = plan.failures
    assert failure.subject == "measured_scores" and "bad.csv:1: no column 'value'" in failure.error
    assert [("other" in note, "good.csv" in note) for note in plan.notes()] == [(True, True)]


def test_frontier_tokens_and_experts_are_checked_with_the_plan(tmp_path: Path) -> None:
    rows = [{**solutions("a", text=" abcd")[0], "frontier": [{"text": "xy", "prob": 0.5}]}]
    config = config_of(tmp_path, {"t": rows}, {"a": "fake://1"}, experts={"humna": {"family": "Qwen"}})
    (note,) = make_plan(config).notes()
    assert "'humna'" in note and "did you mean 'human'" in note
    (source,) = config.trajectories
    columns = source.columns.model_copy(update={"frontier_tokens": "frontier"})
    named = config.model_copy(update={"trajectories": (source.model_copy(update={"columns": columns}),)})
    (failure,) = make_plan(named).failures
    assert failure.subject == "task" and "solutions-t.jsonl:1: frontier token 1" in failure.error


def test_target_without_a_score_is_noted_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("candidate,task,metric,value\na,exam,acc,0.5\n")
    config = config_of(
        tmp_path,
        {"t": solutions("a")},
        {"a": "fake://1"},
        measured_scores=[{"format": "csv", "path": str(tmp_path / "scores.csv")}],
        ranking={"targets": {"exma": ["t"]}},
    )
    (note,) = make_plan(config).notes()
    assert "'exma'" in note and "did you mean 'exam'" in note
