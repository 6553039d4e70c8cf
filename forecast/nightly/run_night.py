"""A night: look for new checkpoints, score them, refresh everything, apply the rules, report, deliver.

What has to survive a crash is written in this order: the lake (unit by unit), the warehouse, the state with
the alerts still to be delivered, the report, and, after delivery, the state again. Cut off anywhere, the
same command does the rest; an alert is delivered at least once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date as Date
from datetime import timedelta
from typing import Any

from forecast.analysis.ranking.report import rank_record
from forecast.analysis.ranking.single_proxy import Ranking
from forecast.config.nightly import NightlyConfig
from forecast.config.schema import Config
from forecast.errors import ConfigError, ForecastError, NoDataError
from forecast.nightly.alert_rules import judge
from forecast.nightly.checkpoint_candidates import Watched, config_of, resolver, watched_candidates
from forecast.nightly.comparisons import best_so_far, comparisons_of, sign_of
from forecast.nightly.discovery import Refs, Sight, look
from forecast.nightly.history import missed_nights, nights_before
from forecast.nightly.index import write_index
from forecast.nightly.notify import deliver
from forecast.nightly.records import Alert, Comparison, EndForecast, Night, Value
from forecast.nightly.report import report_folder, write_report
from forecast.nightly.results import (
    Outcome,
    end_forecasts,
    outcomes,
    outcomes_without_results,
    proxies_of,
    values_of,
)
from forecast.nightly.state import State, load_state, save_state
from forecast.nightly.state_update import (
    advanced,
    broken_checkpoints,
    new_checkpoints,
    waiting_checkpoints,
    watched_runs,
)
from forecast.plan import Failure, Plan, make_plan
from forecast.runs.records import load_failures
from forecast.storage.lease import Lock
from forecast.warehouse.connect import open_warehouse

# How a run says since when a candidate is in quarantine; the first night does not say it, and the reason of a
# broken checkpoint must be the same on all nights.
_QUARANTINED = re.compile(r"\s+in quarantine since .*", flags=re.DOTALL)


@dataclass(frozen=True)
class Prepared:
    """What a night begins with."""

    date: str
    nightly: NightlyConfig
    state: State
    sights: tuple[Sight, ...]
    watched: tuple[Watched, ...]
    plan: Plan


@dataclass(frozen=True)
class Work:
    """What the commands `score`, `aggregate` and `rank` do; given from outside, as the first needs Ray."""

    score: Callable[[Plan], object]
    aggregate: Callable[[Plan], Sequence[Failure]]
    rank: Callable[[Config], Ranking]


@dataclass(frozen=True)
class NightResult:
    """A finished night."""

    night: Night
    alerts: tuple[Alert, ...]  # that stand
    raised: tuple[Alert, ...]  # tonight, and earlier ones that were not delivered until now
    report: tuple[str, ...]  # paths
    undelivered: tuple[str, ...]  # what went wrong with deliveries, in words
    index: str | None = None  # path of the index over nights
    before: Night | None = None  # the last one that has a report

    @property
    def something_failed(self) -> bool:
        """A checkpoint for the first time, a run that cannot be watched, a task, a delivery.

        What is broken since an earlier night was reported then, as was a candidate's failure on some task.
        """
        night = self.night
        known = self.before.failed if self.before is not None else ()
        failed = [failure for failure in night.failed if "candidate" not in failure or failure not in known]
        broken = [broken for broken in night.broken if broken.since == night.date]
        unwatched = [run for run in night.runs if run.problem is not None or run.unmatched is not None]
        return bool(broken or unwatched or failed or self.undelivered)


def prepare(
    config: Config,
    date: str,
    refs: Callable[[str], Refs] | None = None,
    *,
    only_look: bool = False,
    given: bool = False,
) -> Prepared:
    """Look for checkpoints and lay out the work; writes nothing below the output.

    Args:
        date: YYYY-MM-DD.
        refs: see `discovery.look`.
        only_look: leave new checkpoints out of the plan, so that none is downloaded or read.
        given: the user has said the date. Nights that are dated ahead of the clock are then dated back.

    Raises:
        ConfigError: nothing is watched, or the date lies before the last night or ahead of the clock.
        InputError: the state is damaged.
    """
    if config.nightly is None:
        raise ConfigError(
            "this configuration watches no training run; add nightly.watch, see configs/nightly.yaml"
        )
    state = _in_order(load_state(config.output), date, given)
    sights = tuple(look(watch, refs) for watch in config.nightly.watch)
    watched = watched_candidates(config.nightly.watch, state, sights)
    planned = [one for one in watched if one.known is not None or not only_look]
    plan = make_plan(config_of(config, planned), resolver(planned))
    unusable = (failure for sight in sights for failure in sight.unusable)
    plan = replace(plan, failures=(*plan.failures, *unusable))
    return Prepared(date, config.nightly, state, sights, watched, plan)


def _in_order(state: State, date: str, given: bool) -> State:
    today = Date.today()
    latest = (today + timedelta(days=1)).isoformat()  # the clocks of two machines may differ by a day
    if date > latest:
        raise ConfigError(
            f"the night of {date} lies ahead of this machine's clock, {today}, and would stop all nights "
            "before it; correct the date or the clock"
        )
    if state.last_night is None or date >= state.last_night:
        return state
    if state.last_night <= latest:
        raise ConfigError(
            f"the night of {date} lies before the last one, {state.last_night}; nights go forward"
        )
    if not given:
        raise ConfigError(
            f"the last night is dated {state.last_night}, ahead of this machine's clock, {today}; if the "
            f"clock is right now, run this once with --date {date}, which dates what is ahead back"
        )
    return state.dated_back(date)


def run_night(prepared: Prepared, work: Work, lock: Lock) -> NightResult:
    """Do a night's work.

    Raises:
        ForecastError: nothing can be scored, or the cluster cannot be reached.
        LostLockError: another run took over.
    """
    date, nightly, plan = prepared.date, prepared.nightly, prepared.plan
    output = plan.config.output
    found = _results(prepared, work)
    lock.check()
    candidates = {candidate.name: candidate for candidate in plan.candidates}
    state = advanced(prepared.state, date, prepared.sights, prepared.watched, found.outcomes, candidates)
    before = nights_before(output, date)
    night = Night(
        date,
        plan.config.name,
        new_checkpoints(state, prepared.sights, date),
        waiting_checkpoints(prepared.sights, prepared.watched, found.outcomes),
        broken_checkpoints(state, prepared.sights),
        watched_runs(nightly.watch, state, prepared.sights, prepared.watched, found.outcomes),
        found.values,
        found.forecasts,
        found.not_forecast,
        found.ranking,
        found.ranking_problem,
        _other_failures(found.failures, prepared.watched),
        missed_nights(before, date),
        best_so_far(nightly.watch, state, found.comparisons, _metrics(nightly, found.values)),
        found.comparisons,
    )
    alerts = judge(night, before, nightly.alerts)
    state = state.with_alerts(date, alerts)
    pending = state.undelivered()
    save_state(output, state)
    paths = write_report(report_folder(output, date), night, before, alerts)
    index = write_index(output, night, alerts)
    undelivered = deliver(night, pending, nightly.deliver)
    if not undelivered:
        state = state.all_delivered(alerts)
        save_state(output, state)
    tonight = [raised.alert for raised in state.alerts if raised.since == date]
    keys = {alert.key for alert in pending}
    raised = (*pending, *(alert for alert in tonight if alert.key not in keys))
    return NightResult(night, alerts, raised, paths, undelivered, index, before[-1] if before else None)


@dataclass(frozen=True)
class _Results:
    """What the lake and the warehouse hold after scoring."""

    outcomes: Mapping[str, Outcome]
    failures: Sequence[Failure]
    values: tuple[Value, ...] = ()
    forecasts: tuple[EndForecast, ...] = ()
    not_forecast: tuple[dict[str, str], ...] = ()
    ranking: dict[str, Any] | None = None
    ranking_problem: str | None = None
    comparisons: tuple[Comparison, ...] = ()


def _metrics(nightly: NightlyConfig, values: Sequence[Value]) -> list[str]:
    """By which the best checkpoint is chosen: the first that a run has."""
    known = [*proxies_of(nightly), *(v.metric for v in values)]
    return [metric for metric in dict.fromkeys(known) if sign_of(metric) is not None]


def _results(prepared: Prepared, work: Work) -> _Results:
    plan = prepared.plan
    names = [candidate.name for candidate in plan.config.candidates]
    if plan.units or plan.candidates:
        work.score(plan)
    try:
        if not plan.units:
            raise NoDataError("no checkpoint can be scored yet")
        failures = _without_history(work.aggregate(plan))
    except NoDataError as error:
        failures = _without_history(load_failures(plan) if plan.units else plan.failures)
        return _Results(outcomes_without_results(names, failures), failures, ranking_problem=str(error))
    ranking, problem = None, None
    try:
        ranking = rank_record(work.rank(plan.config))
    except ForecastError as error:
        problem = str(error)
    with open_warehouse(plan.config.output) as db:
        forecasts, not_forecast = end_forecasts(db, prepared.nightly)
        status = {name: Outcome(o.status, _plain(o.reason)) for name, o in outcomes(db).items()}
        values = values_of(db, prepared.nightly, prepared.watched)
        compared = comparisons_of(db, prepared.watched, values)
    return _Results(status, failures, values, forecasts, not_forecast, ranking, problem, compared)


def _other_failures(failures: Sequence[Failure], watched: Sequence[Watched]) -> tuple[dict[str, str], ...]:
    """All but those of whole checkpoints, which are among the broken ones."""
    names = {one.settings.name for one in watched}
    return tuple(
        failure.as_record()
        for failure in failures
        if failure.subject != "candidate" or failure.task is not None or failure.name not in names
    )


def _without_history(failures: Sequence[Failure]) -> list[Failure]:
    return [Failure(f.subject, f.name, _plain(f.error) or f.error, f.task, f.instance_id) for f in failures]


def _plain(error: str | None) -> str | None:
    return None if error is None else _QUARANTINED.sub("", error)
