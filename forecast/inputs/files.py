"""Rows of a data file or Hugging Face dataset, each with the place that a message about it should name.

Files are read whole: expert solutions are megabytes, and one reading then reports every damaged line at once.
"""

import csv
import gzip
import importlib.metadata
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from forecast import storage
from forecast.config.sources import DataSource
from forecast.errors import InputError, shortened

_MESSAGES_SHOWN = 20
_PLACES_SHOWN = 5


@dataclass(frozen=True)
class SourceRow:
    """One record and where it stands, e.g. `solutions.jsonl:17`."""

    where: str
    data: dict[str, Any]


class Problems:
    """Collects what is wrong with an input, so that one reading reports every defect at once."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}  # by message: one mistake is often made in every row

    def add(self, where: str, message: str) -> None:
        """Note one defect."""
        self._places.setdefault(message, []).append(where)

    def raise_if_any(self) -> None:
        """Raise InputError if anything was noted: the first 20 defects, the first 6 places of each."""
        if not self._places:
            return
        lines = []
        for message, (first, *others) in islice(self._places.items(), _MESSAGES_SHOWN):
            also = others[:_PLACES_SHOWN] + ([f"{n} more"] if (n := len(others) - _PLACES_SHOWN) > 0 else [])
            lines.append(f"{first}: {message}" + (f" (also {', '.join(also)})" if also else ""))
        if (more := len(self._places) - _MESSAGES_SHOWN) > 0:
            lines.append(f"... and {more} more")
        raise InputError("\n".join(lines))


def local_path(uri: str) -> str:
    """The path of `package://DISTRIBUTION/FILE`, a file of an installed Python package; others as they are.

    FILE is the whole path inside the package or a unique end of it. The package is never imported.

    Raises:
        InputError: the package is not installed or holds no such file.
    """
    if not uri.startswith("package://"):
        return uri
    distribution, _, name = uri.removeprefix("package://").partition("/")
    try:
        files = importlib.metadata.files(distribution) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):  # ValueError: the name is empty
        raise InputError(
            f"{uri}: the Python package {distribution!r} is not installed; `pip install {distribution}`"
        ) from None
    found = [f for f in files if str(f) == name] or [f for f in files if str(f).endswith("/" + name)]
    if len(found) != 1:
        names = f": {', '.join(map(str, found))}" if found else ""
        raise InputError(f"{uri}: {len(found)} files of {distribution!r} match {name!r}, expected one{names}")
    return str(found[0].locate())


def read_rows(source: DataSource) -> list[SourceRow]:
    """The rows of a source, at most `source.limit`.

    Raises:
        InputError: nothing there, an unknown format, or lines that cannot be read; names file and line.
    """
    rows = _dataset_rows(source) if source.path is None else _file_rows(source.path)
    found = list(islice(rows, source.limit))
    if not found:
        raise InputError(f"{source.label}: no rows")
    return found


def read_file(path: str) -> bytes:
    """The content of a local, `s3://` or `package://` file.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    path = local_path(path)
    try:
        return storage.read_bytes(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _file_rows(path: str) -> Iterable[SourceRow]:
    path = local_path(path)
    if not storage.is_remote(path) and Path(path).is_dir():
        return _saved_dataset_rows(path)
    name = path.lower()
    suffix = next((s for s in _READERS if name.removesuffix(".gz").endswith(s)), None)
    if suffix is None:
        raise InputError(
            f"{path}: unknown format; expected {', '.join(_READERS)} (or .gz of these) "
            "or a local folder written by datasets.save_to_disk"
        )
    data = read_file(path)
    try:
        return _READERS[suffix](path, gzip.decompress(data) if name.endswith(".gz") else data)
    except InputError:
        raise
    except Exception as error:  # each reader has its own exceptions for a damaged file
        raise InputError(f"{path}: cannot be read as {suffix}: {error}") from error


def _jsonl_rows(path: str, data: bytes) -> list[SourceRow]:
    lines = data.split(b"\n")
    if not lines[-1].strip():
        lines.pop()  # the line break that ends the file
    problems = Problems()
    rows = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        if not line.strip():
            problems.add(where, "empty line, expected a JSON object; remove the line")
            continue
        try:
            rows += _objects([SourceRow(where, json.loads(line))], problems)
        except ValueError as error:
            problems.add(where, f"not valid JSON ({error}); expected one JSON object per line")
    problems.raise_if_any()
    return rows


def _json_rows(path: str, data: bytes) -> list[SourceRow]:
    records = json.loads(data)
    if not isinstance(records, list):
        raise InputError(f"{path}: expected a JSON list of objects, got {shortened(records, json.dumps)}")
    problems = Problems()
    rows = _objects(_numbered(f"{path}: record", records), problems)
    problems.raise_if_any()
    return rows


def _objects(rows: Iterable[SourceRow], problems: Problems) -> list[SourceRow]:
    """The rows that hold JSON objects; the others are noted."""
    good = []
    for row in rows:
        if isinstance(row.data, dict):
            good.append(row)
        else:
            problems.add(row.where, f"expected a JSON object, got {shortened(row.data, json.dumps)}")
    return good


def _csv_rows(path: str, data: bytes) -> list[SourceRow]:
    """Cells are text; an empty cell is a missing value (None)."""
    csv.field_size_limit(sys.maxsize)  # the default refuses solutions of more than 128 KiB
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    problems = Problems()
    rows = []
    header: list[str] = []
    line = 1
    try:
        header = next(reader, [])
        if repeated := [name for name in dict.fromkeys(header) if header.count(name) > 1]:
            problems.add(f"{path}:1", f"columns given twice: {', '.join(repeated)}")
        # A quoted cell may span lines: a row starts behind the last line of the one before.
        line = reader.line_num + 1
        for cells in reader:
            where, line = f"{path}:{line}", reader.line_num + 1
            if not cells:
                problems.add(where, "empty line; remove the line")
            elif len(cells) != len(header):
                problems.add(where, f"{len(cells)} cells, the header has {len(header)}")
            else:
                values = (cell or None for cell in cells)
                rows.append(SourceRow(where, dict(zip(header, values, strict=True))))
    except csv.Error as error:
        problems.add(f"{path}:{line}", f"not valid CSV ({error}); the row starts here")
    problems.raise_if_any()
    return rows


def _parquet_rows(path: str, data: bytes) -> Iterator[SourceRow]:
    return _table_rows(path, pa.parquet.read_table(io.BytesIO(data)))


def _arrow_rows(path: str, data: bytes) -> Iterator[SourceRow]:
    """Both Arrow formats: the stream, which `datasets` writes, and the file (also called Feather)."""
    open_arrow = pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream
    return _table_rows(path, open_arrow(data).read_all())


def _table_rows(path: str, table: pa.Table) -> Iterator[SourceRow]:
    batches = table.to_batches(max_chunksize=1024)
    return _numbered(f"{path}: row", (record for batch in batches for record in batch.to_pylist()))


def _numbered(place: str, records: Iterable[dict[str, Any]]) -> Iterator[SourceRow]:
    return (SourceRow(f"{place} {i}", record) for i, record in enumerate(records, start=1))


_READERS: dict[str, Callable[[str, bytes], Iterable[SourceRow]]] = {
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
    ".arrow": _arrow_rows,
}


def _saved_dataset_rows(folder: str) -> Iterator[SourceRow]:
    import datasets

    try:
        data = datasets.load_from_disk(folder)
    except Exception as error:
        raise InputError(f"{folder}: not a folder written by datasets.save_to_disk: {error}") from error
    if isinstance(data, datasets.DatasetDict):
        raise InputError(f"{folder}: holds several splits; name the folder of one: {', '.join(data)}")
    return _numbered(f"{folder}: row", data)


def _dataset_rows(source: DataSource) -> Iterator[SourceRow]:
    import datasets

    try:
        data = datasets.load_dataset(
            source.dataset, source.config, split=source.split or "train", revision=source.revision
        )
    except Exception as error:  # the library raises dozens of types: offline, missing, gated, bad split
        raise InputError(f"dataset {source.label}: cannot be loaded: {error}") from error
    return _numbered(f"dataset {source.label}: row", data)
