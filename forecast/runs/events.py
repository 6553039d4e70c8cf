"""What happens while a plan is scored, told to whoever watches: a bar, a log, metrics, a status file."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forecast.lake.files import Receipt
    from forecast.plan import Failure, Unit


class Watcher:
    """Told by the supervisor, in its own thread and in order; each of these does nothing by itself.

    A watcher that raises ends the run, so one that talks to the outside must catch what may go wrong there.
    """

    def started(self, units: "Sequence[Unit]", actors: int) -> None:
        """These units are to be scored, by so many processes at most."""

    def handed_out(self, units: "Sequence[Unit]", actor: int) -> None:
        """An actor, counted from 0, was given these units of one candidate."""

    def committed(self, unit: "Unit", receipt: "Receipt") -> None:
        """A unit is in the lake; called once for each."""

    def retried(self, units: "Sequence[Unit]", why: str) -> None:
        """These units came back unfinished and wait again; no fault of the candidate is known."""

    def restarted(self, actor: int, why: str) -> None:
        """A scoring process died or was ended; Ray starts another in its place."""

    def gave_up(self, failure: "Failure") -> None:
        """A candidate is given up; none of its units will be handed out again in this run."""

    def beat(self) -> None:
        """About once a second, also while nothing happens."""


class Watchers(Watcher):
    """Several at once."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = tuple(watchers)

    def started(self, units: "Sequence[Unit]", actors: int) -> None:
        for watcher in self._watchers:
            watcher.started(units, actors)

    def handed_out(self, units: "Sequence[Unit]", actor: int) -> None:
        for watcher in self._watchers:
            watcher.handed_out(units, actor)

    def committed(self, unit: "Unit", receipt: "Receipt") -> None:
        for watcher in self._watchers:
            watcher.committed(unit, receipt)

    def retried(self, units: "Sequence[Unit]", why: str) -> None:
        for watcher in self._watchers:
            watcher.retried(units, why)

    def restarted(self, actor: int, why: str) -> None:
        for watcher in self._watchers:
            watcher.restarted(actor, why)

    def gave_up(self, failure: "Failure") -> None:
        for watcher in self._watchers:
            watcher.gave_up(failure)

    def beat(self) -> None:
        for watcher in self._watchers:
            watcher.beat()
