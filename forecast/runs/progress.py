"""Progress of long work, with the time left: bars for people, plain lines where it is no terminal."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from forecast.runs.events import Subscriber
from forecast.safe_text import clean

if TYPE_CHECKING:
    from forecast.lake.files import Receipt
    from forecast.plan import Failure, Unit
    from forecast.runs.status import RunStatus

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_OF_SILENCE = 60.0  # between lines while nothing is done
_MOST_ROWS = 12  # candidates that a terminal shows; the counts are of all


class ScoringProgress(Subscriber):
    """Bars for people, a line every ten seconds for logs; the numbers are those of a `RunStatus`."""

    def __init__(
        self, console: Console, status: "RunStatus", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: status: receives each event before this does."""
        self._console, self._status, self._clock = console, status, clock
        self._last_line, self._printed = clock(), status.total.committed
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("units"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._add_bar("starting actors", status.progress())
        self._rows: dict[str, TaskID] = {}  # of the candidates that are being scored, by candidate_id

    def __enter__(self) -> "ScoringProgress":
        if done := self._status.total.already_done:
            self._say(f"{done} of {self._status.total.units} units were already done")
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._draw()
        self._bar.stop()
        total, restarts = self._status.total, self._status.restarts
        if not self._console.is_terminal and total.committed != self._printed:
            self._print_line()
        if total.retries or restarts:
            self._say(f"retries: {total.retries}, processes that died: {restarts}")

    def committed(self, unit: "Unit", receipt: "Receipt") -> None:
        if self._console.is_terminal:
            self._bar.update(self._task, completed=self._status.total.committed)
        else:
            self._print_line_if_due()

    def retried(self, units: "Sequence[Unit]", why: str) -> None:
        first = units[0]
        many = "1 unit" if len(units) == 1 else f"{len(units)} units"
        text = f"candidate {first.candidate.name!r}: {many} of task {first.shard.task!r} retried: {why}"
        self._say(text, style="yellow")

    def gave_up(self, failure: "Failure") -> None:
        self._say(failure.error, style="red")

    def beat(self) -> None:
        if self._console.is_terminal:
            self._draw()
        else:
            self._print_line_if_due()

    def _draw(self) -> None:
        """The bar of the whole run, and one below it for each candidate that is being scored."""
        if not self._console.is_terminal:
            return
        candidates = self._status.candidates()
        counts = Counter(record["state"] for record in candidates)
        states = ", ".join(f"{counts[s]} {s}" for s in ("scoring", "waiting", "done", "failed") if counts[s])
        self._bar.update(self._task, description=states, **_columns(self._status.progress()))
        shown = [record for record in candidates if record["state"] == "scoring"][:_MOST_ROWS]
        for gone in self._rows.keys() - {record["candidate_id"] for record in shown}:
            self._bar.remove_task(self._rows.pop(gone))
        for record in shown:
            candidate_id = record["candidate_id"]
            if candidate_id not in self._rows:
                self._rows[candidate_id] = self._add_bar(f"  {clean(record['candidate'])}", record)
            self._bar.update(self._rows[candidate_id], **_columns(record))

    def _add_bar(self, description: str, record: Mapping[str, Any]) -> TaskID:
        return self._bar.add_task(description, total=record["units"], **_columns(record))

    def _print_line_if_due(self) -> None:
        new = self._status.total.committed != self._printed
        if self._clock() - self._last_line >= (_SECONDS_BETWEEN_LINES if new else _SECONDS_OF_SILENCE):
            self._print_line()

    def _print_line(self) -> None:
        self._last_line, self._printed = self._clock(), self._status.total.committed
        self._say(progress_line(self._status))

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def progress_line(status: "RunStatus") -> str:
    """`3/40 units, 1,234 tokens/s, 1:02:03 left (base)`; what is not known is left out.

    `actors.jobs.follow.progress_of` reads it, also of jobs of other versions.
    """
    shown = _columns(status.progress())
    parts = [f"{status.total.committed}/{status.total.units} units", shown["speed"], shown["left"]]
    return ", ".join(part for part in parts if part) + (f" ({clean(status.latest)})" if status.latest else "")


def _columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a bar shows of a run or candidate, from the keys of its record."""
    speed, left = record["tokens_per_second"], record["seconds_left"]
    return {
        "completed": record["committed"],
        "speed": "" if speed is None else f"{speed:,.0f} tokens/s",
        "left": f"{duration(left)} left" if left else "",
    }


class WorkProgress:
    """Progress of work whose parts have estimated costs; the time left supposes that the speed stays.

    There is none before the second part is done: the first may be mostly start-up.
    """

    def __init__(self, console: Console, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: what is being done, in a few words, e.g. `permutations`."""
        self._console, self._what, self._clock = console, what, clock
        self._first: tuple[float, float] | None = None  # when the first part was done, and its share
        self._last_line = clock()
        self._bar = Progress(
            TextColumn(what, markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0, left="")

    def __enter__(self) -> "WorkProgress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def advance(self, done: float, total: float) -> None:
        """`done` of `total` is done, in any unit of cost."""
        now = self._clock()
        share = min(1.0, done / total) if total > 0 else 1.0
        if self._first is None and share > 0:
            self._first = (now, share)
        began, before = self._first or (now, share)
        left = ""
        if before < share < 1 and now - began >= 1.0:  # before the first part is done, processes start
            left = f"{duration((now - began) * (1 - share) / (share - before))} left"
        self._bar.update(self._task, completed=share, left=left)
        if not self._console.is_terminal and share < 1 and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            text = f"{self._what}: {100 * share:.0f}%"
            self._console.print(f"{text}, {left}" if left else text, markup=False)


def duration(seconds: float) -> str:
    """`4:05` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
