"""Files on a local disk or an object store, behind one handful of functions.

Every path of the project is a local path or an `s3://bucket/key` URI. A write is all or nothing: local files
are written aside, flushed to disk and renamed; an object store publishes an object only when its upload is
complete. Endpoint (`AWS_ENDPOINT_URL`), region and credentials of an object store come from the usual `AWS_*`
variables. What the store or the disk refuses is a `StorageError`, which names what to check.
"""

import contextlib
import os
import re
import socket
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pyarrow.fs as pafs

from forecast.storage.errors import StorageError, explained, no_bucket

_S3 = "s3://"
_TEMPORARY = re.compile(r"^\.(?P<name>.+)\.(?P<host>[^@]+)@(?P<pid>\d+)@[0-9a-f]{32}\.tmp$")


def is_remote(path: str) -> bool:
    """True for `s3://...`, False for local paths."""
    return path.startswith(_S3)


def join(base: str, *parts: str) -> str:
    """Join a path or URI with further components."""
    if is_remote(base):
        return "/".join([base.rstrip("/"), *parts])
    return str(Path(base, *parts))


def resolve(path: str, base: str | Path) -> str:
    """An absolute path: URIs as they are, `~` expanded, relative paths taken from the folder `base`."""
    if "://" in path:
        return path
    return str(Path(os.path.normpath(Path(base) / Path(path).expanduser())))


def bucket_problem(path: str) -> str | None:
    """What is wrong with the bucket in `s3://BUCKET/...`; None where nothing is, and for local paths.

    Whatever stood beside its name (keys, an endpoint) would be obeyed by the client, and be read in messages.
    """
    bucket = path.removeprefix(_S3).partition("/")[0]
    if not is_remote(path) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket):
        return None
    return (
        f"{path}: expected s3://BUCKET/PREFIX; keys and endpoints do not belong into it, set "
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
    )


def filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow filesystem of a path and the path as that filesystem wants it."""
    if not is_remote(path):
        return pafs.LocalFileSystem(), str(Path(path).absolute())
    if (problem := bucket_problem(path)) is not None:
        raise StorageError(problem)
    inner = path.removeprefix(_S3)
    return _object_store(inner.partition("/")[0], os.environ.get("AWS_ENDPOINT_URL")), inner


@lru_cache(maxsize=64)
def _object_store(bucket: str, endpoint: str | None) -> pafs.FileSystem:
    """One client per bucket: each asks for the bucket's region once and keeps its connections.

    Made from a URI because `S3FileSystem()` itself does not read `AWS_ENDPOINT_URL`. Only the bucket is in
    that URI: keys with spaces, `#` or `%` would not survive it. The endpoint is an argument so that a change
    of it makes a new client.
    """
    fs, _ = pafs.FileSystem.from_uri(_S3 + bucket)
    return fs


def exists(path: str) -> bool:
    """Whether a file or folder exists."""
    if not is_remote(path):
        return Path(path).exists()
    with explained(path):
        fs, inner = filesystem(path)
        return bool(fs.get_file_info(inner).type != pafs.FileType.NotFound)


def read_bytes(path: str) -> bytes:
    """The whole content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: it cannot be read.
    """
    with explained(path):
        if not is_remote(path):
            return Path(path).read_bytes()
        fs, inner = filesystem(path)
        with fs.open_input_stream(inner, compression=None) as stream:
            return bytes(stream.read())


def file_size(path: str) -> int:
    """Bytes of a file.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: a folder, device or pipe.
    """
    with explained(path):
        fs, inner = filesystem(path)
        info = fs.get_file_info(inner)
    if info.type == pafs.FileType.NotFound:
        raise FileNotFoundError(path)
    if info.type != pafs.FileType.File:
        raise OSError("expected a file, it is a folder, a device or a pipe")
    return int(info.size)


def write_bytes(path: str, data: bytes) -> None:
    """Write a file whole or not at all; a reader sees the old content or the new, never a part."""
    with explained(path):
        if is_remote(path):
            fs, inner = filesystem(path)
            with fs.open_output_stream(inner, compression=None) as stream:
                stream.write(data)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = temporary_beside(target)
        try:
            with aside.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())  # a rename may reach the disk before the data does
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)


def try_out(folder: str) -> None:
    """Write a small file into a folder and remove it: a full or locked place is an error before the work.

    Raises:
        StorageError: the folder takes no files.
    """
    path = join(folder, temporary_beside(Path("tried")).name)
    try:
        write_bytes(path, bytes(1 << 16))
    except StorageError as error:
        raise StorageError(str(error).replace(path, folder)) from error
    remove(path)


def remove(path: str) -> None:
    """Remove a file; it is no error where there is none."""
    with contextlib.suppress(FileNotFoundError), explained(path):
        if not is_remote(path):
            Path(path).unlink()
            return
        fs, inner = filesystem(path)
        fs.delete_file(inner)


def temporary_beside(target: Path) -> Path:
    """A fresh hidden name in the target's folder that says which process is writing it."""
    return target.with_name(f".{target.name}.{socket.gethostname()}@{os.getpid()}@{uuid.uuid4().hex}.tmp")


def sweep_temporaries(folder: str) -> int:
    """Remove what writers killed on this host left behind below `folder`; returns how many files."""
    if is_remote(folder) or not Path(folder).is_dir():
        return 0
    removed = 0
    for path in Path(folder).rglob(".*.tmp"):
        match = _TEMPORARY.match(path.name)
        if match and match["host"] == socket.gethostname() and not is_alive(int(match["pid"])):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def is_alive(pid: int) -> bool:
    """Whether a process of this host runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def list_files(folder: str, suffix: str) -> dict[str, int]:
    """All files below a folder whose names end in `suffix`, hidden ones left out: path -> size in bytes.

    Raises:
        StorageError: there is not even such a bucket, or the store does not answer.
    """
    if not is_remote(folder):
        root = Path(folder)
        if not root.is_dir():
            return {}
        found = {}
        with explained(folder):
            for entry in _files_below(str(root)):
                if entry.name.endswith(suffix) and not entry.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile, or a link to nothing
                        found[entry.path] = entry.stat().st_size
        return dict(sorted(found.items()))
    with explained(folder):
        fs, inner = filesystem(folder)
        entries = fs.get_file_info(pafs.FileSelector(inner, recursive=True, allow_not_found=True))
        # A listing does not tell an empty bucket from none.
        if not entries and fs.get_file_info(inner.partition("/")[0]).type == pafs.FileType.NotFound:
            raise StorageError(no_bucket(folder))
    return {
        _S3 + e.path: e.size
        for e in sorted(entries, key=lambda e: e.path)
        if e.type == pafs.FileType.File and e.base_name.endswith(suffix) and not e.base_name.startswith(".")
    }


def _files_below(folder: str) -> Iterator[os.DirEntry[str]]:
    """As `Path.rglob`, several times as fast: a lake has a hundred thousand files and more."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(entry.path)
            else:
                yield entry
