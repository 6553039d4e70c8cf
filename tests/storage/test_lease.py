"""The lock: one at a time, whoever dies, on a disk and in an object store."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from forecast import storage
from forecast.storage.lease import Lease, LockedError, LostLockError, StuckError, held, read_lease

HOLDER = """
import sys, time
from forecast.storage.lease import held
with held(sys.argv[1], settle=0):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["disk", "object store"])
def output(request: pytest.FixtureRequest) -> str:
    fixture = "tmp_path" if request.param == "disk" else "bucket"
    return str(request.getfixturevalue(fixture))


def lease_path(output: str) -> str:
    return storage.join(output, "nightly", "lock.json")


def put(output: str, lease: Lease) -> None:
    storage.write_bytes(lease_path(output), json.dumps(asdict(lease)).encode())


def elsewhere(beat: float) -> Lease:
    return Lease("other", "far-away", "another machine", 7, beat - 3600, beat)


@contextmanager
def holder(output: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, output], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_gets_the_owner_named_and_a_killed_owner_frees_the_lease(output: str) -> None:
    with holder(output) as process:
        with pytest.raises(LockedError, match=rf"at work: process {process.pid} on .*since 20"), held(output):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert read_lease(lease_path(output)) is not None, "it could not clean up"
        with held(output, settle=0):
            lease = read_lease(lease_path(output))
            assert lease is not None and lease.pid == os.getpid()
    assert read_lease(lease_path(output)) is None, "given back"


def test_within_one_process_it_is_held_once(output: str) -> None:
    with held(output, settle=0), pytest.raises(LockedError), held(output, settle=0):
        pass
    with held(output, settle=0):
        pass


def test_a_remote_lease_is_kept_until_its_heartbeat_expires(output: str) -> None:
    put(output, elsewhere(time.time() - 800))
    with pytest.raises(LockedError, match="process 7 on far-away"), held(output, settle=0):
        pass
    put(output, elsewhere(time.time() - 1000))
    with held(output, settle=0) as lock:
        lock.check()


def test_a_lease_dated_ahead_is_taken_over_unless_its_owner_lives(output: str) -> None:
    ahead = elsewhere(time.time() + 1e9)
    put(output, ahead)
    waited: list[float] = []
    with held(output, settle=0, sleep=waited.append) as lock:
        lock.check()
    assert waited[0] == 120, "two heartbeats"

    def heartbeat(_: float) -> None:
        put(output, replace(ahead, beat=ahead.beat + 60))

    put(output, ahead)
    with pytest.raises(LockedError, match="process 7 on far-away"), held(output, sleep=heartbeat):
        pass


def test_an_owner_at_work_for_longer_than_a_night_is_no_success(output: str) -> None:
    put(output, replace(elsewhere(time.time()), since=time.time() - 50_000))
    said = r"for 14 hours: process 7 on far-away.* end that process"
    with pytest.raises(StuckError, match=said), held(output, settle=0):
        pass
    assert not issubclass(StuckError, LockedError), "which a scheduler takes for success"


def test_heartbeats_are_written(output: str) -> None:
    with held(output, beat=0.02, settle=0):
        first = read_lease(lease_path(output))
        assert first is not None
        deadline = time.monotonic() + 20
        while (now := read_lease(lease_path(output))) is not None and now.beat <= first.beat:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert now == replace(first, beat=now.beat) if now is not None else False


def test_the_file_keeps_its_size_from_one_heartbeat_to_the_next(output: str) -> None:
    beats, sizes = set(), set()
    with held(output, beat=0.002, settle=0):
        deadline = time.monotonic() + 20
        while len(beats) < 5 and time.monotonic() < deadline:
            lease = read_lease(lease_path(output))
            assert lease is not None, "never seen as damaged while it is written anew"
            beats.add(lease.beat)
            sizes.add(len(storage.read_bytes(lease_path(output))))
    assert len(beats) == 5 and len(sizes) == 1


def test_of_two_concurrent_starts_the_later_write_wins(output: str) -> None:
    other = elsewhere(time.time())

    def meanwhile(_: float) -> None:
        put(output, other)

    with pytest.raises(LockedError, match="far-away"), held(output, sleep=meanwhile):
        pass
    assert read_lease(lease_path(output)) == other, "the loser leaves it alone"


def test_an_owner_that_lost_the_lease_stops_before_publishing(output: str) -> None:
    with (
        pytest.raises(LostLockError, match=r"taken over by process 7 on far-away"),
        held(output, settle=0) as lock,
    ):
        lock.check()
        put(output, elsewhere(time.time()))
        lock.check()
    assert read_lease(lease_path(output)) is not None, "it is the other's"


def test_a_damaged_lease_is_taken_over(output: str) -> None:
    storage.write_bytes(lease_path(output), b"{")
    with held(output, settle=0) as lock:
        lock.check()


def test_on_a_disk_exactly_one_of_many_has_it(tmp_path: Path) -> None:
    won, lost, start = [], [], threading.Barrier(8)

    def try_it() -> None:
        start.wait()
        try:
            with held(str(tmp_path), settle=0):
                won.append(1)
                finished.wait(20)
        except LockedError:
            lost.append(1)
            if len(lost) == 7:
                finished.set()

    finished = threading.Event()
    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
