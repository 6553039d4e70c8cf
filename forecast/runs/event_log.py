"""The events of a run as a log, one JSON object a line.

Every line has `time` (ISO, UTC) and `event`; lines of a run also its id as `run`, and where they are about
work, `candidate`, `candidate_id`, `task` and the addresses of the units (`shard`, or `shards` of a group).
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecast import storage
from forecast.plan import Failure, Unit
from forecast.runs.events import Subscriber
from forecast.runs.status import RunStatus
from forecast.runs.status_file import Outbox, log_path, to_stderr
from forecast.safe_text import json_text, without_secrets

if TYPE_CHECKING:
    from forecast.lake.files import Receipt

Sink = Callable[[str], None]  # takes a line, without its end

_PROGRESS_SECONDS = 10.0
_STORE_SECONDS = 60.0
_STORED_BYTES = 5_000_000  # an object cannot be appended to: it is written anew each time


def log_line(event: str, **fields: Any) -> str:
    """One line of a structured log; NaN and infinities are no JSON and become null."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = {"time": moment, "event": event, **fields}
    try:
        return without_secrets(json_text(record, default=str))
    except ValueError:
        finite = {k: None if isinstance(v, float) and v - v != 0 else v for k, v in record.items()}
        return without_secrets(json_text(finite, default=str))


class RunLog(Subscriber):
    """Turns events into lines."""

    def __init__(
        self, status: RunStatus, sinks: Sequence[Sink], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: status: receives each event before this does."""
        self._status, self._sinks, self._clock = status, tuple(sinks), clock
        self._actors: dict[str, int] = {}  # that have a unit, by its address
        self._said = (clock(), status.total.committed)

    def started(self, units: Sequence[Unit], actors: int) -> None:
        status, total = self._status, self._status.total
        counts = {"units": total.units, "committed": total.committed, "actors": actors}
        self._say("started", name=status.name, **counts)

    def handed_out(self, units: Sequence[Unit], actor: int) -> None:
        self._actors.update((unit.address, actor) for unit in units)
        self._say("handed_out", **_group(units), actor=actor)

    def committed(self, unit: Unit, receipt: "Receipt") -> None:
        self._say(
            "committed",
            **_candidate(unit),
            shard=unit.address,
            rows=receipt.rows,
            tokens=receipt.tokens_read,
            seconds=round(receipt.seconds, 3),
            unscored=len(receipt.unscored),
            actor=self._actors.pop(unit.address, None),
            device=receipt.device,
        )

    def retried(self, units: Sequence[Unit], why: str) -> None:
        actors = {self._actors.pop(unit.address, None) for unit in units}  # one: a group has one
        self._say("retried", **_group(units), actor=actors.pop(), error=why)

    def restarted(self, actor: int, why: str) -> None:
        self._say("restarted", actor=actor, error=why)

    def gave_up(self, failure: Failure) -> None:
        self._say("gave_up", **failure.as_record())

    def beat(self) -> None:
        now, committed, (said_at, said) = self._clock(), self._status.total.committed, self._said
        if committed != said and now - said_at >= _PROGRESS_SECONDS:
            self._said = (now, committed)
            self._say("progress", **self._status.progress())

    def close(self) -> None:
        """The last line, once the status has ended."""
        status = self._status
        lost = {"retries": status.total.retries, "restarts": status.restarts}
        self._say("ended", state=status.state, error=status.error, **status.progress(), **lost)

    def _say(self, event: str, **fields: Any) -> None:
        line = log_line(event, run=self._status.run, **fields)
        for sink in self._sinks:
            sink(line)


def _candidate(unit: Unit) -> dict[str, str]:
    candidate = unit.candidate
    work = {"kind": unit.shard.kind, "task": unit.shard.task}
    return {"candidate": candidate.name, "candidate_id": candidate.candidate_id, **work}


def _group(units: Sequence[Unit]) -> dict[str, Any]:
    return {**_candidate(units[0]), "shards": [unit.address for unit in units]}


class AppendedFile:
    """A sink: a file on a disk; every line is written at once."""

    def __init__(self, path: str, say: Callable[[str], None] = to_stderr) -> None:
        self._path, self._say, self._troubled = Path(path), say, False

    def __call__(self, line: str) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            if not self._troubled:
                self._troubled = True
                self._say(f"{self._path} cannot be written: {error}; scoring continues without it")

    def close(self) -> None:
        """Nothing waits to be written."""


class StoredTail:
    """A sink: an object of an object store, written anew each minute with the newest five megabytes."""

    def __init__(
        self, path: str, say: Callable[[str], None] = to_stderr, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._outbox, self._clock = Outbox([path], say), clock
        self._lines: deque[str] = deque()
        self._bytes = self._left_out = 0
        self._written = clock()

    def __call__(self, line: str) -> None:
        self._lines.append(line)
        self._bytes += len(line.encode()) + 1
        while self._bytes > _STORED_BYTES and len(self._lines) > 1:
            self._bytes -= len(self._lines.popleft().encode()) + 1
            self._left_out += 1
        if self._clock() - self._written >= _STORE_SECONDS:
            self._write()

    def close(self) -> None:
        self._write()
        self._outbox.close()

    def _write(self) -> None:
        self._written = self._clock()
        first = [log_line("left_out", lines=self._left_out)] if self._left_out else []
        self._outbox.put("".join(f"{line}\n" for line in [*first, *self._lines]).encode())


def log_file(status: RunStatus, say: Callable[[str], None] = to_stderr) -> AppendedFile | StoredTail:
    """The sink for `OUTPUT/runs/RUN.log.jsonl`."""
    path = log_path(status.output, status.run)
    return StoredTail(path, say) if storage.is_remote(path) else AppendedFile(path, say)
