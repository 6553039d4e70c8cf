"""Files on a local disk or an object store, behind one handful of functions.

Every path of the project is a local path or an `s3://bucket/key` URI. A write is all or nothing: local files are
written aside, flushed to disk and renamed; an object store publishes an object only when its upload is complete.
Endpoint and credentials of an object store come from the usual `AWS_*` environment variables.
"""

import os
import re
import socket
import uuid
from pathlib import Path

import pyarrow.fs as pafs

_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]+://")
_TEMPORARY = re.compile(r"^\.(?P<name>.+)\.(?P<host>[^@]+)@(?P<pid>\d+)@[0-9a-f]{32}\.tmp$")


def is_remote(path: str) -> bool:
    """True for `s3://...` and other filesystem URIs, False for local paths."""
    return bool(_SCHEME.match(path)) and not path.startswith("file://")


def join(base: str, *parts: str) -> str:
    """Join a path or URI with further components."""
    if is_remote(base):
        return "/".join([base.rstrip("/"), *parts])
    return str(Path(base, *parts))


def resolve(path: str, base: str | Path) -> str:
    """An absolute path: URIs as they are, `~` expanded, relative paths taken from the folder `base`."""
    if _SCHEME.match(path):
        return path
    return str(Path(os.path.normpath(Path(base) / Path(path).expanduser())))


def filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow filesystem of a path and the path as that filesystem wants it."""
    if is_remote(path):
        return pafs.FileSystem.from_uri(path)
    return pafs.LocalFileSystem(), str(Path(path).absolute())


def exists(path: str) -> bool:
    """Whether a file or folder exists."""
    if not is_remote(path):
        return Path(path).exists()
    fs, inner = filesystem(path)
    return fs.get_file_info(inner).type != pafs.FileType.NotFound


def read_bytes(path: str) -> bytes:
    """The whole content of a file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not is_remote(path):
        return Path(path).read_bytes()
    fs, inner = filesystem(path)
    with fs.open_input_stream(inner) as stream:
        return stream.read()


def write_bytes(path: str, data: bytes) -> None:
    """Write a file whole or not at all; a reader sees the old content or the new, never a part."""
    if is_remote(path):
        fs, inner = filesystem(path)
        with fs.open_output_stream(inner) as stream:
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


def temporary_beside(target: Path) -> Path:
    """A fresh hidden name in the target's folder that says which process is writing it."""
    return target.with_name(f".{target.name}.{socket.gethostname()}@{os.getpid()}@{uuid.uuid4().hex}.tmp")


def sweep_temporaries(folder: str) -> int:
    """Remove what writers that were killed on this host left behind below `folder`; returns how many files."""
    if is_remote(folder) or not Path(folder).is_dir():
        return 0
    removed = 0
    for path in Path(folder).rglob(".*.tmp"):
        match = _TEMPORARY.match(path.name)
        if match and match["host"] == socket.gethostname() and not _alive(int(match["pid"])):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def list_files(folder: str, suffix: str) -> dict[str, int]:
    """All files below a folder whose names end in `suffix`, hidden ones left out: path -> size in bytes."""
    if not is_remote(folder):
        root = Path(folder)
        if not root.is_dir():
            return {}
        found = (p for p in root.rglob(f"*{suffix}") if not p.name.startswith("."))
        return {str(p): p.stat().st_size for p in sorted(found)}
    fs, inner = filesystem(folder)
    scheme = folder.split("://", 1)[0]
    entries = fs.get_file_info(pafs.FileSelector(inner, recursive=True, allow_not_found=True))
    return {
        f"{scheme}://{e.path}": e.size
        for e in sorted(entries, key=lambda e: e.path)
        if e.type == pafs.FileType.File and e.base_name.endswith(suffix) and not e.base_name.startswith(".")
    }
