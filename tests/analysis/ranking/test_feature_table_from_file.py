"""Tables from elsewhere: what is read, and that every defect is named with its line."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from worlds import csv_of, world

from forecast.analysis.ranking.feature_table_from_file import Imported, read_table
from forecast.errors import InputError

GOOD = """candidate,family,task,score,f1,f2
a,x,t1,0.5,1,2
a,x,t2,0.4,1,3
b,x,t1,0.7,2,1
b,x,t2,0.6,3,1
"""


def read(folder: Path, text: str, **options: object) -> Imported:
    path = folder / "table.csv"
    path.write_text(text)
    return read_table(str(path), **options)  # type: ignore[arg-type]


def test_a_table_is_read_whatever_the_order_of_its_rows_and_columns(tmp_path: Path) -> None:
    table = world("ability", 0, 7, 3, 5, family=2)
    text = csv_of(table)
    first = read(tmp_path, text).table
    np.testing.assert_array_equal(first.values, table.values)
    np.testing.assert_array_equal(first.scores, table.scores)
    assert (first.candidates, first.families, first.tasks) == (table.candidates, table.families, table.tasks)
    shuffled = pl.read_csv(text.encode()).sample(fraction=1, shuffle=True, seed=1)
    path = tmp_path / "shuffled.parquet"
    shuffled.select(sorted(shuffled.columns)).write_parquet(path)
    second = read_table(str(path)).table
    np.testing.assert_array_equal(second.values, first.values)
    assert second.features == first.features == table.features
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    np.testing.assert_array_equal(read_table(str(tmp_path / "t.csv.gz")).table.scores, table.scores)


def test_missing_cells_stay_missing_and_are_counted(tmp_path: Path) -> None:
    text = GOOD.replace("0.5,1,2", "NaN,1,2").replace("0.6,3,1", "0.6,,NA").replace("a,x,t2,0.4,1,3\n", "")
    found = read(tmp_path, text)
    np.testing.assert_array_equal(found.table.scores, [[np.nan, 0.7], [np.nan, 0.6]])
    assert np.isnan(found.table.values[1, 1]).all() and np.isnan(found.table.values[1, 0]).all()
    assert found.warnings == ("1 of 4 cells (candidate on task) have no row", "1 of 3 rows have no score")


def test_features_and_covariates_are_chosen(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD, features=["f2"]).table
    assert table.features == ("f2",) and table.values.shape == (2, 2, 1)
    table = read(tmp_path, GOOD, covariates=["f1"]).table
    assert (table.features, table.covariates) == (("f2",), ("f1",))
    assert table.covariate_values is not None and table.covariate_values[1, 1, 0] == 3


def test_without_families_every_candidate_is_its_own(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD.replace("family,", "").replace(",x,", ","))
    assert found.table.families == ("a", "b")
    assert "every candidate is taken as a family of its own" in found.warnings[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("candidate,", "model,"), r"table.csv:1: no column 'candidate' .*known: model, family"),
        (("score,f1", "scor,f1"), r"no column 'score' .*did you mean 'scor'"),
        ((",", ";"), r"table.csv:1: no column 'candidate'; the columns seem to be separated by semicolons"),
        ((",", "\t"), r"separated by tabs"),
        (("b,x,t1,0.7", "a,x,t1,0.7"), r"table.csv:4: a second row for a / t1, .*table.csv:2"),
        (("b,x,t2", "b,y,t2"), r"table.csv:5: 'b' is of family 'y' here and of 'x' at .*table.csv:4"),
        (("0.7", "inf"), r"table.csv:4: column 'score': 'inf' is infinite"),
        (("0.7,2", "0.7,-1e999"), r"table.csv:4: column 'f1': '-1e999' is infinite"),
        (("0.7", "0;7"), r"table.csv:4: column 'score': '0;7' is not a number"),
        (("a,x,t2", ",x,t2"), r"table.csv:3: column 'candidate' is empty"),
        (("a,x,t2", "a,x, "), r"table.csv:3: column 'task' is empty"),
        (("a,x,t2", "a,,t2"), r"table.csv:3: column 'family' is empty"),
        (("a,x,t2,0.4,1,3", "a,x,t2,0.4,1"), r"table.csv:3: 5 cells, the header has 6"),
        (("f2", "f1"), r"table.csv:1: columns given twice: f1"),
        (("f2\na,x,t1,0.5,1,2", "\na,x,t1,0.5,1,2.5"), r"table.csv:1: column '' has no name"),
    ],
)
def test_defects_are_named_with_their_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, GOOD.replace(*change))


def test_all_defects_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, GOOD.replace("0.5", "x").replace("0.6", "y"))
    assert ":2:" in str(error.value) and ":5:" in str(error.value)


def test_choices_that_cannot_be(tmp_path: Path) -> None:
    for options, message in (
        ({"features": ["f3"]}, "column 'f3' is not there; known: f1, f2"),
        ({"features": ["score"]}, "column 'score' is no feature"),
        ({"covariates": ["f9"]}, "column 'f9' is not there"),
        ({"features": ["f1"], "covariates": ["f1"]}, "'f1' is named as a feature and as a baseline"),
        ({"features": []}, "no feature columns"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path, GOOD, **options)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(GOOD.encode().replace(b"b,x,t1", b"b\xe9,x,t1"))
    with pytest.raises(InputError, match=r"t.csv:4: byte 0xe9 is not UTF-8"):
        read_table(str(path))
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(InputError, match=r"t.csv:1: byte 0xff is not UTF-8"):
        read_table(str(path))
    path.write_text(GOOD.splitlines()[0] + "\n")
    with pytest.raises(InputError, match="no rows"):
        read_table(str(path))
    with pytest.raises(InputError, match="no such file"):
        read_table(str(tmp_path / "absent.csv"))
    with pytest.raises(InputError, match="unknown format"):
        read_table(str(tmp_path / "table.xlsx"))


def test_a_mark_of_byte_order_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert read_table(str(tmp_path / "t.csv")).table.candidates == ("a", "b")
