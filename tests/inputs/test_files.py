"""Rows from every format, each with its place, and what is said about files that cannot be read."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from forecast import storage
from forecast.config.sources import DataSource
from forecast.errors import InputError
from forecast.inputs.files import Problems, SourceRow, local_path, read_rows

RECORDS = [{"q": "1+1?", "a": "2\nbecause"}, {"q": "größe, 😀?", "a": 'say "x"'}]


def jsonl(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def as_csv(records: list[dict[str, Any]]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue().encode()


def parquet(records: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(records), stream)
    return stream.getvalue()


def arrow(records: list[dict[str, Any]], new_writer: Callable[..., Any] = pa.ipc.new_stream) -> bytes:
    stream, table = io.BytesIO(), pa.Table.from_pylist(records)
    with new_writer(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


FILES = {
    "rows.jsonl": jsonl(RECORDS),
    "rows.ndjson": jsonl(RECORDS).replace(b"\n", b"\r\n"),
    "ROWS.JSONL": jsonl(RECORDS).rstrip(b"\n"),
    "rows.jsonl.gz": gzip.compress(jsonl(RECORDS), mtime=0),
    "rows.json": json.dumps(RECORDS, indent=1).encode(),
    "rows.csv": as_csv(RECORDS),
    "bom.csv": b"\xef\xbb\xbf" + as_csv(RECORDS),
    "rows.csv.gz": gzip.compress(as_csv(RECORDS), mtime=0),
    "rows.parquet": parquet(RECORDS),
    "stream.arrow": arrow(RECORDS),
    "file.arrow": arrow(RECORDS, pa.ipc.new_file),
}


def complaint(path: Path | str, content: bytes | None = None) -> str:
    if content is not None:
        Path(path).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_rows(DataSource(path=str(path)))
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    rows = read_rows(DataSource(path=str(path)))
    assert [row.data for row in rows] == RECORDS
    assert all(row.where.startswith(str(path)) for row in rows)
    assert read_rows(DataSource(path=str(path), limit=1)) == rows[:1]


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.parquet"])
def test_rows_from_an_object_store(name: str, bucket: str) -> None:
    path = f"{bucket}/folder of data/{name}"
    storage.write_bytes(path, FILES[name])
    rows = read_rows(DataSource(path=path))
    assert [row.data for row in rows] == RECORDS
    assert rows[0].where.startswith(path)
    assert complaint(f"{bucket}/nothing.jsonl") == f"{bucket}/nothing.jsonl: no such file"


def test_rows_of_a_saved_dataset_in_their_selected_order(tmp_path: Path) -> None:
    datasets.Dataset.from_list(RECORDS).select([1, 0]).save_to_disk(str(tmp_path / "saved"))
    rows = read_rows(DataSource(path=str(tmp_path / "saved")))
    assert [row.data for row in rows] == RECORDS[::-1]
    assert rows[1].where == f"{tmp_path / 'saved'}: row 2"


def test_a_saved_dataset_of_several_splits_names_them(tmp_path: Path) -> None:
    one = datasets.Dataset.from_list(RECORDS)
    datasets.DatasetDict(train=one, test=one).save_to_disk(str(tmp_path / "saved"))
    assert "name the folder of one: train, test" in complaint(tmp_path / "saved")
    assert len(read_rows(DataSource(path=str(tmp_path / "saved" / "test")))) == 2


def test_a_local_dataset_folder_is_loaded_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(jsonl(RECORDS))
    (folder / "test.jsonl").write_bytes(jsonl(RECORDS[1:]))
    assert [row.data for row in read_rows(DataSource(dataset=str(folder)))] == RECORDS
    (row,) = read_rows(DataSource(dataset=str(folder), split="test"))
    assert row == SourceRow(f"dataset {folder}[test]: row 1", RECORDS[1])
    with pytest.raises(InputError, match=r"dataset .*\[validation\]: cannot be loaded: .*validation"):
        read_rows(DataSource(dataset=str(folder), split="validation"))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed Python package `some-data` with three files."""
    site = tmp_path / "site"
    names = ["some_data/rows.jsonl", "some_data/deep/rows.jsonl", "some_data/deep/other.jsonl"]
    for name in names:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(jsonl(RECORDS))
    info = site / "some_data-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-data\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in names))
    monkeypatch.syspath_prepend(str(site))
    return site


def test_a_file_of_an_installed_package(package: Path) -> None:
    rows = read_rows(DataSource(path="package://some-data/other.jsonl"))
    assert rows[0].where == f"{package}/some_data/deep/other.jsonl:1"
    assert local_path("package://some-data/some_data/rows.jsonl") == f"{package}/some_data/rows.jsonl"


