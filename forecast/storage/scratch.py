"""Folders for what is needed only while a process works, below TMPDIR."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forecast.storage.errors import StorageError

_PREFIX = "forecast-scratch-"


@contextmanager
def scratch() -> Iterator[Path]:
    """A fresh folder, removed at the end; folders of processes that were killed are removed first.

    Raises:
        StorageError: TMPDIR takes no folder.
    """
    try:
        folder, held = _locked_folder()
    except OSError as error:
        raise StorageError(
            f"no folder can be made for temporary files: {error.strerror}; make room, or set TMPDIR to a "
            "folder that can be written to"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _locked_folder() -> tuple[Path, int]:
    """The lock ends with its process, however that ends, so a folder without one belongs to nobody."""
    for abandoned in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if (lock := _lock(abandoned)) is not None:
            shutil.rmtree(abandoned, ignore_errors=True)
            os.close(lock)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _lock(folder)
        if lock is not None and folder.exists():  # else another process took it for an abandoned one
            return folder, lock


def _lock(folder: Path) -> int | None:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # it is gone, or another user's
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock
