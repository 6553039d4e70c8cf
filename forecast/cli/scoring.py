"""How commands that score show it: bars or lines on standard error, or the structured log."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from forecast.errors import ConfigError
from forecast.report.console import err

if TYPE_CHECKING:
    from forecast.api import Event, Run, Show
    from forecast.config.schema import Config
    from forecast.plan import Failure, Plan
    from forecast.runs.events import Subscriber
    from forecast.runs.status import RunStatus


def score_run(
    config: "Config", address: str | None, retry: bool = False, plan: "Plan | None" = None
) -> "tuple[dict[str, Any], Plan]":
    """As `Run.score` with progress on standard error; also returns the plan.

    Args:
        plan: where it is laid out already.
    """
    from forecast.api import Run, score_plan_of

    plan = plan_shown(Run(config)) if plan is None else plan
    # Ray prints news of dead workers to standard output, where our JSON goes.
    with redirect_stdout(sys.stderr):
        return score_plan_of(plan, address, retry, print_event, _show()), plan


def plan_shown(run: "Run") -> "Plan":
    """The run's plan, with a spinner: fingerprints of weights take a while."""
    with err.status("reading inputs and fingerprinting candidates"):
        return run.plan()


def aggregate_run(plan: "Plan") -> "list[Failure]":
    """As `Run.aggregate`, with a spinner."""
    from forecast.api import aggregate_plan

    with err.status("computing the proxies"):
        return aggregate_plan(plan)


def watched(status: "RunStatus") -> "AbstractContextManager[Subscriber]":
    """As `forecast.api.watched`, shown on standard error."""
    from forecast import api

    return api.watched(status, print_event, _show())


def print_event(event: "Event") -> None:
    """Events that are no part of the progress bar; with `FORECAST_LOG=json` the log lines themselves."""
    kind = event["event"]
    if kind == "released":
        err.print(f"{event['count']} released from quarantine", markup=False)
    elif kind == "failed":
        err.print(event["error"], style="red", markup=False)
    elif kind == "trouble":
        err.print(event["error"], style="yellow", markup=False, soft_wrap=True)
    elif _log_is_json():
        print(json.dumps(event, ensure_ascii=False), file=sys.stderr)


def _show() -> "Show | None":
    return None if _log_is_json() else _bars


@contextmanager
def _bars(status: "RunStatus") -> "Iterator[Subscriber]":
    from forecast.runs.progress import ScoringProgress

    with ScoringProgress(err, status) as shown:
        yield shown


def _log_is_json() -> bool:
    form = os.environ.get("FORECAST_LOG") or None
    if form not in (None, "json"):
        raise ConfigError(f"FORECAST_LOG is {form!r}; expected json, or nothing for lines that people read")
    return form == "json"
