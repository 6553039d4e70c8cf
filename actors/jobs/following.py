"""Waiting for a job: its log as it grows, and its progress; a connection that breaks is taken up again."""

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from actors.jobs.head import Head, Job
from actors.jobs.trouble import HeadUnreachable
from forecast.errors import ForecastError

# The log is fetched whole: seldom when it is long, so that a job of days costs some 50 kB/s.
_LEAST_SECONDS, _MOST_SECONDS, _BYTES_PER_SECOND = 1.0, 30.0, 50_000
# A laptop that sleeps does not count these.
_PATIENCE_SECONDS = 15 * 60.0

# As `forecast.progress.ScoringProgress` prints it into a log.
_PROGRESS = re.compile(
    r"^(?P<done>\d+)/(?P<units>\d+) units, (?P<speed>[\d,]+) tokens/s"
    r"(?:, (?P<left>[\d:]+) left)?(?: \((?P<candidate>.*)\))?\s*$"
)
# Escape sequences and control characters of a log have no business in somebody else's terminal.
_CONTROLS = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)|[\x00-\x08\x0b-\x1f\x7f]"
)


@dataclass(frozen=True)
class JobProgress:
    """How far a job is: units of this attempt, speed in tokens per second, and the time left in seconds."""

    done: int
    units: int
    tokens_per_second: float
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
        float(match["speed"].replace(",", "")),
        None if left is None else float(left),
        match["candidate"],
    )


def last_progress(log: str) -> JobProgress | None:
    """The newest in a log."""
    found = (progress_of(line) for line in reversed(log.splitlines()))
    return next((progress for progress in found if progress is not None), None)


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
                on_trouble(f"connection lost, the job goes on without it; trying again ({error})")
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
                left = progress.seconds_left
                self._bar.update(
                    self._task,
                    description=progress.candidate or "scoring",
                    completed=progress.done,
                    total=progress.units,
                    speed=f"{progress.tokens_per_second:,.0f} tokens/s",
                    left="" if left is None else f"{left / 60:.0f} min left",
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
