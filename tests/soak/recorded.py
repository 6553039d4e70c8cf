"""`forecast`, with all that the supervisor tells its subscribers also kept as lines of JSON.

The file is named by FORECAST_SOAK_EVENTS. A line is in the file before the driver goes on, so what a killed
driver had handed out is known to the last group.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors import scheduler
from forecast.cli import main as command_line
from forecast.lake.files import Receipt
from forecast.plan import Failure, Plan, Unit
from forecast.runs.events import Subscriber, Subscribers


class Recorder(Subscriber):
    """Appends to the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _keep(self, event: str, **more: Any) -> None:
        with self._path.open("a") as stream:
            stream.write(json.dumps({"event": event, "time": time.time(), **more}) + "\n")

    def started(self, units: Sequence[Unit], actors: int) -> None:
        self._keep("started", units=len(units), actors=actors)

    def handed_out(self, units: Sequence[Unit], actor: int) -> None:
        self._keep("handed_out", actor=actor, addresses=[unit.address for unit in units])

    def committed(self, unit: Unit, receipt: Receipt) -> None:
        self._keep("committed", address=unit.address)

    def retried(self, units: Sequence[Unit], why: str) -> None:
        self._keep("retried", why=why, addresses=[unit.address for unit in units])

    def restarted(self, actor: int, why: str) -> None:
        self._keep("restarted", actor=actor, why=why)

    def gave_up(self, failure: Failure) -> None:
        self._keep("gave_up", error=failure.error)


def main() -> None:
    """The command line, with the recorder beside the subscriber that it brings."""
    recorder = Recorder(Path(os.environ["FORECAST_SOAK_EVENTS"]))
    score_plan = scheduler.score_plan

    def recorded(
        plan: Plan, units: Sequence[Unit], subscriber: Subscriber | None = None
    ) -> scheduler.ScoringResult:
        return score_plan(plan, units, Subscribers([subscriber or Subscriber(), recorder]))

    scheduler.score_plan = recorded
    sys.argv[0] = "forecast"
    command_line.main()


if __name__ == "__main__":
    main()
