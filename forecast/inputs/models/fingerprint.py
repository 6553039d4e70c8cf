"""Content hashes of model files.

A candidate is addressed by what its files hold, never by their names: a new model saved under an old name is
a new candidate. Hashes are remembered per file identity (device, inode, size, both change times), so that a
nightly run over many checkpoints reads each file once; any write to a file changes its ctime, which no
program can set back, and voids the memory.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from forecast import storage

# Two writes within one tick of the file system's clock (up to a second on network disks) leave the same
# change time, so a file is remembered only once its last change is older than that.
_SETTLED_SECONDS = 2.0


def content_hash(path: Path) -> str:
    """Hexadecimal BLAKE2b of a file's content, remembered between processes.

    Raises:
        OSError: the file cannot be read.
    """
    return str(remembered(path, "content", _hash_of_content))


def remembered(path: Path, what: str, compute: Callable[[Path], str | int]) -> str | int:
    """A value that depends on nothing but a file's content, remembered between processes.

    Args:
        what: names the value; another computation takes another name.
    """
    real = path.resolve()
    stat = real.stat()
    # What changes whenever the file is written; times in nanoseconds.
    identity = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    name = hashlib.blake2b(f"{what}\0".encode() + os.fsencode(real), digest_size=16).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forecast" / "files"
    memory = cache / f"{name}.json"
    try:
        known = json.loads(memory.read_text())
        if known["identity"] == identity:
            found: str | int = known["value"]
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no memory of it, or a damaged one: read the file
    value = compute(real)
    if time.time() - real.stat().st_ctime > _SETTLED_SECONDS:
        with contextlib.suppress(OSError):  # a read-only home costs a second reading, nothing else
            storage.write_bytes(str(memory), json.dumps({"identity": identity, "value": value}).encode())
    return value


def digest_of(*parts: object) -> str:
    """Sixteen hexadecimal digits that stand for JSON-serialisable values."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


def files_digest(files: Mapping[str, Path]) -> str:
    """One digest for a set of files: the names given to them here and their contents; not where they lie."""
    return digest_of(sorted((name, content_hash(path)) for name, path in files.items()))


def _hash_of_content(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=20)).hexdigest()
