"""Trajectories: how rows become prompts and solutions, and what is said about rows that do not."""

import json
from pathlib import Path
from typing import Any

import pytest

from forecast.config.sources import TrajectorySource
from forecast.errors import InputError
from forecast.inputs.trajectories import Trajectory, load_trajectories, merge_sources, prompt_id


def source(folder: Path, records: list[dict[str, Any]], **settings: Any) -> TrajectorySource:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return TrajectorySource(**{"task": "sums", "path": str(path), **settings})


def complaint(folder: Path, records: list[dict[str, Any]], **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_trajectories(source(folder, records, **settings))
    return str(caught.value)


def test_columns_and_the_experts_name(tmp_path: Path) -> None:
    records = [{"prompt": "", "solution": " 2 "}, {"prompt": "b", "solution": "3"}]
    assert load_trajectories(source(tmp_path, records, expert="kimi")) == [
        Trajectory("sums", prompt_id(""), "kimi", "", " 2 "),
        Trajectory("sums", prompt_id("b"), "kimi", "b", "3"),
    ]


def test_columns_of_other_names_reach_into_records(tmp_path: Path) -> None:
    records = [{"id": 7, "x": {"q": "1+1"}, "who": "a", "y.z": "2"}]
    columns = {"prompt": "x.q", "solution": "y.z", "instance_id": "id", "expert": "who"}
    assert load_trajectories(source(tmp_path, records, columns=columns)) == [
        Trajectory("sums", "7", "a", "1+1", "2")
    ]


def test_templates_use_any_columns(tmp_path: Path) -> None:
    records = [{"q": "1+1", "n": 2, "deep": {"x": 0.5}}]
    loaded = load_trajectories(
        source(tmp_path, records, prompt_template="Q: {q} {{}}\n", solution_template="{n} {deep.x}")
    )
    assert [(t.prompt, t.solution) for t in loaded] == [("Q: 1+1 {}\n", "2 0.5")]


def test_solutions_of_several_experts_meet_under_the_prompts_id(tmp_path: Path) -> None:
    records = [{"prompt": "a", "solution": "1", "who": who} for who in ("x", "y")]
    first, second = load_trajectories(source(tmp_path, records, columns={"expert": "who"}))
    assert first.instance_id == second.instance_id
    assert first.expert != second.expert


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    message = complaint(tmp_path, [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": "1"}])
    where = tmp_path / "rows.jsonl"
    assert message == (
        f"{where}:1: column 'solution' is missing; the row has: prompt, answer (also {where}:2)"
    )


@pytest.mark.parametrize(
    ("record", "settings", "expected"),
    [
        ({"prompt": None, "solution": "1"}, {}, "column 'prompt' is null"),
        ({"prompt": "b", "solution": None}, {}, "column 'solution' is null"),
        ({"prompt": "b", "solution": 5}, {}, "column 'solution' holds 5, expected text"),
        ({"prompt": "b", "solution": ""}, {}, "the solution is empty; remove the row or fill it"),
        ({"prompt": "b", "solution": " \n"}, {}, "the solution is empty; remove the row or fill it"),
        (
            {"prompt": ["b"], "solution": "1"},
            {"prompt_template": "{prompt}"},
            "holds ['b'], expected a text or a",
        ),
        ({"prompt": "b"}, {"solution_template": "{x}"}, "column 'x' is missing; the row has: prompt"),
        ({"prompt": "b\ud83d", "solution": "1"}, {}, "half a surrogate pair at character 2 of 'b\\ud83d'"),
    ],
)
def test_a_bad_row_is_named_with_its_line(
    record: dict[str, Any], settings: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    good = {"prompt": "a", "solution": "1", "x": "1"}
    message = complaint(tmp_path, [good, record], **settings)
    assert message.startswith(f"{tmp_path}/rows.jsonl:2: ")
    assert expected in message
    assert len(message.splitlines()) == 1


def test_a_duplicate_id_is_named_with_its_first_place(tmp_path: Path) -> None:
    records = [{"id": i, "prompt": str(k), "solution": "1"} for k, i in enumerate([4, 5, 4])]
    message = complaint(tmp_path, records, columns={"instance_id": "id"})
    where = tmp_path / "rows.jsonl"
    assert message == (
        f"{where}:3: duplicate instance of expert 'human': id '4' stands at {where}:1; remove one"
    )


def test_a_duplicate_prompt_without_ids_names_the_remedy(tmp_path: Path) -> None:
    message = complaint(tmp_path, [{"prompt": "a", "solution": s} for s in ("1", "2")])
    where = tmp_path / "rows.jsonl"
    assert f"{where}:2: duplicate instance of expert 'human': the same prompt stands at {where}:1" in message
    assert "columns.instance_id" in message


@pytest.mark.parametrize("bad", [None, "", 1.5, [1]])
def test_an_id_names_its_row(bad: Any, tmp_path: Path) -> None:
    message = complaint(
        tmp_path, [{"id": bad, "prompt": "a", "solution": "1"}], columns={"instance_id": "id"}
    )
    assert message.startswith(f"{tmp_path}/rows.jsonl:1: column 'id' ")


def test_sources_of_one_task_are_put_together_in_order() -> None:
    a = [Trajectory("t", "1", "x", "p", "s")]
    b = [Trajectory("t", "1", "y", "p", "s"), Trajectory("t", "2", "x", "q", "s")]
    assert merge_sources([("a.jsonl", a), ("b.jsonl", b)]) == a + b


@pytest.mark.parametrize("second", ["b.jsonl", "a.jsonl"])
def test_an_instance_in_two_sources_is_an_error_even_if_they_are_one_file_listed_twice(second: str) -> None:
    one = [Trajectory("t", "1", "x", "the prompt", "s")]
    with pytest.raises(InputError) as caught:
        merge_sources([("a.jsonl", one), (second, one)])
    assert str(caught.value) == (
        f"{second}: duplicate instance '1' of task 't' (prompt 'the prompt'): expert 'x' has it in "
        "a.jsonl too; remove one, or name the experts apart"
    )
