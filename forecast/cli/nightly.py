"""`forecast nightly` between a scheduler and the library: options, the lock, what it prints, exit codes."""

from datetime import date as Date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forecast.api import Run
from forecast.cli.options import Json, load_config
from forecast.cli.scoring import aggregate_run, ranking_of, score_run
from forecast.config import NIGHT_VARIABLE
from forecast.errors import ConfigError
from forecast.report.console import PARTIAL_FAILURE, err, out, print_failures, print_json

if TYPE_CHECKING:
    from forecast.nightly.run_night import NightResult, Prepared

ALERT_RAISED = 5
LOCKED = 6

EPILOG = (
    "Exit codes: 0 all well, or broken only what an earlier night reported; 1 it could not be done; 2 wrong "
    "configuration; 3 something failed, or a run cannot be watched (all of it is listed); 5 an alert was "
    "raised, whatever else; 6 another nightly run of this output is at work.  "
    "Example: forecast nightly configs/nightly.yaml"
)

ConfigPath = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", help="A configuration with nightly.watch, e.g. configs/nightly.yaml."),
]
Night = Annotated[
    str | None,
    typer.Option(
        "--date",
        envvar=NIGHT_VARIABLE,
        metavar="YYYY-MM-DD",
        help="The night. Default: today, local time.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what is new and what would be scored, and do nothing.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Address of a Ray cluster; default: the configuration's, else Ray on this machine."),
]

Retry = Annotated[
    bool,
    typer.Option(
        "--retry", help="Try broken checkpoints again that are in quarantine after their own errors."
    ),
]


def nightly(
    config: ConfigPath,
    date: Night = None,
    dry_run: DryRun = False,
    json_: Json = False,
    address: Address = None,
    retry: Retry = False,
) -> None:
    """Score the new checkpoints of watched training runs, refresh forecasts, report, raise alerts.

    The same night twice changes nothing; a missed night is caught up by the next one.
    """
    from forecast.nightly.run_night import Work, prepare, run_night
    from forecast.storage.lease import LockedError, held

    loaded = load_config(config)
    night = _checked(date) if date is not None else Date.today().isoformat()
    if dry_run:
        with err.status("looking for checkpoints"):
            prepared = prepare(loaded, night, only_look=True, given=date is not None)
        _print_prepared(prepared, json_)
        return
    if loaded.nightly is None:
        prepare(loaded, night)  # says so, before anything is written
    try:
        with held(loaded.output) as lock:
            with err.status("looking for checkpoints"):
                prepared = prepare(loaded, night, given=date is not None)
            work = Work(
                score=lambda plan: score_run(Run(plan.config, plan=plan), address, retry),
                aggregate=lambda plan: aggregate_run(Run(plan.config, plan=plan)),
                rank=lambda run: ranking_of(Run(run)).ranking,
            )
            result = run_night(prepared, work, lock)
    except LockedError as error:
        err.print(f"error: {error}", style="red", soft_wrap=True)
        raise typer.Exit(LOCKED) from None
    code = ALERT_RAISED if result.raised else PARTIAL_FAILURE if result.something_failed else 0
    if json_:
        print_json(night_result_record(result, code))
    else:
        _print_result(result)
    raise typer.Exit(code)


def night_result_record(result: "NightResult", code: int) -> dict[str, Any]:
    """The answer of `--json`."""
    from forecast.nightly.records import night_record

    return {
        **night_record(result.night, result.alerts),
        "raised": [alert.key for alert in result.raised],
        "report": list(result.report),
        "index": result.index,
        "undelivered": list(result.undelivered),
        "exit_code": code,
    }


def prepared_record(prepared: "Prepared") -> dict[str, Any]:
    """The answer of `--dry-run --json`."""
    from forecast.nightly.answer import unmatched_text
    from forecast.runs.records import plan_record

    record = plan_record(prepared.plan)
    begun = {c["candidate"]: c["units"] - c["done"] for c in record["candidates"] if c["done"] < c["units"]}
    return {
        "date": prepared.date,
        "to_score": [
            {
                "candidate": one.settings.name,
                "run": one.checkpoint.run,
                "step": one.checkpoint.step,
                "source": one.checkpoint.source,
                "units": begun.pop(one.settings.name, None),  # left to do; None for a new one: all
            }
            for one in prepared.watched
            if one.known is None or one.settings.name in begun
        ],
        "other_candidates_to_score": [{"candidate": name, "units": units} for name, units in begun.items()],
        "waiting": [
            {"checkpoint": w.checkpoint.source, "step": w.checkpoint.step, "run": s.run, "reason": w.reason}
            for s in prepared.sights
            for w in s.waiting
        ],
        "problems": [{"run": s.run, "error": s.problem} for s in prepared.sights if s.problem is not None],
        "nothing_matches": [
            {"run": s.run, "there": list(s.unmatched.names), "text": unmatched_text(s.unmatched)}
            for s in prepared.sights
            if s.unmatched is not None
        ],
        "failed": record["failed"],
    }


def _checked(text: str) -> str:
    from forecast.nightly.records import is_date

    if not is_date(text):
        raise ConfigError(f"--date {text}: expected a date as YYYY-MM-DD")
    return text


def _print_prepared(prepared: "Prepared", as_json: bool) -> None:
    record = prepared_record(prepared)
    if as_json:
        print_json(record)
        return
    for one in [*record["to_score"], *record["other_candidates_to_score"]]:
        left = "new" if one["units"] is None else f"{one['units']} units left"
        _say(f"to score: {one['candidate']} ({left})")
    if not record["to_score"]:
        _say("no checkpoint is to be scored")
    for one in record["waiting"]:
        _say(f"waits: {one['checkpoint']}: {one['reason']}")
    for one in record["problems"]:
        _say(f"run {one['run']}: {one['error']}")
    for one in record["nothing_matches"]:
        _say(f"run {one['run']}: {one['text']}")
    print_failures(record["failed"])


def _print_result(result: "NightResult") -> None:
    from forecast.nightly.alert_rules import first_line
    from forecast.nightly.answer import answers

    night = result.night
    counts = f"{len(night.new)} new, {len(night.waiting)} waiting, {len(night.broken)} broken"
    _say(f"night of {night.date}: {counts}")
    for new in night.new:
        _say(f"  new: {new.name}")
    for waiting in night.waiting:
        _say(f"  waits: {waiting.checkpoint.name}: {waiting.reason}")
    for broken in night.broken:
        known = "broken" if broken.since == night.date else f"known as broken since {broken.since}"
        _say(f"  {known}: {broken.checkpoint.name}: {first_line(broken.error)}")
    for run in night.runs:
        if run.problem is not None:
            _say(f"  run {run.run}: {run.problem}")
    for end in night.forecasts:
        interval = "no interval" if end.low is None else f"{end.low:.4f} to {end.high:.4f}"
        _say(
            f"  forecast at step {end.step} of {end.run}: {end.task} {end.metric} {end.forecast:.4f} "
            f"({interval})"
        )
    for answer in answers(night):
        _say(answer)
    raised = {alert.key for alert in result.raised}
    for alert in result.raised:
        _say(f"ALERT {alert.rule}: {alert.text}")
    for alert in result.alerts:
        if alert.key not in raised:
            _say(f"stands since an earlier night: {alert.rule}: {alert.text}")
    print_failures(list(night.failed))
    for problem in result.undelivered:
        err.print(f"not delivered: {problem}", style="red", soft_wrap=True)
    page = next((path for path in result.report if path.endswith(".html")), result.report[0])
    _say(f"report: {page}; all nights: {result.index}")


def _say(text: str) -> None:
    out.print(text, soft_wrap=True)
