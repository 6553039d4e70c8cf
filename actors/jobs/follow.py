"""Waiting for a job: its log as it grows, and its progress; a broken connection is retried."""

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from actors.jobs.client import Head, Job
from actors.jobs.entrypoint import SERVED_BELOW, STATUS_NAME
from actors.jobs.errors import HeadUnreachable
from forecast.errors import ForecastError
from forecast.runs.progress import duration
from forecast.runs.status_file import parsed

# The log is fetched whole: seldom when it is long, so that a job of days costs some 50 kB/s.
_LEAST_SECONDS, _MOST_SECONDS, _BYTES_PER_SECOND = 1.0, 30.0, 50_000
# A laptop that sleeps does not count these.
_PATIENCE_SECONDS = 15 * 60.0

# As `forecast.runs.progress.progress_line` writes it.
_PROGRESS = re.compile(
    r"^(?P<done>\d+)/(?P<units>\d+) units(?:, (?P<speed>[\d,]+) tokens/s)?"
    r"(?:, (?P<left>[\d:]+) left)?(?: \((?P<candidate>.*)\))?\s*$"
)
# Escape sequences and control characters of a log must not reach the user's terminal.
_CONTROLS = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)|[\x00-\x08\x0b-\x1f\x7f]"
)


@dataclass(frozen=True)
class JobProgress:
    """How far a job is: units of its plan, speed in tokens per second, and the time left in seconds."""

    done: int
    units: int
    tokens_per_second: float | None
    seconds_left: float | None
    candidate: str | None

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def progress_of(line: str) -> JobProgress | None:
    """Of one line of a log; None where it is about something else."""
    if (match := _PROGRESS.match(line)) is None:
        return None
    left = match["left"] and sum(
        int(part) * 60**i for i, part in enumerate(reversed(match["left"].split(":")))
    )
    return JobProgress(
        int(match["done"]),
        int(match["units"]),
        float(match["speed"].replace(",", "")) if match["speed"] else None,
        None if left is None else float(left),
        match["candidate"],
    )


def last_progress(log: str) -> JobProgress | None:
    """The newest in a log."""
    found = (progress_of(line) for line in reversed(log.splitlines()))
    return next((progress for progress in found if progress is not None), None)


def run_of(head: Head, job: Job) -> dict[str, Any] | None:
    """The status of a job's run, as `RunStatus.as_record`; None where the job has left none (yet).

    One that says it runs although its job has ended is `lost`.
    """
    if job.node_id is None:
        return None
    name = f"{SERVED_BELOW}/{job.job_id}/{STATUS_NAME}"
    try:
        record = parsed(job.job_id, b"".join(head.served_file(job.node_id, name)))
    except FileNotFoundError:  # a job of an older version, or one with nothing to score
        return None
    if record["state"] == "running" and not job.running:
        ended = f"the job ended unfinished; see forecast logs {job.job_id}"
        return {**record, "state": "lost", "error": ended, "seconds_left": None}
    return record


def progress_in(run: dict[str, Any]) -> JobProgress | None:
    """The progress in a status; None where it cannot be read."""
    if run["state"] == "unreadable":
        return None
    scored = [candidate["candidate"] for candidate in run["candidates"] if candidate["state"] == "scoring"]
    shown = ", ".join(scored[:3]) + (f" and {len(scored) - 3} more" if len(scored) > 3 else "")
    return JobProgress(
        run["committed"], run["units"], run["tokens_per_second"], run["seconds_left"], shown or None
    )


def progress_now(head: Head, job: Job) -> tuple[JobProgress | None, dict[str, Any] | None]:
    """How far a job is, and the status that says so; without one, what it printed last.

    Both are None where the head answers and cannot tell: a machine that is gone takes its logs with it.

    Raises:
        HeadUnreachable: no answer.
    """
    try:
        run = run_of(head, job)
        if run is not None and (progress := progress_in(run)) is not None:
            return progress, run
        return last_progress(head.log_tail(job, 50)), run
    except HeadUnreachable:
        raise
    except ForecastError:
        return None, None


def plain(text: str) -> str:
    """A log without escape sequences and control characters."""
    return _CONTROLS.sub("", text)


def follow(
    head: Head,
    job_id: str,
    on_text: Callable[[str], None],
    on_trouble: Callable[[str], None] = lambda text: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Job:
    """Wait until a job has ended.

    Args:
        on_text: called with what the job has printed since the last call; whole lines, but for the last call.
        on_trouble: called once when the head stops answering, and once when it answers again.

    Raises:
        HeadUnreachable: it did not answer for a quarter of an hour. The job goes on.
    """
    shown, away_since, wait = 0, None, _LEAST_SECONDS
    while True:
        try:
            job = head.job(job_id)
            # Asked for after the state: what ended has printed all that it will.
            log = head.log(job_id)
        except HeadUnreachable as error:
            now = time.monotonic()
            if away_since is None:
                away_since, wait = now, _LEAST_SECONDS
                on_trouble(f"connection lost, the job continues; trying again ({error})")
            elif now - away_since > _PATIENCE_SECONDS:
                raise
            sleep(wait)
            wait = min(2 * wait, _MOST_SECONDS)
            continue
        if away_since is not None:
            on_trouble("connected again")
            away_since = None
        end = len(log) if not job.running else log.rfind("\n") + 1
        if end > shown:
            on_text(plain(log[shown:end]))
            shown = end
        if not job.running:
            return job
        sleep(min(_MOST_SECONDS, _LEAST_SECONDS + len(log) / _BYTES_PER_SECOND))


class LiveLog:
    """Prints a job's log; on a terminal its progress is a bar instead of lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("units {task.fields[speed]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("waiting for the job", total=None, speed="", left="")

    def __enter__(self) -> "LiveLog":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """A remark of our own."""
        self._console.print(text, style="yellow", markup=False, soft_wrap=True)

    def show(self, text: str) -> None:
        """More of the log."""
        for line in text.splitlines():
            progress = progress_of(line)
            if progress is None or not self._console.is_terminal:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            if progress is not None:
                left, speed = progress.seconds_left, progress.tokens_per_second
                self._bar.update(
                    self._task,
                    description=progress.candidate or "scoring",
                    completed=progress.done,
                    total=progress.units,
                    speed="" if speed is None else f"{speed:,.0f} tokens/s",
                    left="" if left is None else f"{duration(left)} left",
                )


def stop(head: Head, job: Job, seconds: float = 60.0, sleep: Callable[[float], None] = time.sleep) -> Job:
    """End a job and wait until it has ended.

    Raises:
        ForecastError: it goes on after `seconds`.
    """
    head.stop(job.job_id)
    deadline = time.monotonic() + seconds
    while (now := head.job(job.job_id)).running:
        if time.monotonic() > deadline:
            raise ForecastError(f"{job.job_id} was asked to stop {seconds:g} s ago and still runs; ask again")
        sleep(0.5)
    return now
