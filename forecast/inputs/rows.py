"""Rows of a data file or Hugging Face dataset, each with the place a message about it should name."""

import importlib.metadata
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.ipc

from forecast import storage
from forecast.config import DataSource
from forecast.errors import InputError

_PROBLEMS_SHOWN = 20


@dataclass(frozen=True)
class Row:
    """One record and where it stands, e.g. `solutions.jsonl:17`."""

    where: str
    data: dict[str, Any]


class Problems:
    """Collects what is wrong with an input, so that one reading reports every defect at once."""

    def __init__(self) -> None:
        self._messages: list[str] = []

    def add(self, where: str, message: str) -> None:
        """Note one defect."""
        self._messages.append(f"{where}: {message}")

    def raise_if_any(self) -> None:
        """Raise InputError with all the defects noted (the first 20 of them in full)."""
        if self._messages:
            more = len(self._messages) - _PROBLEMS_SHOWN
            shown = self._messages[:_PROBLEMS_SHOWN] + ([f"... and {more} more"] if more > 0 else [])
            raise InputError("\n".join(shown))


def package_file(uri: str) -> Path:
    """The local path of `package://DISTRIBUTION/FILE`, a file that an installed Python package carries.

    FILE may be the whole path inside the package or its end. The package is looked up, never imported.

    Raises:
        InputError: the package is not installed or holds no such file.
    """
    distribution, _, name = uri.removeprefix("package://").partition("/")
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise InputError(f"{uri}: the Python package {distribution!r} is not installed; `pip install {distribution}`") from None
    found = [f for f in files if str(f) == name or str(f).endswith("/" + name)]
    if len(found) != 1:
        raise InputError(f"{uri}: {len(found)} files of {distribution!r} match {name!r}, expected one")
    return Path(str(found[0].locate()))


def local_path(path: str) -> str:
    """`package://` resolved to a file; every other path as it is."""
    return str(package_file(path)) if path.startswith("package://") else path


def read_rows(source: DataSource) -> list[Row]:
    """The rows of a source, at most `source.limit`.

    Raises:
        InputError: nothing there, an unknown format, or lines that cannot be read; names file and line.
    """
    if source.dataset is not None:
        rows: Iterator[Row] = _dataset_rows(source)
    else:
        assert source.path is not None
        rows = _file_rows(source.path)
    found = list(islice(rows, source.limit))
    if not found:
        raise InputError(f"{source.label}: no rows")
    return found


def _file_rows(path: str) -> Iterator[Row]:
    path = local_path(path)
    name = path.lower()
    try:
        if name.endswith((".jsonl", ".jsonl.gz", ".ndjson")):
            return _jsonl_rows(path)
        if not storage.is_remote(path) and Path(path).is_dir():
            import datasets

            return _table_rows(path, datasets.load_from_disk(path).data.table)
        data = storage.read_bytes(path)
        if name.endswith(".parquet"):
            return _table_rows(path, pl.read_parquet(data).to_arrow())
        if name.endswith(".csv"):
            return _table_rows(path, pl.read_csv(data, infer_schema=False).to_arrow(), first_line=2)
        if name.endswith(".arrow"):
            return _table_rows(path, pa.ipc.open_stream(io.BytesIO(data)).read_all())
        if name.endswith(".json"):
            return _json_rows(path, data)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except Exception as error:  # each reader has its own exception types for a damaged file
        raise InputError(f"{path}: cannot be read: {error}") from error
    raise InputError(f"{path}: unknown format; expected .jsonl, .json, .csv, .parquet, .arrow or a saved dataset folder")


def _jsonl_rows(path: str) -> Iterator[Row]:
    data = storage.read_bytes(path)
    if path.lower().endswith(".gz"):
        import gzip

        data = gzip.decompress(data)
    lines = data.split(b"\n")
    if lines and not lines[-1].strip():
        lines.pop()  # the line break that ends the file
    problems = Problems()
    rows = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        if not line.strip():
            problems.add(where, "empty line, expected a JSON object; remove the line")
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            problems.add(where, f"not valid JSON ({error}); expected one JSON object per line")
            continue
        if not isinstance(record, dict):
            problems.add(where, f"a JSON {type(record).__name__}, expected an object")
            continue
        rows.append(Row(where, record))
    problems.raise_if_any()
    return iter(rows)


def _json_rows(path: str, data: bytes) -> Iterator[Row]:
    records = json.loads(data)
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise InputError(f"{path}: expected a JSON list of objects")
    return (Row(f"{path}: record {i}", r) for i, r in enumerate(records, start=1))


def _table_rows(path: str, table: pa.Table, first_line: int | None = None) -> Iterator[Row]:
    for i, record in enumerate(table.to_pylist()):
        place = f"{path}:{first_line + i}" if first_line is not None else f"{path}: row {i + 1}"
        yield Row(place, record)


def _dataset_rows(source: DataSource) -> Iterator[Row]:
    import datasets

    split = source.split or "train"
    try:
        data = datasets.load_dataset(source.dataset, source.config, split=split, revision=source.revision)
    except Exception as error:  # the library raises dozens of types: offline, missing, gated, bad split
        raise InputError(f"dataset {source.label}: cannot be loaded: {error}") from error
    for i, record in enumerate(data):
        yield Row(f"dataset {source.label}: row {i + 1}", record)
