"""Content hashes of model files.

A candidate is addressed by what its files hold, never by their names: a new model saved under an old name is a new
candidate. Hashes are remembered per file identity (device, inode, size, both change times), so that a nightly run over
many checkpoints reads each file once; any write to a file changes its ctime and voids the memory.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from forecast import storage

_CHUNK = 1 << 22


def content_hash(path: Path) -> str:
    """Hexadecimal BLAKE2b of a file's content, remembered between processes."""
    real = path.resolve()
    stat = real.stat()
    identity = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    memory = _cache_folder() / (hashlib.blake2b(str(real).encode(), digest_size=16).hexdigest() + ".json")
    try:
        known = json.loads(memory.read_text())
        if known["identity"] == identity:
            return str(known["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no memory of it, or a damaged one: read the file
    digest = hashlib.blake2b(digest_size=20)
    with real.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    try:
        storage.write_bytes(str(memory), json.dumps({"identity": identity, "hash": digest.hexdigest()}).encode())
    except OSError:
        pass  # a read-only home costs a second reading, nothing else
    return digest.hexdigest()


def digest_of(*parts: object) -> str:
    """Sixteen hexadecimal digits that stand for JSON-serialisable values."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def files_digest(files: Iterable[Path]) -> str:
    """One digest for a set of files: their names within the folder and their contents."""
    return digest_of(sorted((path.name, content_hash(path)) for path in files))


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forecast" / "hashes"
