"""Rows of Parquet files, Arrow files and Hugging Face datasets, read in a process of their own.

The libraries that read them trust their input: a damaged or hostile file makes them crash or take all memory.
So a process with bounded memory and time reads the columns that are asked for, checks every value, and hands
the batches on as an Arrow stream.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from forecast import storage
from forecast.errors import ForecastError, InputError
from forecast.inputs import child_process
from forecast.inputs.read_limits import check_columns, unpacked

_MEMORY = 4 << 30  # bytes of the reading process
_MARK = "\x00"  # what stands behind it on standard error is the message


@dataclass(frozen=True)
class ArrowRequest:
    """What to read: a file or folder at `path`, or the arguments of `datasets.load_dataset`."""

    label: str  # how messages name it
    path: str = ""
    dataset: dict[str, str | None] | None = None
    columns: Sequence[str] | None = None  # those of them that there are; None: all
    limit: int | None = None  # rows
    batch: int = 1024  # rows
    most_bytes: int | None = None  # of the columns read
    seconds: int = 600  # of the processor


def batches(request: ArrowRequest) -> Iterator[pa.RecordBatch]:
    """Checked batches; the metadata `columns` of their schema names, as JSON, all columns that there are.

    Raises:
        InputError: it cannot be read, or takes too much memory or time; names rows that are damaged.
    """
    # That memory pool reserves nothing ahead, which would count.
    environment = child_process.environment() | {"ARROW_DEFAULT_MEMORY_POOL": "system"}
    command = child_process.python("-m", "forecast.inputs.arrow_batches", json.dumps(asdict(request)))
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words, env=environment
        )
        assert process.stdout is not None
        try:
            with process.stdout as pipe, pa.ipc.open_stream(pipe) as stream:
                yield from stream
        except pa.ArrowException:
            pass  # the stream was cut: how the process ended says why
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
        if process.returncode:
            words.seek(0)
            raise InputError(_cause(request, process.returncode, words.read().decode(errors="replace")))


def _cause(request: ArrowRequest, code: int, words: str) -> str:
    _, told, message = words.rpartition(_MARK)
    if told:
        return message
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"{request.label}: reading it was stopped for the memory or time that it took; split it"
    how = child_process.how_ended(code)
    return f"{request.label}: its reader crashed ({how}), so it is damaged; write it anew"


def _main() -> None:
    """The reading process: a request as argument, the stream to standard output."""
    request = ArrowRequest(**json.loads(sys.argv[1]))
    child_process.limit(resource.RLIMIT_DATA, _MEMORY)
    child_process.limit(resource.RLIMIT_CPU, request.seconds)
    child_process.limit(resource.RLIMIT_CORE, 0)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no data
    try:
        _write(request, output)
        output.flush()
        os._exit(0)  # the threads of libraries are not waited for
    except ForecastError as error:
        message = str(error)
    except MemoryError:
        message = f"{request.label}: takes more than {_MEMORY:,} bytes of memory to read; split it"
    except BrokenPipeError:
        os._exit(0)  # no more rows are needed
    except Exception as error:  # each library has its own exceptions for a damaged file
        message = f"{request.label}: cannot be read: {error}"
    print(_MARK + message, end="", file=sys.stderr, flush=True)
    os._exit(1)


def _write(request: ArrowRequest, output: Any) -> None:
    schema, read = _dataset(request) if request.dataset or is_folder(request.path) else _file(request)
    names = schema.names
    check_columns(request.label, names)
    wanted = set(names if request.columns is None else request.columns)
    asked = [name for name in names if name in wanted] or names[:1]  # a row of no columns is none
    if repeated := _repeated([field for field in schema if field.name in set(asked)]):
        raise InputError(f"{request.label}: columns given twice: {', '.join(repeated)}; rename or remove one")
    try:
        plain = [_plain(schema.field(name).type) for name in asked]
    except InputError as error:
        raise InputError(f"{request.label}: {error}") from None
    chosen = pa.schema(
        list(zip(asked, plain, strict=True)),
        {"columns": json.dumps(names), "rows": (schema.metadata or {}).get(b"rows", b"")},
    )
    row = size = 0
    with pa.ipc.new_stream(output, chosen) as stream:
        for batch in read(asked):
            batch = batch.slice(0, None if request.limit is None else request.limit - row)
            _check(request.label, batch, row)
            batch = batch.cast(chosen)
            row += batch.num_rows
            size += batch.nbytes
            if request.most_bytes is not None and size > request.most_bytes:
                raise InputError(
                    f"{request.label}: more than {request.most_bytes:,} bytes by row {row}; "
                    "split it, or set limit to the number of rows needed"
                )
            stream.write_batch(batch)
            if row == request.limit:
                return


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without what lets many rows share one value: a few bytes of a file would be gigabytes of rows.

    Raises:
        InputError: of a type that no data set of texts needs.
    """
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return pa.string() if pa.types.is_string_view(kind) else pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain(kind.value_type)))
    if any(word in str(kind) for word in ("view", "run_end_encoded", "dictionary")):
        raise InputError(f"a column is of type {kind}, expected texts, numbers, lists or records; convert it")
    return kind


