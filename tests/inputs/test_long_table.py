"""Long tables: columns that must be there, cells that are missing, wrong or infinite, repeated keys."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forecast.errors import InputError
from forecast.inputs.files import Problems, SourceRow
from forecast.inputs.literals import text_of
from forecast.inputs.long_table import is_repeat, name_at, number_at, read_long_table


def message(problems: Problems) -> str:
    with pytest.raises(InputError) as caught:
        problems.raise_if_any()
    return str(caught.value)


def cell(value: Any, needed: bool = False) -> tuple[float | None, Problems]:
    problems = Problems()
    return number_at(SourceRow("t.csv:2", {"x": value}), "x", problems, needed), problems


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_format_gives_the_same_cells(ending: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"name": ["a", "b"], "x": [1.5, None]})
    path = str(tmp_path / f"t.{ending}")
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[ending](path)
    problems = Problems()
    rows = read_long_table(path, ("name", "x"))
    found = [(name_at(row, "name", problems), number_at(row, "x", problems)) for row in rows]
    problems.raise_if_any()
    assert found == [("a", 1.5), ("b", None)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("name,y", "t.csv:1: no column 'x', 'z' (needed: name, x, z; optional: w); known: name, y"),
        ("name,zz,x", "t.csv:1: no column 'z' (needed: name, x, z; optional: w); did you mean 'zz'? known: "),
        ("name;x;z", "t.csv:1: no column 'name'; the columns seem to be separated by semicolons"),
        ("name\tx\tz", "separated by tabs"),
    ],
)
def test_missing_columns_are_named(header: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\n{header}\n")
    with pytest.raises(InputError) as caught:
        read_long_table(str(path), ("name", "x", "z"), ("w",))
    assert expected in str(caught.value)


@pytest.mark.parametrize("value", [None, "", " ", "NaN", "NA", "n/a", "null", "None", float("nan")])
def test_missing_cells_are_a_problem_only_where_needed(value: Any) -> None:
    number, problems = cell(value)
    problems.raise_if_any()
    assert number is None
    number, problems = cell(value, needed=True)
    assert number is None and "t.csv:2: column 'x' is " in message(problems)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("1;5", "'1;5' is not a number"),
        (True, "True is not a number"),
        ([1], "[1] is not a number"),
        (10**400, "is not a number"),
        ("-1e999", "'-1e999' is infinite"),
        (float("inf"), "inf is infinite"),
    ],
)
@pytest.mark.parametrize("needed", [True, False])
def test_what_is_no_finite_number_is_refused(value: Any, fault: str, needed: bool) -> None:
    number, problems = cell(value, needed)
    assert number is None and fault in message(problems)


def test_texts_of_cells() -> None:
    assert [text_of(value) for value in (None, float("nan"), 3.0, 2.5, 7, " a ")] == [
        "", "", "3", "2.5", "7", "a",
    ]  # fmt: skip


def test_a_repeated_key_names_both_rows() -> None:
    problems, places = Problems(), dict[tuple[object, ...], str]()
    found = [is_repeat(key, f"t.csv:{i}", places, problems) for i, key in enumerate([("a", 1), ("a", 2)] * 2)]
    assert found == [False, False, True, True]
    assert "t.csv:2: a second row for a / 1, the first is at t.csv:0; remove one" in message(problems)
