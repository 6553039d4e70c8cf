"""One nightly run at a time for an output folder, also between machines, and also after a crash.

The lock is a lease: a file `OUTPUT/nightly/lock.json` that names its owner and the time of the last
heartbeat, one a minute. A lease without a heartbeat for a quarter of an hour is taken over, as is one that is
dated ahead of the clock and has no heartbeat for two minutes. On a local disk a kernel lock comes first,
which ends with its process, so that nobody waits for a dead owner there.

pyarrow offers no conditional write to an object store, so a run that wants the lock writes its lease, waits,
and reads whether the lease is still its own. Two runs that are both slower than that wait could both believe
they own it; the loser finds out at its next heartbeat and stops before it publishes. Until then both do the
same work into the same files, each of which is written whole.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from forecast import storage
from forecast.errors import ForecastError
from forecast.storage.records import UnixTime, checked, parsed_json

BEAT_SECONDS = 60.0
EXPIRY_SECONDS = 900.0
LONGEST_SECONDS = 43_200.0  # of a night, as the schedules in configs/deploy have it
SETTLE_SECONDS = 2.0  # longer than a store takes from one write to the reading of it
_FILE_BYTES = 1024  # a lease needs some 250

Pid = Annotated[int, Field(ge=1, lt=2**31)]


class LockedError(ForecastError):
    """Another run holds the lock; nothing was done."""


class StuckError(ForecastError):
    """Another run holds the lock for so long that somebody should look; nothing was done."""


class LostLockError(LockedError):
    """Another run took the lock over, because this one sent no heartbeat."""


@dataclass(frozen=True)
class Lease:
    """The owner of the lock; times are Unix times of the owner's clock."""

    token: str
    host: str
    machine: str  # one kernel and its process numbers; two containers may have one host name
    pid: Pid
    since: UnixTime
    beat: UnixTime

    def __str__(self) -> str:
        at = datetime.fromtimestamp(self.since, UTC).isoformat(sep=" ", timespec="seconds")
        return f"process {self.pid} on {self.host}, since {at.removesuffix('+00:00')} UTC"


class Lock:
    """The lock, held."""

    def __init__(self, path: str, lease: Lease, beat_seconds: float) -> None:
        self._path = path
        self._lease = lease
        self._beat_seconds = beat_seconds
        self._stop = threading.Event()
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._beat, daemon=True, name="nightly-lock")
        self._thread.start()

    def check(self) -> None:
        """Called before something is published.

        Raises:
            LostLockError: it is another's by now.
        """
        self._look()
        if self._lost is not None:
            raise LostLockError(
                f"the lock was taken over by {self._lost}, because this run sent no heartbeat; "
                "this run stops, the other one continues"
            )

    def release(self) -> None:
        """Give it back."""
        self._stop.set()
        self._thread.join()
        self._look()
        if self._lost is None:
            storage.remove(self._path)

    def _look(self) -> None:
        found = read_lease(self._path)
        if found is not None and found.token != self._lease.token:
            self._lost = str(found)

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            # A store that is away for a while costs a heartbeat, not the run.
            with contextlib.suppress(OSError):
                self._look()
                if self._lost is not None:
                    return
                _write(self._path, Lease(**{**asdict(self._lease), "beat": time.time()}))


@contextmanager
def held(
    output: str,
    *,
    beat: float = BEAT_SECONDS,
    expiry: float = EXPIRY_SECONDS,
    settle: float = SETTLE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Lock]:
    """Hold the lock of an output folder.

    Args:
        beat: seconds between heartbeats.
        expiry: seconds without one after which a lease has expired.
        settle: seconds between writing a lease and reading it back.

    Raises:
        LockedError: another run owns it; the message names it and its start.
        StuckError: that one has been at work for longer than a night.
    """
    path = storage.join(output, "nightly", "lock.json")
    with contextlib.ExitStack() as stack:
        local = not storage.is_remote(output)
        if local:
            stack.enter_context(_kernel_lock(Path(output, "nightly", "lock"), path))
        now = time.time()
        mine = Lease(uuid.uuid4().hex, socket.gethostname(), _machine(), os.getpid(), now, now)
        before = read_lease(path)
        if before is not None and not _is_void(before, expiry, kernel_lock=local):
            ahead = before.beat - now > expiry  # by a wrong clock, here or there: its next heartbeat tells
            if ahead:
                sleep(2 * beat + settle)
            if not ahead or read_lease(path) not in (before, None):
                raise _busy(before)
        _write(path, mine)
        sleep(settle)
        after = read_lease(path)
        if after is not None and after.token != mine.token:
            raise _busy(after)
        lock = Lock(path, mine, beat)
        stack.callback(lock.release)
        yield lock


def read_lease(path: str) -> Lease | None:
    """The lease of the lock's owner; None where there is none, or where the file is damaged."""
    try:
        return checked(Lease, parsed_json(storage.read_bytes(path)))
    except (FileNotFoundError, ValueError):
        return None


def _is_void(lease: Lease, expiry: float, kernel_lock: bool) -> bool:
    if lease.machine == _machine() and (kernel_lock or not storage.is_alive(lease.pid)):
        return True  # its process is gone: the kernel gave us its lock, or knows no such process
    return time.time() - lease.beat > expiry


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


@contextmanager
def _kernel_lock(file: Path, lease_path: str) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Opened for this process alone: children that inherited it would hold the lock when this one is dead.
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = read_lease(lease_path)
            raise _busy(holder) from None
        yield


def _write(path: str, lease: Lease) -> None:
    # pyarrow asks for an object's size before it reads: were it to change in between, the lease of a living
    # owner would be read cut off or padded with zeros, and be taken for a damaged one.
    storage.write_bytes(path, json.dumps(asdict(lease)).ljust(_FILE_BYTES).encode())


def _busy(holder: Lease | None) -> ForecastError:
    who = "another process of this machine" if holder is None else str(holder)
    if holder is not None and (seconds := time.time() - holder.since) > LONGEST_SECONDS:
        return StuckError(
            f"another nightly run has been at work for {seconds / 3600:.0f} hours: {who}; nothing was done; "
            "if it hangs, end that process, then run this again"
        )
    return LockedError(f"another nightly run is at work: {who}; nothing was done")
