"""Documents of a corpus, streamed: text, JSONL and Parquet, also compressed, local or in an object store.

Only a piece of a file is in memory at a time: a megabyte of text, one line of JSONL, a batch of 64 rows of
Parquet. Compression follows from the name: .gz, .zst, .bz2, .lz4.
"""

import io
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from forecast import storage
from forecast.errors import InputError, listed
from forecast.inputs.arrow_batches import ArrowRequest, batches
from forecast.inputs.files import local_path
from forecast.inputs.literals import parse_json

_PIECE = 1 << 20  # bytes
_ROWS = 64
_LONGEST_LINE = 64 << 20  # bytes
_UNSUSPECTED, _MOST_RATIO = 256 << 20, 200  # bytes of content; of text, a ratio of 20 is much
_KINDS = (".txt", ".md", ".jsonl", ".ndjson", ".parquet")
_COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}


@dataclass(frozen=True)
class Piece:
    """A part of a document; `starts` marks the first part of each."""

    text: str
    starts: bool


@dataclass
class CorpusProgress:
    """What has been read so far."""

    files: int = 0
    documents: int = 0
    without_text: int = 0  # rows whose text is null or empty
    bytes_done: int = 0  # as stored
    bytes_total: int = 0


def corpus_files(paths: list[str]) -> list[tuple[str, int]]:
    """The files of the given files and folders (all below a folder), with their sizes, in order.

    Raises:
        InputError: nothing there, or a file of an unknown kind.
    """
    found: dict[str, int] = {}
    for path in map(local_path, paths):
        inside = {name: size for name, size in storage.list_files(path, "").items() if _kind(name)}
        if inside:
            found |= inside
        elif storage.exists(path) and _kind(path) is not None:
            fs, inner = storage.filesystem(path)
            found[path] = fs.get_file_info(inner).size
        else:
            what = f"no file that ends in {', '.join(_KINDS)} (or compressed)"
            raise InputError(f"corpus {path}: {what if storage.exists(path) else 'no such file or folder'}")
    return list(found.items())


def read_corpus(
    files: list[tuple[str, int]],
    column: str,
    progress: CorpusProgress,
    on_progress: Callable[[CorpusProgress], None] | None = None,
) -> Iterator[Piece]:
    """All documents, piece by piece.

    Args:
        column: that holds the text of JSONL and Parquet rows.
        progress: is filled with what has been read.
        on_progress: called with it after each piece.

    Raises:
        InputError: a file cannot be read, or a row has no such column or no text in it; names file and row.
    """
    progress.bytes_total, before = sum(size for _, size in files), 0
    for path, size in files:
        progress.files += 1
        for piece, at in _pieces(path, column, progress):
            progress.bytes_done = min(before + at, before + size)
            if piece is not None:
                progress.documents += piece.starts
                yield piece
            if on_progress is not None:
                on_progress(progress)
        before += size
        progress.bytes_done = before
    if on_progress is not None:
        on_progress(progress)


def _kind(path: str) -> str | None:
    name = path.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return next((kind for kind in _KINDS if name.endswith(kind)), None)


def _pieces(path: str, column: str, progress: CorpusProgress) -> Iterator[tuple[Piece | None, int]]:
    kind = _kind(path)
    fs, inner = storage.filesystem(path)
    try:
        with fs.open_input_file(inner) as raw:
            codec = next((c for ending, c in _COMPRESSED.items() if path.lower().endswith(ending)), None)
            if kind == ".parquet":
                if codec is not None:
                    raise InputError(f"{path}: Parquet is compressed inside; unpack it")
                yield from _parquet(path, raw.size(), column, progress)
                return
            stream = raw if codec is None else _Unpacked(path, raw, codec)
            buffered = io.BufferedReader(stream, _PIECE)
            is_text = kind in (".txt", ".md")
            for piece in _text(path, buffered) if is_text else _lines(path, buffered, column, progress):
                yield piece, raw.tell()
    except InputError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _text(path: str, stream: io.BufferedReader) -> Iterator[Piece]:
    text = io.TextIOWrapper(stream, "utf-8", newline="")
    starts = True
    try:
        while part := text.read(_PIECE):
            yield Piece(part, starts)
            starts = False
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error.reason}") from None


def _lines(
    path: str, stream: io.BufferedReader, column: str, progress: CorpusProgress
) -> Iterator[Piece | None]:
    for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE + 1), b""), 1):
        where = f"{path}:{number}"
        if len(line) > _LONGEST_LINE:
            raise InputError(f"{where}: a line of more than {_LONGEST_LINE:,} bytes; split the document")
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError as error:
            raise InputError(f"{where}: not valid JSON ({error}); expected one object a line") from None
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected a JSON object, got {type(record).__name__}")
        yield _row(where, record, column, progress)


def _row(where: str, record: dict[str, Any], column: str, progress: CorpusProgress) -> Piece | None:
    _check_column(where, column, record)
    text = record[column]
    if text is None or text == "":
        progress.without_text += 1
        return None
    if not isinstance(text, str):
        raise InputError(f"{where}: {column} is no text but {type(text).__name__}")
    return Piece(text, True)


def _check_column(where: str, column: str, names: Collection[str]) -> None:
    if column not in names:
        raise InputError(
            f"{where}: no column {column!r}; name the one that holds the text with --corpus-column; "
            f"there are: {listed(names)}"
        )


def _parquet(
    path: str, size: int, column: str, progress: CorpusProgress
) -> Iterator[tuple[Piece | None, int]]:
    row = 0
    request = ArrowRequest(path, path, columns=[column], batch=_ROWS, seconds=600 + size // _PIECE)
    for batch in batches(request):
        _check_column(path, column, json.loads(batch.schema.metadata[b"columns"]))
        n_rows = int(batch.schema.metadata[b"rows"])
        for text in batch.column(column).to_pylist():
            row += 1
            yield _row(f"{path}: row {row}", {column: text}, column, progress), size * row // n_rows


class _Unpacked(io.RawIOBase):
    """A compressed file as its content, up to what cannot be a text: a thousandth of it on the disk."""

    def __init__(self, path: str, packed: Any, codec: str) -> None:
        self._path, self._packed, self._bytes = path, packed, 0
        self._stream = pa.CompressedInputStream(packed, codec)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._bytes += len(data)
        if self._bytes > max(_UNSUSPECTED, _MOST_RATIO * self._packed.tell()):
            raise InputError(
                f"{self._path}: unpacks to more than {_MOST_RATIO} times its size; if that is meant, "
                "unpack it first"
            )
        buffer[: len(data)] = data
        return len(data)
