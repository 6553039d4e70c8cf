"""Rows of a data file or Hugging Face dataset, each with the place that a message about it should name.

Files are read whole: expert solutions are megabytes, and one reading then reports every damaged line at once.
"""

import csv
import importlib.metadata
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from forecast import storage
from forecast.config.sources import DataSource
from forecast.errors import InputError, shortened
from forecast.inputs.arrow_batches import ArrowRequest, batches, is_folder
from forecast.inputs.literals import parse_json
from forecast.inputs.read_limits import MOST_BYTES, MOST_ROWS, MOST_VALUES, check_columns, file_size, unpacked
from forecast.inputs.table_columns import check_not_doubled

_MESSAGES_SHOWN = 20
_PLACES_SHOWN = 5


@dataclass(frozen=True)
class SourceRow:
    """One record and where it stands, e.g. `solutions.jsonl:17`."""

    where: str
    data: dict[str, Any]
    unread: tuple[str, ...] = field(default=(), compare=False)  # columns that nobody asked for

    @property
    def columns(self) -> list[str]:
        """All that the row has, read or not."""
        return [*self.data, *self.unread]


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


def matching_files(path: str) -> list[str]:
    """The files that a path names, in alphabetical order: itself, or those that fit a pattern of it.

    In a pattern `*` and `?` stand for any characters of a name, `**` for any folders.

    Raises:
        InputError: no file fits.
    """
    if not any(sign in path for sign in "*?") or path.startswith("package://") or storage.exists(path):
        return [path]
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?"))
    folder = "/".join(parts[:first]) or "/"
    pattern = re.compile(
        "".join("(.*/)?" if part == "**" else _part(part) + "/" for part in parts[first:-1])
        + _part(parts[-1])
    )
    found = [
        file
        for file in storage.list_files(folder, "")
        if pattern.fullmatch(file.removeprefix(folder).removeprefix("/"))
    ]
    if not found:
        raise InputError(f"{path}: no file fits this pattern")
    return sorted(found)


def _part(pattern: str) -> str:
    """A name's pattern as a regular expression."""
    return "".join({"*": "[^/]*", "?": "[^/]"}.get(sign, re.escape(sign)) for sign in pattern)


def read_rows(source: DataSource, columns: Collection[str] | None = None) -> list[SourceRow]:
    """The rows of a source, at most `source.limit`.

    Args:
        columns: what is asked for, perhaps with dots into records; others of a table are not even read. None:
            all. One that is not there is missing from the rows.

    Raises:
        InputError: nothing there, an unknown format, more than can be meant, lines that cannot be read, or a
            column that is asked for and was given twice; names file and line.
    """
    most = source.limit or MOST_ROWS + 1
    asked = None if columns is None else {name for c in columns for name in (c, c.partition(".")[0])}
    if source.path is None:
        arguments = {"path": source.dataset, "name": source.config, "revision": source.revision}
        request = ArrowRequest(
            f"dataset {source.label}", dataset={**arguments, "split": source.split or "train"}, seconds=7200
        )
        rows: Iterable[SourceRow] = _arrow_rows(request, asked, most)
    else:
        rows = _file_rows(local_path(source.path), asked, most)
    found = list(islice(rows, most))
    if not found:
        raise InputError(f"{source.label}: no rows")
    if len(found) > MOST_ROWS:
        raise InputError(_too_many_rows(source.label))
    check_columns(found[0].where, found[0].columns)
    if asked is not None:
        check_not_doubled(found[0].where, found[0].columns, asked)
    return found


def _too_many_rows(label: str) -> str:
    return f"{label}: more than {MOST_ROWS:,} rows; split it, or set limit"


