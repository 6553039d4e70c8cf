"""The files that runs leave about themselves below `OUTPUT/runs`: how they are written, and read.

One `RUN.json` a run, the record of `RunStatus.as_record`, written whole or not at all. A run that was killed
cannot report it: its file keeps the state `running`, read as `lost` once it has not changed for a minute.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, FiniteFloat
from typing_extensions import TypedDict  # that of Python 3.11 is not for pydantic

from forecast import storage
from forecast.plan import Failure, Unit
from forecast.runs.events import Subscriber
from forecast.runs.status import SCHEMA, RunState, RunStatus
from forecast.runs.throughput import CandidateState
from forecast.safe_text import json_text, printable, without_secrets
from forecast.storage.records import Count, checked, parsed_json

KEPT = 50  # runs whose files stay
LOST_SECONDS = 60.0
_CLOCKS_DIFFER_SECONDS = 3600.0
_WRITE_SECONDS = 5.0
_LAST_WRITE_SECONDS = 20.0
_READERS = 16  # threads that wait for an object store


def _a_moment(text: str) -> str:
    try:
        datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no moment: {error}") from None
    return text


_Moment = Annotated[str, AfterValidator(_a_moment)]
_Number = FiniteFloat | None


class _Progress(TypedDict, total=False):
    """What a run and each of its candidates have in common; see `RunStatus.as_record`."""

    units: Count
    committed: Count
    already_done: Count
    tokens_read: Count
    tokens_per_second: _Number
    seconds_left: _Number
    retries: Count
    error: str | None


class _Candidate(_Progress, total=False):
    candidate: Required[str]
    also: list[str]
    candidate_id: str | None
    state: Required[CandidateState]


class _Status(_Progress, total=False):
    schema: Required[Count]
    run: Required[str]
    name: str
    output: str
    job: str | None
    state: Required[RunState]
    started_at: _Moment
    updated_at: Required[_Moment]
    seconds: _Number
    actors: Count | None
    restarts: Count
    left_by: Literal["flops", "tokens"]
    states: dict[CandidateState, Count]
    candidates: Required[list[_Candidate]]


def runs_folder(output: str) -> str:
    """`OUTPUT/runs`."""
    return storage.join(output, "runs")


def to_stderr(text: str) -> None:
    """Prints a problem with the files about a run; the default of `say`."""
    print(printable(without_secrets(text)), file=sys.stderr)


class Outbox:
    """Writes the newest content in a thread of its own, so that storage that hangs does not block the run.

    A failed write is reported once per path, and retried with the next content.
    """

    def __init__(self, paths: Sequence[str], say: Callable[[str], None]) -> None:
        self._paths, self._say = tuple(paths), say
        self._waiting: bytes | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._troubled: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="files about the run", daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        """The new content of the files; older content that still waits is dropped."""
        with self._changed:
            self._waiting = data
            self._changed.notify()

    def close(self, seconds: float = _LAST_WRITE_SECONDS) -> None:
        """Wait until the last content is written, but not for longer than this."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._say(f"{', '.join(self._paths)}: not written within {seconds:g} s; it is given up")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                data, self._waiting = self._waiting, None
            if data is None:
                return
            for path in self._paths:
                try:
                    storage.write_bytes(path, data)
                except Exception as error:  # no error of storage is worth the run
                    if path not in self._troubled:
                        self._troubled.add(path)
                        self._say(f"{path} cannot be written: {error}; scoring continues without it")


class StatusFile(Subscriber):
    """Keeps the status of a run in `OUTPUT/runs/RUN.json`, and wherever else it is wanted."""

    def __init__(
        self,
        status: RunStatus,
        also: Sequence[str] = (),
        say: Callable[[str], None] = to_stderr,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: also: further paths for the same record."""
        self._status, self._clock, self._say = status, clock, say
        self._outbox = Outbox([status_path(status.output, status.run), *also], say)
        self._written = clock()

    def started(self, units: Sequence[Unit], actors: int) -> None:
        self._write()

    def gave_up(self, failure: Failure) -> None:
        self._write()

    def beat(self) -> None:
        if self._clock() - self._written >= _WRITE_SECONDS:
            self._write()

    def close(self) -> None:
        """The last record, once the status has ended; then the files of old runs go."""
        self._write()
        self._outbox.close()
        try:
            prune(self._status.output)
        except Exception as error:  # no error of storage is worth the run
            self._say(f"old files in {runs_folder(self._status.output)} cannot be removed: {error}")

    def _write(self) -> None:
        self._written = self._clock()
        record = self._status.as_record()
        self._outbox.put(without_secrets(json_text(record)).encode())


def status_path(output: str, run: str) -> str:
    """The file of a run's status."""
    return storage.join(runs_folder(output), f"{run}.json")


def log_path(output: str, run: str) -> str:
    """The file of a run's log."""
    return storage.join(runs_folder(output), f"{run}.log.jsonl")


def prune(output: str, keep: int = KEPT) -> None:
    """Remove status and log of all runs but the newest `keep`, by their ids."""
    folder = runs_folder(output)
    paths = [*storage.list_files(folder, ".json"), *storage.list_files(folder, ".log.jsonl")]
    newest = sorted({_run_of(path) for path in paths}, reverse=True)[:keep]
    for path in paths:
        if _run_of(path) not in newest:
            storage.remove(path)


def read_runs(output: str, wall: Callable[[], float] = time.time) -> tuple[dict[str, Any], ...]:
    """The records of the runs of an output, the newest first.

    A `state` may be, beyond those of `RunStatus`: `lost`, for a running one that has not written for a
    minute, by this machine's clock; `unreadable`, with `run` and `error` alone, for a damaged file.

    Raises:
        OSError: the storage does not answer.
    """
    paths = sorted(storage.list_files(runs_folder(output), ".json"), key=_run_of, reverse=True)[:KEPT]
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(_read, paths)
        return tuple(judged(record, wall()) for record in found if record is not None)


def judged(record: dict[str, Any], now: float) -> dict[str, Any]:
    """A record as it is to be shown at a Unix time: a run that has not written for too long is lost."""
    if record["state"] != "running":
        return record
    silent = now - datetime.fromisoformat(record["updated_at"]).timestamp()
    if -_CLOCKS_DIFFER_SECONDS <= silent <= LOST_SECONDS:
        return record
    heard = f"not heard of for {silent:,.0f} s" if silent > 0 else f"its clock is {-silent:,.0f} s ahead"
    error = f"{heard}; run the same command again to resume"
    return {**record, "state": "lost", "error": error, "seconds_left": None}


def parsed(run: str, data: bytes) -> dict[str, Any]:
    """A status record from the bytes of its file; `state` is `unreadable` where it is none."""
    try:
        record = parsed_json(data)
        if isinstance(record, dict) and record.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {record.get('schema')!r}, this version reads {SCHEMA}")
        return dict(checked(_Status, record, extra="allow"))
    except ValueError as error:
        return {"run": run, "state": "unreadable", "error": f"the status of {run} is damaged: {error}"}


def _read(path: str) -> dict[str, Any] | None:
    try:
        return parsed(_run_of(path), storage.read_bytes(path))
    except FileNotFoundError:  # a newer run took its place meanwhile
        return None


def _run_of(path: str) -> str:
    return PurePosixPath(path).name.removesuffix(".json").removesuffix(".log.jsonl")
