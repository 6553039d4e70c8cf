"""How much of a file is read: more than this takes the memory of the machine, by mistake or on purpose."""

import gzip
import io
from collections.abc import Collection

from forecast import storage
from forecast.errors import InputError

MOST_BYTES = 1 << 30  # of a file, and of the columns read from one
MOST_ROWS = 5_000_000
MOST_VALUES = 50_000_000  # of a text file, counted by its commas
_MOST_COLUMNS = 10_000
_LONGEST_NAME = 1_000  # characters
_MOST_UNPACKED = 256 << 20  # bytes


def file_size(path: str) -> int:
    """Bytes of a file.

    Raises:
        InputError: there is none, it is no regular file, or it is too large to be read whole.
    """
    try:
        size = storage.file_size(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if size > MOST_BYTES:
        raise InputError(f"{path}: {size:,} bytes, expected at most {MOST_BYTES:,}; split the file")
    return size


def unpacked(path: str, data: bytes) -> bytes:
    """The content of a gzip file.

    Raises:
        InputError: it is longer than can be meant: a few megabytes unpack to gigabytes.
    """
    with gzip.open(io.BytesIO(data)) as stream:
        content = stream.read(_MOST_UNPACKED + 1)
    if len(content) > _MOST_UNPACKED:
        raise InputError(
            f"{path}: unpacks to more than {_MOST_UNPACKED:,} bytes; if that is meant, unpack it with gunzip"
        )
    return content


def check_columns(label: str, names: Collection[str]) -> None:
    """Raises: InputError: more columns, or longer names, than can be meant."""
    if len(names) > _MOST_COLUMNS:
        raise InputError(f"{label}: {len(names):,} columns, expected at most {_MOST_COLUMNS:,}")
    if (longest := max(map(len, names), default=0)) > _LONGEST_NAME:
        raise InputError(
            f"{label}: a column's name has {longest:,} characters; expected a table with a header"
        )
