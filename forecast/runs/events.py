"""The events of a run, and what receives them: a progress bar, a log, metrics, a status file."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forecast.lake.files import Receipt
    from forecast.plan import Failure, Unit


class Subscriber:
    """Its methods are called by the supervisor, in its own thread and in order; by default they do nothing.

    A subscriber that raises ends the run, so one that uses a disk or a network must catch errors there.
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


class Subscribers(Subscriber):
    """Several at once, each called in turn."""

    def __init__(self, subscribers: Sequence[Subscriber]) -> None:
        for event in [name for name in vars(Subscriber) if not name.startswith("_")]:
            setattr(self, event, partial(_call_all, [getattr(each, event) for each in subscribers]))


def _call_all(callbacks: Sequence[Callable[..., None]], *event: Any) -> None:
    for callback in callbacks:
        callback(*event)
