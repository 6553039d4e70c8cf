import bz2
import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from forecast import storage
from forecast.analysis.diagnostics import corpus_reader
from forecast.analysis.diagnostics.corpus_reader import CorpusProgress, corpus_files, read_corpus
from forecast.errors import InputError

TEXTS = ["one é 中 😀", "two\nlines", "three"]


def documents(paths: list[Path | str], column: str = "text") -> tuple[list[str], CorpusProgress]:
    reading, found = CorpusProgress(), []
    for piece in read_corpus(corpus_files([str(p) for p in paths]), column, reading):
        if piece.starts:
            found.append("")
        found[-1] += piece.text
    return found, reading


def jsonl(texts: list[str | None]) -> bytes:
    return "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)).encode()


def test_every_format_and_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_reader, "_PIECE", 5)  # cuts characters and lines
    data = jsonl(list(TEXTS))
    (tmp_path / "a.jsonl").write_bytes(data)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "c.jsonl.bz2").write_bytes(bz2.compress(data))
    with pa.CompressedOutputStream(str(tmp_path / "d.ndjson.zst"), "zstd") as out:
        out.write(data)
    pl.DataFrame({"text": TEXTS}).write_parquet(tmp_path / "e.parquet")
    for path in sorted(tmp_path.iterdir()):
        found, reading = documents([path])
        assert found == TEXTS, path
        assert (reading.files, reading.documents, reading.without_text) == (1, 3, 0)
        assert reading.bytes_done == reading.bytes_total == path.stat().st_size
    (tmp_path / "f.txt").write_text("".join(TEXTS))
    assert documents([tmp_path / "f.txt"])[0] == ["".join(TEXTS)]
    found, reading = documents([tmp_path])  # a folder: everything below it
    assert found == [*TEXTS * 5, "".join(TEXTS)] and reading.files == 6


def test_a_file_without_a_last_line_break_and_with_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n\n{"text": "two"}')
    assert documents([path])[0] == ["one", "two"]


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(["one", None, ""]))
    pl.DataFrame({"text": ["two", None]}).write_parquet(tmp_path / "b.parquet")
    found, reading = documents([tmp_path])
    assert found == ["one", "two"]
    assert (reading.documents, reading.without_text) == (2, 3)


def test_progress_comes_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 3_000_000)
    (tmp_path / "b.txt").write_text("y")
    seen: list[tuple[int, int]] = []
    reading = CorpusProgress()
    files = corpus_files([str(tmp_path)])
    pieces = [
        p.text
        for p in read_corpus(files, "text", reading, lambda r: seen.append((r.bytes_done, r.bytes_total)))
    ]
    assert max(map(len, pieces)) <= 1 << 20, "a piece at a time, whatever the size of the file"
    assert seen == sorted(seen) and seen[-1] == (3_000_001, 3_000_001)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\nnot json\n', r"a\.jsonl:2: not valid JSON"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl:1: expected a JSON object, got list"),
        ("a.jsonl", b'{"body": "x"}\n', r"a\.jsonl:1: no column 'text'.*--corpus-column.*body"),
        ("a.jsonl", b'{"text": 7}\n', r"a\.jsonl:1: text is no text but int"),
        ("a.txt", b"\xff\xfe", r"a\.txt: not UTF-8"),
        ("a.txt", "é".encode()[:1], r"a\.txt: not UTF-8"),
        ("a.jsonl.gz", b"nothing packed", r"a\.jsonl\.gz: cannot be read"),
        ("a.parquet", b"nothing", r"a\.parquet: cannot be read"),
        ("a.csv", b"x", r"no file that ends in"),
    ],
)
def test_defects_are_named_with_file_and_row(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        documents([tmp_path / name])


def test_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        corpus_files([str(tmp_path / "no.txt")])


def test_a_wrong_parquet_column_and_an_object_store(tmp_path: Path, bucket: str) -> None:
    pl.DataFrame({"body": TEXTS}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"no column 'text'.*body"):
        documents([tmp_path / "a.parquet"])
    packed = gzip.compress(b'{"body": "x"}\n')
    for name, data in (("a.parquet", (tmp_path / "a.parquet").read_bytes()), ("b.jsonl.gz", packed)):
        fs, inner = storage.filesystem(f"{bucket}/corpus/{name}")
        with fs.open_output_stream(inner, compression=None) as stream:
            stream.write(data)
    assert documents([f"{bucket}/corpus"], "body")[0] == [*TEXTS, "x"]


def test_damaged_parquet_is_named_with_its_row(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"], pa.binary()).buffers())
    pa.parquet.write_table(pa.table({"text": text, "other": ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: row 2: column 'text' is damaged"):
        documents([tmp_path / "a.parquet"])
    assert documents([tmp_path / "a.parquet"], "other")[0] == ["a", "b"]


def test_lines_without_end_and_keys_given_twice_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_reader, "_LONGEST_LINE", 100)
    for line, message in (
        (json.dumps({"text": "x" * 200}), "a line of more than 100 bytes; split the document"),
        ('{"text": "a", "text": "b"}', "the key 'text' is given twice"),
        ("[" * 99, "expected one object a line"),
    ):
        (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' + line)
        with pytest.raises(InputError, match=rf"a\.jsonl:2: .*{message}"):
            documents([tmp_path / "a.jsonl"])


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.gz", "a.txt.zst", "a.md.bz2"])
def test_files_that_unpack_to_far_more_than_text_does_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_reader, "_UNSUSPECTED", 1 << 20)
    line = json.dumps({"text": "x" * 1000}) + "\n"
    with pa.CompressedOutputStream(
        str(tmp_path / name), {"gz": "gzip", "zst": "zstd", "bz2": "bz2"}[name.rpartition(".")[2]]
    ) as out:
        out.write(line.encode() * 20_000)
    with pytest.raises(
        InputError, match="unpacks to more than 200 times its size; if that is meant, unpack it first"
    ):
        documents([tmp_path / name])
