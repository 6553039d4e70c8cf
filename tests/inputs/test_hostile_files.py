"""Damaged and hostile data files: each is one error that names file and row, in bounded memory and time."""

import datetime
import gzip
import io
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from forecast.config.sources import ChoiceSource, DataSource, TrajectorySource
from forecast.errors import InputError
from forecast.inputs import files, read_limits
from forecast.inputs.files import read_rows
from forecast.inputs.long_table import read_long_table
from forecast.inputs.multiple_choice import load_choices
from forecast.inputs.trajectories import load_trajectories

GOOD = pa.table({"prompt": ["1+1?", "2+2?", "3+3?"], "solution": ["2", "4", "6"]})
BAD_TEXT = pa.Array.from_buffers(pa.string(), 3, pa.array([b"ok", b"\xff\xfe", b"ok"], pa.binary()).buffers())
FAR_DATE = pa.array([1, 2**45, 3], pa.timestamp("s"))


def write(table: pa.Table, path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        datasets.Dataset(table).save_to_disk(str(path))
    return path


def complaint(path: Path, columns: list[str] | None = None) -> str:
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        read_rows(DataSource(path=str(path)), columns)
    assert time.monotonic() - started < 20
    assert str(path) in str(caught.value)
    return str(caught.value)


FORMS = ["t.parquet", "t.arrow", "saved"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("broken", [BAD_TEXT, FAR_DATE], ids=["text", "date"])
def test_only_columns_that_are_asked_for_are_read(form: str, broken: pa.Array, tmp_path: Path) -> None:
    path = write(GOOD.append_column("note", broken), tmp_path / form)
    found = load_trajectories(TrajectorySource(task="sums", path=str(path)))
    assert [t.solution for t in found] == ["2", "4", "6"]
    template = TrajectorySource(task="sums", path=str(path), prompt_template="Q: {prompt}", limit=2)
    assert [t.prompt for t in load_trajectories(template)] == ["Q: 1+1?", "Q: 2+2?"]


@pytest.mark.parametrize("form", FORMS)
def test_a_broken_value_is_named_with_its_row(form: str, tmp_path: Path) -> None:
    path = write(GOOD.set_column(1, "solution", BAD_TEXT), tmp_path / form)
    assert f"{path}: row 2: column 'solution' is damaged (" in complaint(path)
    path = write(GOOD.append_column("day", FAR_DATE), tmp_path / f"days-{form}")
    assert f"{path}: row 2: cannot be decoded: " in complaint(path, ["prompt", "day"])
    assert len(read_rows(DataSource(path=str(path), limit=1), ["day"])) == 1


def test_choices_and_long_tables_read_only_their_columns(tmp_path: Path) -> None:
    table = pa.table(
        {"q": ["?"] * 3, "a": ["x"] * 3, "b": ["y"] * 3, "gold": ["A", "B", "A"], "i": [1, 2, 3]}
    )
    path = write(table.append_column("note", BAD_TEXT), tmp_path / "t.parquet")
    source = ChoiceSource(
        task="t", path=str(path), prompt_template="{q}", choices=("a", "b"), answer="gold", instance_id="i"
    )
    assert [item.answer for item in load_choices(source)] == [0, 1, 0]
    assert len(read_long_table(str(path), ["q"], ["b"])) == 3
    with pytest.raises(InputError, match=r"no column 'z'.*known: q, a, b, gold, i, note"):
        read_long_table(str(path), ["z"])


def test_images_of_a_saved_dataset_are_not_decoded(tmp_path: Path) -> None:
    features = datasets.Features({"prompt": datasets.Value("string"), "picture": datasets.Image()})
    data = datasets.Dataset.from_dict(
        {"prompt": ["a"], "picture": [{"bytes": b"no image", "path": None}]}, features=features
    )
    data.save_to_disk(str(tmp_path / "saved"))
    assert read_rows(DataSource(path=str(tmp_path / "saved")), ["prompt"])[0].data == {"prompt": "a"}


def arrow_with(offsets: tuple[int, ...], new: Callable[..., Any] = pa.ipc.new_file) -> bytes:
    """An Arrow file of four texts whose offsets into the text are then overwritten."""
    stream = io.BytesIO()
    batch = pa.record_batch({"prompt": ["hello", "wide", "world", "x"]})
    with new(stream, batch.schema) as writer:
        writer.write_batch(batch)
    return stream.getvalue().replace(struct.pack("<5i", 0, 5, 9, 14, 15), struct.pack("<5i", *offsets))


CRASHERS = {
    "beyond": (0, 5, 9, 14, 2**30),
    "largest": (0, 5, 9, 14, 2**31 - 1),
    "negative": (-(2**30), 5, 9, 14, 15),
    "falling": (0, 2**30, 9, 14, 15),
    "all negative": (-5, -4, -3, -2, -1),
    "backwards": (15, 14, 9, 5, 0),
}


@pytest.mark.parametrize("kind", CRASHERS)
def test_offsets_out_of_the_file_do_not_end_the_process(kind: str, tmp_path: Path) -> None:
    for new, name in ((pa.ipc.new_file, "file.arrow"), (pa.ipc.new_stream, "stream.arrow")):
        (tmp_path / name).write_bytes(arrow_with(CRASHERS[kind], new))
        complaint(tmp_path / name)


@pytest.mark.parametrize("seed", range(6))
def test_files_with_changed_bytes_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    import random

    rng = random.Random(seed)
    for form in FORMS[:2]:
        path = write(GOOD, tmp_path / form)
        data = bytearray(path.read_bytes())
        for _ in range(4):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            assert len(read_rows(DataSource(path=str(path)))) <= 3
        except InputError as error:
            assert str(path) in str(error)


def test_a_reader_that_crashes_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(GOOD, tmp_path / "t.parquet")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'forecast.inputs.arrow_batches' in sys.orig_argv: os.kill(os.getpid(), 11)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert complaint(path) == f"{path}: its reader crashed (SIGSEGV), so it is damaged; write it anew"


def test_files_of_the_current_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(GOOD, tmp_path / "t.parquet")
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert len(read_rows(DataSource(path=str(path)))) == 3


def test_a_few_bytes_of_parquet_that_claim_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 1 << 26)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), pa.array(["x" * 65536]))
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"prompt": column}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    assert "more than 67,108,864 bytes by row" in complaint(path, ["prompt"])
    assert len(read_rows(DataSource(path=str(path), limit=3), ["prompt"])) == 3