def read_file(path: str) -> bytes:
    """The content of a local, `s3://` or `package://` file.

    Raises:
        InputError: there is no such file, it cannot be read or is too large.
    """
    path = local_path(path)
    file_size(path)
    try:
        return storage.read_bytes(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _file_rows(path: str, asked: Collection[str] | None, most: int) -> Iterable[SourceRow]:
    if is_folder(path):
        return _arrow_rows(ArrowRequest(path, path), asked, most)
    name = path.lower()
    suffix = next((s for s in (*_READERS, *_ARROW) if name.removesuffix(".gz").endswith(s)), None)
    if suffix is None:
        raise InputError(
            f"{path}: unknown format; expected {', '.join((*_READERS, *_ARROW))} (or .gz of these) "
            "or a local folder written by datasets.save_to_disk"
        )
    if suffix in _ARROW:
        file_size(path)
        return _arrow_rows(ArrowRequest(path, path), asked, most)
    data = read_file(path)
    try:
        data = unpacked(path, data) if name.endswith(".gz") else data
        if data.count(b",") > MOST_VALUES:
            raise InputError(f"{path}: more than {MOST_VALUES:,} values; split the file")
        return _READERS[suffix](path, data, asked, most)
    except InputError:
        raise
    except Exception as error:  # each reader has its own exceptions for a damaged file
        raise InputError(f"{path}: cannot be read as {suffix}: {error}") from error


def _jsonl_rows(path: str, data: bytes, _: Collection[str] | None, most: int) -> list[SourceRow]:
    problems = Problems()
    rows: list[SourceRow] = []
    for number, line in enumerate(io.BytesIO(data.rstrip()), start=1):  # blank lines at the end are no fault
        if len(rows) == most:
            break
        where = f"{path}:{number}"
        if not line.strip():
            problems.add(where, "empty line, expected a JSON object; remove the line")
            continue
        try:
            rows += _objects([SourceRow(where, parse_json(line))], problems)
        except ValueError as error:
            problems.add(where, f"not valid JSON ({error}); expected one JSON object per line")
    problems.raise_if_any()
    return rows


def _json_rows(path: str, data: bytes, _: Collection[str] | None, most: int) -> list[SourceRow]:
    records = parse_json(data)
    if not isinstance(records, list):
        raise InputError(f"{path}: expected a JSON list of objects, got {shortened(records, json.dumps)}")
    problems = Problems()
    rows = _objects(_numbered(f"{path}: record", records[:most]), problems)
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


def _csv_rows(path: str, data: bytes, asked: Collection[str] | None, most: int) -> list[SourceRow]:
    """Cells are text; an empty cell is a missing value (None)."""
    csv.field_size_limit(sys.maxsize)  # the default refuses solutions of more than 128 KiB
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    problems = Problems()
    rows: list[SourceRow] = []
    line = 1
    try:
        header = next(reader, [])
        check_columns(f"{path}:1", header)
        if repeated := [name for name, n in Counter(header).items() if n > 1]:
            problems.add(f"{path}:1", f"columns given twice: {', '.join(repeated)}")
        kept = [(i, name) for i, name in enumerate(header) if asked is None or name in asked]
        unread = tuple(name for name in header if asked is not None and name not in asked)
        # A quoted cell may span lines: a row starts behind the last line of the one before.
        line = reader.line_num + 1
        blank: list[str] = []  # lines since the last row: no fault at the end of the file
        for cells in reader:
            where, line = f"{path}:{line}", reader.line_num + 1
            if not cells:
                blank.append(where)
                continue
            for place in blank:
                problems.add(place, "empty line; remove the line")
            blank = []
            if len(cells) != len(header):
                problems.add(where, f"{len(cells)} cells, the header has {len(header)}")
            else:
                rows.append(SourceRow(where, {name: cells[i] or None for i, name in kept}, unread))
            if len(rows) == most:
                break
    except csv.Error as error:
        problems.add(f"{path}:{line}", f"not valid CSV ({error}); the row starts here")
    problems.raise_if_any()
    return rows


def _arrow_rows(request: ArrowRequest, asked: Collection[str] | None, most: int) -> Iterator[SourceRow]:
    request = replace(
        request, columns=None if asked is None else sorted(asked), limit=most, most_bytes=MOST_BYTES
    )
    number = 0
    for batch in batches(request):
        read, n_rows = batch.schema.names, batch.schema.metadata[b"rows"]
        if most > MOST_ROWS and n_rows and int(n_rows) > MOST_ROWS:  # not after minutes
            raise InputError(_too_many_rows(request.label))
        unread = tuple(n for n in json.loads(batch.schema.metadata[b"columns"]) if n not in set(read))
        for record in _records(request.label, batch, number):
            number += 1
            yield SourceRow(f"{request.label}: row {number}", record, unread)


def _records(label: str, batch: pa.RecordBatch, before: int) -> list[dict[str, Any]]:
    with suppress(Exception):  # e.g. a date that Python has not: the row is looked for
        return list(batch.to_pylist())
    records = []
    problems = Problems()
    for i in range(batch.num_rows):
        try:
            records += batch.slice(i, 1).to_pylist()
        except Exception as error:
            problems.add(f"{label}: row {before + i + 1}", f"cannot be decoded: {error}; remove the row")
    problems.raise_if_any()
    return records


def _numbered(place: str, records: Iterable[dict[str, Any]]) -> Iterator[SourceRow]:
    return (SourceRow(f"{place} {i}", record) for i, record in enumerate(records, start=1))


_ARROW = (".parquet", ".arrow")
_READERS: dict[str, Callable[[str, bytes, Collection[str] | None, int], Iterable[SourceRow]]] = {
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
}
