"""What is known from one night to the next, kept beside the lake in `OUTPUT/nightly/state.json`.

A scored checkpoint is known by what its files held, so it stays in the results after its files are gone, and
is not read again while they stay as they are. No clock goes in: the same night twice leaves the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date as Date
from datetime import timedelta
from typing import Any

from forecast import storage
from forecast.errors import InputError
from forecast.nightly.records import Alert, Broken, Checkpoint, Day
from forecast.safe_text import json_text
from forecast.storage.records import Count, checked, parsed_json

SCHEMA = 1
_DATES = {"first_night", "last_new", "last_night", "since"}


@dataclass(frozen=True)
class Scored:
    """A checkpoint all of whose trajectories are scored."""

    checkpoint: Checkpoint
    stamp: str  # see `discovery.Found`
    candidate_id: str
    files_digest: str
    parameters: Count | None  # counted in its files
    since: Day  # the night that scored it first


@dataclass(frozen=True)
class RunState:
    """What is known of one watched run."""

    first_night: Day
    last_new: Day | None = None  # the latest night that found a new checkpoint, broken ones included
    scored: tuple[Scored, ...] = ()  # in order of steps
    broken: tuple[Broken, ...] = ()  # in order of steps


@dataclass(frozen=True)
class Raised:
    """An alert that stands, or that could not be delivered yet."""

    alert: Alert
    since: Day  # the night that raised it
    delivered: bool = False


@dataclass(frozen=True)
class State:
    """Everything that is known; runs that are not watched any more stay, in case they are again."""

    last_night: Day | None = None
    runs: Mapping[str, RunState] = field(default_factory=dict)
    alerts: tuple[Raised, ...] = ()

    def with_alerts(self, night: str, alerts: Sequence[Alert]) -> "State":
        """The alerts that stand tonight: new ones are raised tonight, the others stay as they were.

        An alert that does not stand any more is forgotten, and raised anew should it come back. One that was
        never delivered is kept until it is.
        """
        known = {raised.alert.key: raised for raised in self.alerts}
        standing = [replace(known[a.key], alert=a) if a.key in known else Raised(a, night) for a in alerts]
        keys = {a.key for a in alerts}
        late = [raised for raised in self.alerts if raised.alert.key not in keys and not raised.delivered]
        return replace(self, alerts=(*late, *standing))

    def dated_back(self, night: str) -> "State":
        """What a wrong clock has dated after a night, dated to the day before it."""
        before = (Date.fromisoformat(night) - timedelta(days=1)).isoformat()
        return checked(State, _dated_back(asdict(self), night, before))

    def undelivered(self) -> tuple[Alert, ...]:
        """Alerts still to be delivered, those of earlier nights first."""
        return tuple(raised.alert for raised in self.alerts if not raised.delivered)

    def all_delivered(self, standing: Sequence[Alert]) -> "State":
        """Everything is delivered; what does not stand any more is forgotten."""
        keys = {a.key for a in standing}
        kept = [replace(raised, delivered=True) for raised in self.alerts if raised.alert.key in keys]
        return replace(self, alerts=tuple(kept))


def _dated_back(value: Any, night: str, before: str, key: str = "") -> Any:
    if isinstance(value, dict):
        return {own: _dated_back(inner, night, before, own) for own, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_dated_back(inner, night, before) for inner in value]
    return before if key in _DATES and value is not None and value > night else value


def state_path(output: str) -> str:
    """The file of an output folder's state."""
    return storage.join(output, "nightly", "state.json")


def load_state(output: str) -> State:
    """What earlier nights left; an empty state where there was none.

    Raises:
        InputError: the file is damaged, or was written by another version of this program.
    """
    path = state_path(output)
    if not storage.exists(path):
        return State()
    try:
        record = parsed_json(storage.read_bytes(path))
        if not isinstance(record, dict):
            raise ValueError("expected keys with values")
        if (schema := record.pop("schema", None)) != SCHEMA:
            raise ValueError(f"its schema is {schema!r}, this version reads {SCHEMA}")
        return checked(State, record)
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read: {error}; restore it, or delete it: then nothing is scored again that "
            "is still there, but checkpoints whose files are gone are lost from the results"
        ) from None


def save_state(output: str, state: State) -> None:
    """Write the state, whole or not at all."""
    storage.write_bytes(state_path(output), state_bytes(state))


def state_bytes(state: State) -> bytes:
    """The content of the file."""
    record = {"schema": SCHEMA, **asdict(state)}
    return (json_text(record, indent=1, sort_keys=True) + "\n").encode()
