"""Reads the next candidate's weights while the present one scores, so that loading finds them in memory.

The files go through the operating system's page cache and nowhere else: nothing is kept here, and a wrong
guess costs some reading. Files of a hub or an object store are downloaded on the way.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from forecast.inputs.models.resolve import Candidate, locate_files

_log = logging.getLogger(__name__)
_CHUNK = 1 << 22
# Pages of weights that nobody uses yet must not drive out those of the candidate at work.
_MOST_OF_FREE_MEMORY = 0.5


class Prefetcher:
    """One candidate at a time, in a thread that ends with the process."""

    def __init__(self, free_memory: Callable[[], int] | None = None) -> None:
        """Args: free_memory: bytes of main memory that are available; default: what the system says."""
        self._free_memory = free_memory or _available
        self._thread: threading.Thread | None = None
        self._seen: set[str] = set()

    def start(self, candidate: Candidate) -> None:
        """Begin to read a candidate's files; does nothing for one that was begun before or is made up."""
        busy = self._thread is not None and self._thread.is_alive()
        if busy or candidate.files_digest is None or candidate.files_digest in self._seen:
            return
        self._seen.add(candidate.files_digest)
        self._thread = threading.Thread(target=self._read, args=(candidate,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until what was begun is read."""
        if self._thread is not None:
            self._thread.join()

    def _read(self, candidate: Candidate) -> None:
        try:
            weights = locate_files(candidate.settings).weights
            size = sum(path.stat().st_size for path in weights)
            if size <= _MOST_OF_FREE_MEMORY * self._free_memory():
                read_through(weights)
        except Exception as error:  # loading the candidate will say it properly
            _log.info("candidate %r was not read ahead: %s", candidate.name, error)


def read_through(paths: Iterable[Path]) -> int:
    """Read files from end to end into the page cache; returns the number of bytes."""
    total = 0
    buffer = bytearray(_CHUNK)
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            while n := stream.readinto(buffer):
                total += n
    return total


def _available() -> int:
    """What could be used without swapping: free pages, and pages of files that nobody needs."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