def _check(label: str, batch: pa.RecordBatch, before: int) -> None:
    """Raises: InputError: rows with values that are none, e.g. texts that are not UTF-8."""
    try:
        batch.validate(full=True)
        return
    except pa.ArrowInvalid as error:
        fault = f"damaged values ({error})"
    for i in range(batch.num_rows):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.slice(i, 1).validate(full=True)
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"{label}: row {before + i + 1}: column {name!r} is damaged ({error}); "
                    "repair or remove the row"
                ) from None
    raise InputError(f"{label}: rows {before + 1} to {before + batch.num_rows}: {fault}; write it anew")


def is_folder(path: str) -> bool:
    """Whether a path is a local folder."""
    with suppress(OSError):  # e.g. a name that is too long
        return not storage.is_remote(path) and Path(path).is_dir()
    return False


def _file(request: ArrowRequest) -> tuple[pa.Schema, Any]:
    """The schema of a Parquet or Arrow file, and what reads chosen columns of it."""
    fs, inner = storage.filesystem(request.path)
    source: Any = fs.open_input_file(inner)
    name = request.path.lower()
    if name.endswith(".gz"):
        source = pa.BufferReader(unpacked(request.path, source.read()))
    if name.removesuffix(".gz").endswith(".parquet"):
        file = pq.ParquetFile(source)
        schema = file.schema_arrow.with_metadata({"rows": str(file.metadata.num_rows)})
        return schema, lambda columns: file.iter_batches(request.batch, columns=columns, use_threads=False)
    # Both Arrow formats: the stream, which `datasets` writes, and the file (also called Feather).
    magic = source.read(6)
    source.seek(0)
    if magic == b"ARROW1":
        opened = pa.ipc.open_file(source)
        every = (opened.get_batch(i) for i in range(opened.num_record_batches))
    else:
        opened = every = pa.ipc.open_stream(source)
    return opened.schema, lambda columns: _pieces((b.select(columns) for b in every), request.batch)


def _pieces(batches: Any, rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _dataset(request: ArrowRequest) -> tuple[pa.Schema, Any]:
    """As `_file`, of a Hugging Face dataset; images and the like are not decoded."""
    import datasets

    if request.dataset is None:
        try:
            data = datasets.load_from_disk(request.path)
        except Exception as error:
            raise InputError(
                f"{request.label}: not a folder written by datasets.save_to_disk: {error}"
            ) from error
        if isinstance(data, datasets.DatasetDict):
            splits = ", ".join(map(str, data))
            raise InputError(f"{request.label}: holds several splits; name the folder of one: {splits}")
    else:
        try:
            data = datasets.load_dataset(**request.dataset)
        except Exception as error:  # the library raises dozens of types: offline, missing, gated, bad split
            raise InputError(f"{request.label}: cannot be loaded: {error}") from error

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        chosen = data.select_columns(columns).with_format("arrow")
        for table in chosen.iter(request.batch):
            yield from table.combine_chunks().to_batches()

    return data.features.arrow_schema, read


def _repeated(fields: Sequence[pa.Field]) -> list[str]:
    """Names that stand twice on one level: a row as a Python object would keep the last value."""
    found = [name for name, n in Counter(field.name for field in fields).items() if n > 1]
    for field in fields:
        inner = field.type
        while pa.types.is_list(inner) or pa.types.is_large_list(inner) or pa.types.is_fixed_size_list(inner):
            inner = inner.value_type
        if pa.types.is_struct(inner):
            found += _repeated(list(inner))
    return found


if __name__ == "__main__":
    _main()
