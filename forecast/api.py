"""What the commands that score have in common: a configuration scored, a plan aggregated, with progress."""

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

from forecast.config.schema import Config
from forecast.errors import ConfigError, ForecastError, InterruptedRun
from forecast.nightly.checkpoint_candidates import plan_of
from forecast.plan import Failure, Plan, Unit
from forecast.report.console import err
from forecast.runs.event_log import RunLog, log_file
from forecast.runs.events import Watcher, Watchers
from forecast.runs.progress import ScoringProgress
from forecast.runs.quarantine import Quarantine
from forecast.runs.status import RunStatus
from forecast.runs.status_file import StatusFile, to_stderr


def score_run(
    config: Config, address: str | None, retry: bool = False, plan: Plan | None = None
) -> tuple[dict[str, Any], Plan]:
    """Score what is not in the lake yet; returns what stands there afterwards, and the plan.

    Args:
        retry: candidates that are quarantined try again.
        plan: where it is laid out already.

    Raises:
        ForecastError: nothing can be scored.
        InterruptedRun: Ctrl-C; what is done is kept.
    """
    from forecast.runs.records import save_failures, score_record

    with err.status("reading inputs and fingerprinting candidates"):
        plan = plan_of(config) if plan is None else plan
        done = plan.done()
    if not plan.units and plan.failures:
        raise ForecastError(
            "nothing can be scored:\n" + "\n".join(failure.error for failure in plan.failures)
        )
    quarantine = Quarantine(config)
    if retry and (released := quarantine.release(plan)):
        err.print(f"{released} released from quarantine", markup=False)
    aside = quarantine.of(plan)
    waiting = [unit for unit in plan.units if unit.address not in done]
    failures = list(plan.failures)
    failures += [
        aside[cid].failure()
        for cid in dict.fromkeys(u.candidate.candidate_id for u in waiting)
        if cid in aside
    ]
    waiting = [unit for unit in waiting if unit.candidate.candidate_id not in aside]
    for failure in failures:
        err.print(failure.error, style="red", markup=False)
    if waiting:
        try:
            failures += _score_units(plan, waiting, done, failures, address)
        except KeyboardInterrupt:
            raise InterruptedRun("interrupted; the same command goes on where this one stopped") from None
    save_failures(plan, failures)
    return score_record(plan, failures), plan


def aggregate_run(plan: Plan) -> list[Failure]:
    """Compute the proxies from the lake and publish the warehouse; returns all that failed so far."""
    from forecast.runs.records import load_failures
    from forecast.warehouse.build import build_warehouse

    with err.status("computing the proxies"):
        return build_warehouse(plan, load_failures(plan))


def _score_units(
    plan: Plan, waiting: list[Unit], done: Collection[str], failures: Sequence[Failure], address: str | None
) -> list[Failure]:
    """Args: failures: what is known to fail before anything is scored."""
    from actors.cluster import connected
    from actors.scheduler import score_plan

    with (
        # Ray prints news of dead workers to standard output, where our JSON goes.
        redirect_stdout(sys.stderr),
        connected(plan.config.cluster, address),
        watched(RunStatus(plan, done, failures, job=os.environ.get("FORECAST_JOB"))) as watcher,
    ):
        return score_plan(plan, waiting, watcher).failures


@contextmanager
def watched(status: RunStatus) -> Iterator[Watcher]:
    """All who watch a run: bars or lines on standard error, its files, the metrics of Ray.

    `FORECAST_LOG=json` prints the structured log instead of bars and lines; `FORECAST_STATUS_FILE` names one
    more place for the status (`actors.jobs.entrypoint` sets it).
    """
    from actors.prometheus import Metrics

    form = os.environ.get("FORECAST_LOG") or None
    if form not in (None, "json"):
        raise ConfigError(f"FORECAST_LOG is {form!r}; expected json, or nothing for lines that people read")
    as_json = form == "json"
    also = [path] if (path := os.environ.get("FORECAST_STATUS_FILE")) else []
    file, sink = StatusFile(status, also, _trouble), log_file(status, _trouble)
    metrics = Metrics(status, _trouble)
    log = RunLog(status, [sink, to_stderr] if as_json else [sink])
    shown = ScoringProgress(err, status)
    try:
        with nullcontext() if as_json else shown:
            yield Watchers([status, log, file, metrics, *([] if as_json else [shown])])
        status.ended("done")
    except KeyboardInterrupt:
        status.ended("interrupted", "interrupted; the same command goes on where this one stopped")
        raise
    except BaseException as error:
        status.ended("failed", str(error) or type(error).__name__)
        raise
    finally:
        for watcher in (log, sink, file, metrics):
            watcher.close()


def _trouble(text: str) -> None:
    err.print(text, style="yellow", markup=False, soft_wrap=True)
