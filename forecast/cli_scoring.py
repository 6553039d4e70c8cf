"""What the commands that score have in common: a configuration scored, a plan aggregated, with progress."""

import sys
from contextlib import redirect_stdout
from typing import Any

from forecast.config import Config
from forecast.console import err
from forecast.errors import ForecastError, InterruptedRun
from forecast.plan import Failure, Plan, Unit, estimated_tokens, make_plan


def score_run(config: Config, address: str | None) -> tuple[dict[str, Any], Plan]:
    """Score what is not in the lake yet; returns what stands there afterwards, and the plan.

    Raises:
        ForecastError: nothing can be scored.
        InterruptedRun: Ctrl-C; what is done is kept.
    """
    from forecast.records import save_failures, score_record

    with err.status("reading inputs and fingerprinting candidates"):
        plan = make_plan(config)
        done = plan.done()
    if not plan.units and plan.failures:
        raise ForecastError(
            "nothing can be scored:\n" + "\n".join(failure.error for failure in plan.failures)
        )
    for failure in plan.failures:
        err.print(failure.error, style="red", markup=False)
    waiting = [unit for unit in plan.units if unit.address not in done]
    failures = list(plan.failures)
    if waiting:
        try:
            failures += _score_units(plan, waiting, address)
        except KeyboardInterrupt:
            raise InterruptedRun("interrupted; the same command goes on where this one stopped") from None
    save_failures(plan, failures)
    return score_record(plan, failures), plan


def aggregate_run(plan: Plan) -> list[Failure]:
    """Compute the proxies from the lake and publish the warehouse; returns all that failed so far."""
    from forecast.records import load_failures
    from forecast.store.build import build_warehouse

    with err.status("computing the proxies"):
        return build_warehouse(plan, load_failures(plan))


def _score_units(plan: Plan, waiting: list[Unit], address: str | None) -> list[Failure]:
    from actors.cluster import connected
    from actors.supervisor import score_plan
    from forecast.progress import ScoringProgress

    tokens = sum(estimated_tokens(unit.shard) for unit in waiting)
    with (
        redirect_stdout(
            sys.stderr
        ),  # Ray prints news of dead workers to standard output, where our JSON goes
        connected(plan.config.cluster, address),
        ScoringProgress(err, len(waiting), tokens) as progress,
    ):
        return score_plan(plan, waiting, progress).failures
