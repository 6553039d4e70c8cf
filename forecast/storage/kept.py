"""Results that were computed before: JSON in a folder beside what they were computed from.

A result is found by the content of everything that it follows from, the program's own sources included, so
another input, option or version finds nothing and computes. The folder is a convenience: it may be deleted,
may not be writable, and whatever in it is not as written here is ignored with a sentence.
"""

import dataclasses
import hashlib
import importlib.metadata
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel
from pydantic_core import to_json

from forecast.storage.errors import StorageError
from forecast.storage.files import is_remote, write_bytes
from forecast.storage.records import checked, parsed_json, plain

T = TypeVar("T")

FOLDER = "kept"
_MOST_FILES = 32  # of a folder; the newest stay
_MOST_BYTES = 1 << 26  # of a file
_NAME = re.compile(r"[a-z-]+-[0-9a-f]{32}\.json")
_COMPUTED_WITH = ("numpy", "scipy", "scikit-learn", "polars", "duckdb")


def kept_or_computed(
    output: str,
    name: str,
    kind: type[T],
    inputs: Sequence[Any],
    compute: Callable[[], T],
    note: Callable[[str], None],
) -> T:
    """A kept result, else a computed one, which is kept then.

    Args:
        output: folder whose `kept` holds results; in an object store nothing is kept.
        name: of the analysis, small letters and hyphens.
        kind: a dataclass that JSON can hold.
        inputs: all that the result follows from, see `content_key`.
        note: told in a sentence of a file that is not used.
    """
    found = kept(output, name, kind, inputs, note)
    if found is None:
        found = compute()
        keep(output, name, kind, inputs, found)
    return found


def keep(output: str, name: str, kind: type[T], inputs: Sequence[Any], result: T) -> None:
    """Keep a result; see `kept_or_computed`."""
    if not is_remote(output):
        _keep(_path(output, name, inputs), to_json(plain(kind, result), inf_nan_mode="constants"))


def kept(
    output: str, name: str, kind: type[T], inputs: Sequence[Any], note: Callable[[str], None]
) -> T | None:
    """A kept result, for those who only read an output; None where there is none."""
    if is_remote(output):
        return None
    path = _path(output, name, inputs)
    try:
        data = _read(path)
        return None if data is None else checked(kind, parsed_json(data))
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        note(f"{path} is not a kept result ({reason}); it is ignored, the result is computed again")
        return None


def _path(output: str, name: str, inputs: Sequence[Any]) -> Path:
    return Path(output) / FOLDER / f"{name}-{content_key(*inputs)}.json"


def _read(path: Path) -> bytes | None:
    """None where there is none. Links are not followed, nor is anything opened that is no plain file.

    Raises:
        ValueError: no plain file, or too large.
    """
    if path.parent.is_symlink() or path.is_symlink():
        raise ValueError("a link")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("no plain file")
        if status.st_size > _MOST_BYTES:
            raise ValueError(f"{status.st_size:,} bytes")
        return stream.read()


def _keep(path: Path, data: bytes) -> None:
    """Write, and remove the oldest beyond `_MOST_FILES`; a folder that takes no files is no error."""
    if len(data) > _MOST_BYTES or path.parent.is_symlink() or path.is_symlink():
        return
    try:
        write_bytes(str(path), data)
        own = [p for p in path.parent.iterdir() if _NAME.fullmatch(p.name) and not p.is_symlink()]
        for old in sorted(own, key=lambda p: p.lstat().st_mtime, reverse=True)[_MOST_FILES:]:
            old.unlink(missing_ok=True)
    except (StorageError, OSError):
        pass


def content_key(*parts: Any) -> str:
    """A hash of values, by content: dataclasses, settings, arrays, mappings, sequences, sets, plain values.

    The program's sources and the versions of what it computes with are counted in.

    Raises:
        TypeError: a value of another type.
    """
    digest = hashlib.blake2b(digest_size=16)
    _add(digest, (_program(), *parts))
    return digest.hexdigest()


def _add(digest: "hashlib.blake2b", value: Any) -> None:
    digest.update(type(value).__name__.encode() + b":")
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of objects has no content to hash")
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data if value.size else b"")
    elif isinstance(value, BaseModel):
        _add(digest, value.model_dump(mode="json"))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _add(digest, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    elif isinstance(value, Mapping):
        digest.update(f"{len(value)};".encode())
        for key, own in value.items():  # in order: it may decide between equals
            _add(digest, key)
            _add(digest, own)
    elif isinstance(value, Set):
        _add(digest, sorted(map(repr, value)))
    elif isinstance(value, str | bytes):
        data = value.encode() if isinstance(value, str) else value
        digest.update(f"{len(data)};".encode() + data)
    elif isinstance(value, Sequence):
        digest.update(f"{len(value)};".encode())
        for own in value:
            _add(digest, own)
    elif value is None or isinstance(value, bool | int | float):
        digest.update(repr(value).encode() + b";")
    else:
        raise TypeError(f"{type(value).__name__} has no content to hash")


@cache
def _program() -> str:
    """The sources of this package, and the versions of the packages that compute."""
    digest = hashlib.blake2b(digest_size=16)
    root = Path(__file__).parents[1]
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.sql")]):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    for package in _COMPUTED_WITH:
        digest.update(f"{package} {importlib.metadata.version(package)};".encode())
    return digest.hexdigest()
