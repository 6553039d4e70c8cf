"""Multiple-choice items: options, the meaning of the answer column, and what is said about bad rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from forecast.config.sources import ChoiceSource
from forecast.errors import InputError
from forecast.inputs.multiple_choice import ChoiceItem, load_choices

ROW = {"q": "2+2?", "options": ["3", "4"], "key": "B"}


def load(folder: Path, records: list[dict[str, Any]], **settings: Any) -> list[ChoiceItem]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    keys = {"task": "quiz", "prompt_template": "{q}", "choices": "options", "answer": "key", **settings}
    return load_choices(ChoiceSource(path=str(path), **keys))


def complaint(folder: Path, records: list[dict[str, Any]], **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        load(folder, records, **settings)
    return str(caught.value)


def test_an_item_is_one_trajectory_per_option(tmp_path: Path) -> None:
    (item,) = load(tmp_path, [ROW], prompt_template="Q: {q}\nA:")
    assert (item.task, item.prompt, item.options, item.answer) == ("quiz", "Q: 2+2?\nA:", ("3", "4"), 1)
    assert item.lengths() == [1, 1]
    assert [(t.instance_id, t.expert, t.prompt, t.solution) for t in item.trajectories()] == [
        (item.instance_id, "0", item.prompt, " 3"),
        (item.instance_id, "1", item.prompt, " 4"),
    ]


def test_one_column_per_option_where_the_answer_is_one_of_them(tmp_path: Path) -> None:
    row = {"q": "?", "wrong: 1": 3, "right": 4.5}
    (item,) = load(tmp_path, [row], choices=["wrong: 1", "right"], answer="right")
    assert (item.options, item.answer) == (("3", "4.5"), 1)


def test_a_pattern_takes_the_option_out_of_its_decoration(tmp_path: Path) -> None:
    row = {"q": "?", "options": ["A)21 km", "B) 3\nmiles"], "key": "A"}
    (item,) = load(tmp_path, [row], choice_pattern=r"[A-E]\)(.*)")
    assert (item.options, item.answer) == (("21 km", "3\nmiles"), 0)


@pytest.mark.parametrize(
    ("row", "settings", "expected"),
    [
        ({"key": "B"}, {}, 1),  # label
        ({"key": 0}, {}, 0),  # index
        ({"key": "1"}, {}, 1),  # index as text: HellaSwag, CSV
        ({"options": ["yes", "no"], "key": "no"}, {}, 1),  # text
        (
            {"key": "1", "names": ["1", "2"]},
            {"labels": "names"},
            0,
        ),  # a number is a label where there are labels
        ({"key": 2, "names": ["1", "2"]}, {"labels": "names"}, 1),
        ({"options": ["1", "0"], "key": "1"}, {"answer_is": "index"}, 1),
        ({"options": ["1", "0"], "key": "1"}, {"answer_is": "text"}, 0),
        ({"options": ["B", "A"], "key": "A"}, {"answer_is": "label"}, 0),
        ({"options": ["3", "1"], "key": "1"}, {}, 1),  # text and index agree
    ],
)
def test_what_an_answer_can_mean(
    row: dict[str, Any], settings: dict[str, Any], expected: int, tmp_path: Path
) -> None:
    (item,) = load(tmp_path, [{**ROW, **row}], **settings)
    assert item.answer == expected


@pytest.mark.parametrize(
    ("row", "settings", "expected"),
    [
        ({"options": ["1", "0"], "key": "1"}, {}, "may be the label, text or index of several"),
        ({"options": ["B", "A"], "key": "A"}, {}, "set answer_is"),
        ({"key": "C"}, {}, "answer 'C' is the label, text or index of none of the options ['3', '4']"),
        ({"key": 2}, {}, "of none of the options"),
        ({"key": -1}, {}, "of none of the options"),
        ({"key": True}, {}, "of none of the options"),
        ({"key": 0, "names": ["1", "2"]}, {"labels": "names"}, "of none of the options"),
        ({"key": "4"}, {"answer_is": "label"}, "answer '4' is the label of none of the options"),
        ({"key": "1", "names": ["1"]}, {"labels": "names"}, "1 labels in column 'names' for 2 options"),
        ({"names": 5}, {"labels": "names"}, "column 'names' holds 5, expected a list of texts"),
        ({"key": None}, {}, "column 'key' is null"),
        ({"options": "ab"}, {}, "column 'options' holds 'ab', expected a list of texts"),
        ({"options": ["a", None]}, {}, "expected a list of texts"),
        ({"options": ["a", "\ud83d"]}, {}, "half a surrogate pair"),
        ({"options": ["a"]}, {}, "expected two or more different, non-empty options, got ['a']"),
        ({"options": ["a", "a"]}, {}, "expected two or more different"),
        ({"options": ["a", " "]}, {}, "expected two or more different"),
        ({}, {"choices": "none"}, "column 'none' is missing; the row has: q, options, key"),
        ({}, {"choices": ["q", "none"], "answer": "q"}, "column 'none' is missing"),
        ({"q": None}, {}, "column 'q' is null"),
        ({}, {"choice_pattern": r"\w\)(.*)"}, "option '3' does not match choice_pattern"),
    ],
)
def test_a_bad_row_is_named_with_its_line(
    row: dict[str, Any], settings: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    message = complaint(tmp_path, [{**ROW, **row}], **settings)
    assert message.startswith(f"{tmp_path}/rows.jsonl:1: ")
    assert expected in message


def test_one_question_may_come_with_other_options_but_not_twice(tmp_path: Path) -> None:
    first, second = load(tmp_path, [ROW, {**ROW, "options": ["5", "4"]}])
    assert first.instance_id != second.instance_id
    message = complaint(tmp_path, [ROW, ROW])
    assert message.startswith(f"{tmp_path}/rows.jsonl:2: duplicate instance: ")
    assert message.endswith(f"stands at {tmp_path}/rows.jsonl:1; remove one")


def test_a_duplicate_id_is_an_error(tmp_path: Path) -> None:
    rows = [{**ROW, "id": 1}, {**ROW, "q": "other", "id": 1}]
    message = complaint(tmp_path, rows, instance_id="id")
    assert f"{tmp_path}/rows.jsonl:2: duplicate instance: '1' stands at {tmp_path}/rows.jsonl:1" in message
