"""How commands that score show it: bars or lines on standard error, or the structured log."""

import os
import sys
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from forecast import api
from forecast.api.subscribers import Event, Show
from forecast.errors import ConfigError
from forecast.report.console import err
from forecast.runs.progress import ScoringProgress, WorkProgress
from forecast.safe_text import json_text

if TYPE_CHECKING:
    from forecast.plan import Failure, Plan


def score_run(run: api.Run, address: str | None, retry: bool) -> dict[str, Any]:
    """As `Run.score` with progress on standard error."""
    checked_plan(run)
    with redirect_stdout(sys.stderr):  # Ray prints news of dead workers, and our JSON goes to standard output
        return run.score(address, retry, print_event, show=progress_bars())


def checked_plan(run: api.Run) -> "tuple[Plan, list[Failure]]":
    """The plan and the candidates that would fail, with a spinner."""
    with err.status("reading inputs and fingerprinting candidates"):
        plan = run.plan()
    with err.status("checking models, tokenizers and templates"):
        return plan, run.refused()


def aggregate_run(run: api.Run, unless_current: bool = False) -> "list[Failure]":
    """As `Run.aggregate`, with a spinner."""
    with err.status("computing the proxies"):
        return run.aggregate(unless_current)


def ranking_of(
    run: api.Run, over: Literal["auto", "tokens", "bytes"] = "auto", held_out: bool = True, **options: Any
) -> api.RunRanking:
    """As `Run.rank`, with progress; `options` are those of `RunRanking.held_out`."""
    with err.status("ranking"):
        ranked = run.rank(over, held_out=False, on_note=_note)
    if not held_out:
        return ranked
    with WorkProgress(err, "scorers and their nulls") as progress:
        return ranked.led_by(ranked.held_out(on_progress=progress.advance, on_note=_note, **options))


def _note(words: str) -> None:
    err.print("note: " + words, style="yellow", soft_wrap=True)


def print_event(event: Event) -> None:
    """Events that are no part of the progress bar; with `FORECAST_LOG=json` the log lines themselves."""
    kind = event["event"]
    if kind == "released":
        err.print(f"{event['count']} released from quarantine")
    elif kind == "setup":
        err.print(f"{event['setup']}: {event['label']}")
    elif kind == "failed":
        err.print(event["error"], style="red")
    elif kind == "note":
        _note(event["note"])
    elif kind == "trouble":
        err.print(event["error"], style="yellow", soft_wrap=True)
    elif _log_is_json():
        print(json_text(event), file=sys.stderr)


def progress_bars() -> Show | None:
    """None where the structured log takes their place."""
    return None if _log_is_json() else partial(ScoringProgress, err)


def _log_is_json() -> bool:
    form = os.environ.get("FORECAST_LOG") or None
    if form not in (None, "json"):
        raise ConfigError(f"FORECAST_LOG is {form!r}; expected json, or nothing for lines that people read")
    return form == "json"