def test_packages_and_files_that_are_not_there_are_named(package: Path) -> None:
    assert complaint("package://no-such-dist/x.jsonl") == (
        "package://no-such-dist/x.jsonl: the Python package 'no-such-dist' is not installed; "
        "`pip install no-such-dist`"
    )
    assert "0 files of 'some-data' match 'none.jsonl'" in complaint("package://some-data/none.jsonl")
    ambiguous = complaint("package://some-data/rows.jsonl")
    assert "2 files" in ambiguous and "some_data/deep/rows.jsonl" in ambiguous


def test_every_damaged_line_is_told_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    message = complaint(path, b'{"a": 1}\n\n{"a": \n["a"]\n  \nnull\n\xff\n')
    assert f"{path}:2: empty line, expected a JSON object; remove the line (also {path}:5)" in message
    assert f"{path}:3: not valid JSON" in message
    assert f'{path}:4: expected a JSON object, got ["a"]' in message
    assert f"{path}:6: expected a JSON object, got null" in message
    assert f"{path}:7: not valid JSON" in message
    assert f"{path}:1:" not in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.jsonl", b"", "empty.jsonl: no rows"),
        ("empty.csv", b"", "empty.csv: no rows"),
        ("header.csv", b"a,b\n", "header.csv: no rows"),
        ("x.txt", b"a", "x.txt: unknown format; expected .jsonl"),
        ("x.parquet", FILES["rows.parquet"][:-20], "x.parquet: cannot be read: "),
        ("x.arrow", FILES["stream.arrow"][:50], "x.arrow: cannot be read: "),
        ("x.jsonl.gz", FILES["rows.jsonl.gz"][:-9], "x.jsonl.gz: cannot be read as .jsonl: "),
        ("x.json", b'{"a": 1}', 'x.json: expected a JSON list of objects, got {"a": 1}'),
        ("x.json", b'[{"a": 1}, 2]', "x.json: record 2: expected a JSON object, got 2"),
        ("x.json", b"[{]", "x.json: cannot be read as .json: "),
        ("x.csv", b"a,b\n1,2\n3\n", "x.csv:3: 1 cells, the header has 2"),
        ("x.csv", b'a,b\n"1\n1",2\n3\n', "x.csv:4: 1 cells, the header has 2"),
        ("x.csv", b"a,b\n1,2\n\n3,4\n", "x.csv:3: empty line; remove the line"),
        ("x.csv", b"a,b,a\n1,2,3\n", "x.csv:1: columns given twice: a"),
        ("x.csv", b'a,b\n1,2\n"1"x,2\n', "x.csv:3: not valid CSV"),
        ("x.csv", b"a,b\n1,\xff\n", "x.csv: cannot be read as .csv: "),
    ],
)
def test_damaged_files_are_named(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    assert f"{tmp_path}/{expected}" in complaint(tmp_path / name, content)


@pytest.mark.parametrize(("name", "row"), [("x.jsonl", b'{"a": "1"}'), ("x.csv", b"a\n1")])
def test_blank_lines_at_the_end_are_no_fault(name: str, row: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(row + b"\n\n\n")
    assert [one.data for one in read_rows(DataSource(path=str(tmp_path / name)))] == [{"a": "1"}]


def test_paths_without_data_are_named(tmp_path: Path) -> None:
    assert complaint(tmp_path / "x.jsonl") == f"{tmp_path}/x.jsonl: no such file"
    assert f"{tmp_path}: not a folder written by datasets.save_to_disk" in complaint(tmp_path)


def test_rows_of_csv_stand_where_they_start_and_empty_cells_are_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'a,b\n"1\n1",2\n3,\n')
    assert read_rows(DataSource(path=str(path))) == [
        SourceRow(f"{path}:2", {"a": "1\n1", "b": "2"}),
        SourceRow(f"{path}:4", {"a": "3", "b": None}),
    ]


def test_long_solutions_fit_a_csv_cell(tmp_path: Path) -> None:
    record = {"q": "?", "a": "x" * 300_000}
    (tmp_path / "x.csv").write_bytes(as_csv([record]))
    assert read_rows(DataSource(path=str(tmp_path / "x.csv")))[0].data == record


def test_rows_of_tables_are_numbered_through(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(parquet([{"i": i} for i in range(2500)]))
    rows = read_rows(DataSource(path=str(tmp_path / "x.parquet")))
    assert [row.data["i"] for row in rows] == list(range(2500))
    assert rows[-1].where == f"{tmp_path}/x.parquet: row 2500"


def test_many_problems_are_shortened_and_none_is_no_error() -> None:
    problems = Problems()
    problems.raise_if_any()
    for i in range(9):
        problems.add(f"f:{i}", "the same")
    for i in range(21):
        problems.add("f:9", f"another {i}")
    with pytest.raises(InputError) as caught:
        problems.raise_if_any()
    lines = str(caught.value).splitlines()
    assert lines[0] == "f:0: the same (also f:1, f:2, f:3, f:4, f:5, 3 more)"
    assert (len(lines), lines[-1]) == (21, "... and 2 more")
