"""Progress of long work, with the time left: bars for people, plain lines where it is no terminal."""

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from forecast.plan import Failure, Unit, estimated_tokens
from forecast.watching import Watcher

if TYPE_CHECKING:
    from forecast.store.lake import Receipt

_SECONDS_BETWEEN_LINES = 10.0


class ScoringProgress(Watcher):
    """A bar for people, a line every ten seconds for logs; the time left supposes that the speed stays."""

    def __init__(self, console: Console, units: int, estimated_tokens: int) -> None:
        """Args: units and estimated tokens that are still to be scored."""
        self._console = console
        self._units, self._tokens = units, max(1, estimated_tokens)
        self._done_units = self._done_estimate = self._read = self._printed_units = 0
        self._started = time.monotonic()
        self._last_line = self._started
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
        self._task = self._bar.add_task("starting actors", total=units, speed="", left="")

    def __enter__(self) -> "ScoringProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if not self._console.is_terminal and self._done_units != self._printed_units:
            self._print_line()

    def committed(self, unit: Unit, receipt: "Receipt") -> None:
        """One more unit is in the lake."""
        self.advance(unit.candidate.name, receipt.tokens_read, estimated_tokens(unit.shard))

    def gave_up(self, failure: Failure) -> None:
        """A candidate was given up."""
        self.failed(failure.error)

    def advance(self, candidate: str, tokens_read: int, estimated_tokens: int) -> None:
        """One more unit is in the lake."""
        self._done_units += 1
        self._read += tokens_read
        self._done_estimate += estimated_tokens
        now = time.monotonic()
        elapsed = now - self._started
        left = elapsed * (self._tokens - self._done_estimate) / max(self._done_estimate, 1)
        text = f"{_duration(max(0.0, left))} left" if self._done_units < self._units else ""
        self._bar.update(self._task, advance=1, description=candidate, speed=self._speed(), left=text)
        if not self._console.is_terminal and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._print_line(f", {text}" if text else "", candidate)

    def _speed(self) -> str:
        return f"{self._read / max(time.monotonic() - self._started, 1e-6):,.0f} tokens/s"

    def _print_line(self, left: str = "", candidate: str = "") -> None:
        self._last_line, self._printed_units = time.monotonic(), self._done_units
        where = f" ({candidate})" if candidate else ""
        line = f"{self._done_units}/{self._units} units, {self._speed()}{left}{where}"
        self._console.print(line, markup=False)

    def failed(self, message: str) -> None:
        """A candidate was given up."""
        self._console.print(message, style="red", markup=False)


class WorkProgress:
    """Progress of work whose parts have estimated costs; the time left supposes that the speed stays."""

    def __init__(self, console: Console, what: str) -> None:
        """Args: what is being done, in a few words, e.g. `permutations`."""
        self._console, self._what = console, what
        self._started = self._last_line = time.monotonic()
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, done: float, total: float) -> None:
        """`done` of `total` is done, in any unit of cost."""
        now = time.monotonic()
        share = min(1.0, done / total) if total > 0 else 1.0
        left = f"{_duration((now - self._started) * (1 - share) / share)} left" if 0 < share < 1 else ""
        self._bar.update(self._task, completed=share, left=left)
        if not self._console.is_terminal and share < 1 and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(
                f"{self._what}: {100 * share:.0f}%{', ' + left if left else ''}", markup=False
            )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