BOMBS = {"x.jsonl.gz": b" ", "x.json.gz": b"[", "x.csv.gz": b"a", "x.parquet.gz": b"\0", "x.arrow.gz": b"\0"}


@pytest.mark.parametrize("name", BOMBS)
def test_gzip_that_unpacks_to_gigabytes(name: str, tmp_path: Path) -> None:
    piece = gzip.compress(BOMBS[name] * (1 << 26), compresslevel=1, mtime=0)
    (tmp_path / name).write_bytes(piece * 5)  # 336 MB
    assert "unpacks to more than 268,435,456 bytes; if that is meant, unpack it with gunzip" in complaint(
        tmp_path / name
    )


def test_a_header_of_many_columns_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    names = [f"c{i}" for i in range(200_000)]
    path.write_text(",".join(names) + "\n" + ",".join(names) + "\n")
    assert "t.csv:1: 200,000 columns, expected at most 10,000" in complaint(path)
    path.write_text(json.dumps(dict.fromkeys(names)) + "\n")
    with pytest.raises(InputError, match="200,000 columns"):
        read_rows(DataSource(path=str(path.rename(tmp_path / "t.jsonl"))))


def test_messages_about_many_columns_are_short(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",".join(f"c{i}" for i in range(9000)) + "\n" + "," * 8999 + "\n")
    with pytest.raises(InputError) as caught:
        read_long_table(str(path), ["value"])
    assert len(str(caught.value)) < 1500 and "and 8,900 more" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.jsonl", b'{"a": 1, "a": 2}\n', "x.jsonl:1: not valid JSON (the key 'a' is given twice)"),
        ("x.jsonl", b"[" * 100_000, "x.jsonl:1: not valid JSON (nested too deep)"),
        ("x.json", b'[{"a": {"b": 1, "b": 1}}]', "the key 'b' is given twice"),
        ("x.json", b"[" * 100_000, "nested too deep"),
        ("x.json", b"9" * 10_000, "x.json: cannot be read as .json: "),
        ("x.csv", b"a" * 5000 + b"\n1\n", "x.csv:1: a column's name has 5,000 characters"),
        ("x.csv", b'a,b\n"' + b"1,2\n" * 100, "x.csv:2: not valid CSV"),
    ],
)
def test_texts_that_are_refused(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert expected in complaint(tmp_path / name)


@pytest.mark.parametrize(("bound", "value"), [("MOST_ROWS", 2), ("MOST_VALUES", 3), ("MOST_BYTES", 10)])
def test_large_files_are_refused_with_what_to_do(
    bound: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_limits if bound == "MOST_BYTES" else files, bound, value)
    (tmp_path / "x.jsonl").write_text('{"a": 1, "b": 2}\n' * 4)
    assert "split" in complaint(tmp_path / "x.jsonl")


def test_devices_pipes_and_folders_are_not_read(tmp_path: Path) -> None:
    for name in ("zero.jsonl", "zero.parquet"):
        (tmp_path / name).symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("zero.jsonl", "pipe.csv", "zero.parquet"):
        assert "expected a file" in complaint(tmp_path / name)
    assert "cannot be read" in complaint(tmp_path / ("x" * 300 + ".jsonl"))


@pytest.mark.parametrize("form", FORMS[:2])
def test_columns_given_twice_are_refused(form: str, tmp_path: Path) -> None:
    twice = pa.Table.from_arrays(
        [GOOD["prompt"], GOOD["solution"], GOOD["prompt"]], ["prompt", "solution", "prompt"]
    )
    path = write(twice, tmp_path / form)
    assert "columns given twice: prompt; rename or remove one" in complaint(path)
    assert len(read_rows(DataSource(path=str(path)), ["solution"])) == 3
    inner = pa.StructArray.from_arrays([GOOD["prompt"].chunk(0), GOOD["prompt"].chunk(0)], ["text", "text"])
    path = write(pa.table({"choices": inner}), tmp_path / f"inner-{form}")
    assert "columns given twice: text" in complaint(path)


def test_what_stands_behind_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n' * 3 + "no JSON\n")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n1,2\n1,2\n3\n")
    for name in ("x.jsonl", "x.csv"):
        assert len(read_rows(DataSource(path=str(tmp_path / name), limit=3))) == 3
        complaint(tmp_path / name)


def test_dates_and_numbers_of_tables_stay_what_they_are(tmp_path: Path) -> None:
    table = pa.table({"day": [datetime.date(2020, 1, 2)], "n": [3], "x": [[1.5, None]], "deep": [{"a": "b"}]})
    rows = read_rows(DataSource(path=str(write(table, tmp_path / "t.parquet"))))
    assert rows[0].data == {"day": datetime.date(2020, 1, 2), "n": 3, "x": [1.5, None], "deep": {"a": "b"}}


INDICES = pa.array([0] * 40_000, pa.int32())
TEXT = pa.array(["x" * 65536])
DICTIONARY = pa.DictionaryArray.from_arrays(INDICES, TEXT)
SHARED = {
    "dictionary": DICTIONARY,
    "dictionary in records": pa.StructArray.from_arrays([DICTIONARY], ["text"]),
}


@pytest.mark.parametrize("kind", SHARED)
def test_rows_that_share_one_value_count_as_many(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 1 << 26)
    path = write(pa.table({"prompt": SHARED[kind]}), tmp_path / "t.arrow")
    assert "more than 67,108,864 bytes by row" in complaint(path)
    (row,) = read_rows(DataSource(path=str(path), limit=1))
    assert row.data["prompt"] in (TEXT[0].as_py(), {"text": TEXT[0].as_py()})


@pytest.mark.parametrize(
    "column",
    [
        pa.RunEndEncodedArray.from_arrays(pa.array([40_000], pa.int32()), TEXT),
        pa.ListViewArray.from_arrays(INDICES, pa.array([1] * 40_000, pa.int32()), TEXT),
    ],
    ids=["runs", "views"],
)
def test_other_types_that_share_values_are_refused(column: pa.Array, tmp_path: Path) -> None:
    path = write(pa.table({"prompt": column, "solution": ["x"] * 40_000}), tmp_path / "t.arrow")
    assert "expected texts, numbers, lists or records; convert it" in complaint(path)
    assert len(read_rows(DataSource(path=str(path)), ["solution"])) == 40_000


def test_texts_as_polars_writes_them(tmp_path: Path) -> None:
    import polars as pl

    frame = pl.DataFrame(
        {"a": ["short", "a text of more than twelve characters"], "b": [["x"], ["y", "z"]], "c": [b"x", b"y"]}
    )
    frame.write_ipc(tmp_path / "t.arrow")
    found = read_rows(DataSource(path=str(tmp_path / "t.arrow")))
    assert [row.data for row in found] == frame.to_dicts()


def test_many_rows_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = write(pa.table({"a": pa.nulls(10_000_000, pa.int8())}), tmp_path / "t.parquet")
    assert "more than 5,000,000 rows; split it, or set limit" in complaint(path)
    assert len(read_rows(DataSource(path=str(path), limit=2))) == 2
