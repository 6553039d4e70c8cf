"""What the warehouse holds about watched runs: which checkpoints are complete, their values, forecasts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb
import numpy as np

from forecast.analysis.checkpoints.forecast import forecast_checkpoints
from forecast.analysis.checkpoints.forecast_run import COMBINED_KEY, CheckpointsOptions, RunForecast
from forecast.analysis.checkpoints.runs_from_run import chance_levels, runs_of
from forecast.analysis.checkpoints.training_runs import Run, Runs
from forecast.config.nightly import NightlyConfig, NightlyForecast, ProxyFell, Spike, WatchConfig
from forecast.errors import ForecastError
from forecast.nightly.checkpoint_candidates import Watched
from forecast.nightly.records import ALL_TASKS, EndForecast, Value
from forecast.plan import Failure
from forecast.warehouse.run_name import run_name

NotForecast = dict[str, str]  # run, task, error


@dataclass(frozen=True)
class Outcome:
    """How the scoring of a candidate ended."""

    status: Literal["complete", "failed", "incomplete"]
    reason: str | None = None


def outcomes(db: duckdb.DuckDBPyConnection) -> dict[str, Outcome]:
    """By name of the candidate."""
    rows = db.execute("SELECT candidate, status, error FROM candidates").fetchall()
    return {name: Outcome(status, reason) for name, status, reason in rows}


def outcomes_without_results(names: Iterable[str], failures: Sequence[Failure]) -> dict[str, Outcome]:
    """Where no candidate is complete, so that there is no warehouse to ask."""
    errors = {f.name: f.error for f in failures if f.subject == "candidate" and f.task is None}
    return {
        name: Outcome("failed", errors[name]) if name in errors else Outcome("incomplete", "not scored yet")
        for name in names
    }


def proxies_of(nightly: NightlyConfig) -> list[str]:
    """Those that forecasts and rules look at, the first of the forecasts first."""
    of_rules = [rule.proxy for rule in nightly.alerts if isinstance(rule, ProxyFell | Spike)]
    return list(dict.fromkeys([*nightly.forecast.proxies, *of_rules]))


def values_of(
    db: duckdb.DuckDBPyConnection, nightly: NightlyConfig, watched: Sequence[Watched]
) -> tuple[Value, ...]:
    """Measured scores of all complete checkpoints, and the proxies that forecasts and rules look at."""
    by_name = {w.settings.name: w.checkpoint for w in watched}
    proxies = proxies_of(nightly)
    rows = db.execute(
        "SELECT candidate, task, proxy, value FROM task_proxies JOIN candidates USING (candidate_id) "
        "WHERE status = 'complete' AND list_contains($proxies, proxy) "
        "UNION ALL SELECT candidate, task, metric, value FROM measured",
        {"proxies": proxies},
    ).fetchall()
    found = [
        Value(by_name[name].run, by_name[name].step, task, metric, float(value))
        for name, task, metric, value in rows
        if name in by_name and value is not None and np.isfinite(value)
    ]
    return tuple(sorted(found, key=lambda v: (v.run, v.task, v.metric, v.step)))


def end_forecasts(
    db: duckdb.DuckDBPyConnection, nightly: NightlyConfig
) -> tuple[tuple[EndForecast, ...], tuple[NotForecast, ...]]:
    """Forecasts for the end of every watched run that has one, and why others have none."""
    ending = [watch for watch in nightly.watch if watch.final_step is not None]
    if not ending:
        return (), ()
    try:
        table, target = runs_of(db, nightly.forecast.target)
        chance = chance_levels(db, target)
    except ForecastError as error:
        return (), tuple(_none(watch, str(error)) for watch in ending)
    forecasts: list[EndForecast] = []
    missing: list[NotForecast] = []
    for watch in ending:
        run = next((run for run in table.runs if run.name == _name_in_results(watch)), None)
        found, reasons = _forecast(watch, run, target, nightly.forecast, chance)
        forecasts += found
        missing += reasons
    return tuple(forecasts), tuple(missing)


def _forecast(
    watch: WatchConfig,
    run: Run | None,
    target: str,
    settings: NightlyForecast,
    chance: Mapping[str, float],
) -> tuple[list[EndForecast], list[NotForecast]]:
    measured = run.of(target) if run is not None else {}
    if run is None or not measured:
        return [], [_none(watch, f"no checkpoint has a measured {target} yet")]
    assert watch.final_step is not None
    last = max(float(series.step[-1]) for series in measured.values())
    if watch.final_step <= last:
        return [], [_none(watch, f"training has reached its end, step {watch.final_step}")]
    if last <= 0:
        return [], [_none(watch, f"no checkpoint after step 0 has a measured {target} yet")]
    horizon = watch.final_step / last
    question = CheckpointsOptions(
        target,
        settings.proxies,
        last,
        horizons=(horizon,),
        confidence=settings.confidence,
        floor=chance,
    )
    try:
        (found,) = forecast_checkpoints(Runs((run,)), question).forecasts
    except ForecastError as error:
        return [], [_none(watch, str(error))]
    forecasts, missing = [], []
    for task in found.tasks:
        made = _end(watch, found, task, question)
        if isinstance(made, EndForecast):
            forecasts.append(made)
        else:
            missing.append(made)
    return forecasts, missing + [_none(watch, why, task) for task, why in found.failed.items()]


def _end(
    watch: WatchConfig, found: RunForecast, task: str, question: CheckpointsOptions
) -> EndForecast | NotForecast:
    assert watch.final_step is not None
    own = found.tasks[task]
    numbers = own.interval(COMBINED_KEY, np.array([watch.final_step / found.window.step_end]))
    at, low, high = (float(each[0]) for each in numbers)
    if not np.isfinite(at) or (own.left_out is None and not np.isfinite([low, high]).all()):
        return _none(watch, own.fits[COMBINED_KEY].reason or "too few checkpoints for an interval", task)
    return EndForecast(
        watch.run,
        task,
        question.target,
        watch.final_step,
        int(found.window.step_end),
        at,
        low if own.left_out is None else None,
        high if own.left_out is None else None,
        question.confidence,
        "combined" if own.left_out is None else "level",
        own.left_out,
    )


def _none(watch: WatchConfig, error: str, task: str = ALL_TASKS) -> NotForecast:
    return {"run": watch.run, "task": task, "error": error}


def horizons_to_the_end(
    watches: Sequence[WatchConfig], table: Runs, target: str, until: float, usual: Sequence[float]
) -> tuple[float, ...]:
    """Horizons of watched runs whose `final_step` is known: the end of each, and the usual ones before it.

    Args:
        until: the last step that may be looked at.
        usual: horizons where no run's end is known or ahead; in lengths of the window.
    """
    runs = {run.name: run for run in table.runs}
    ends = set()
    for watch in watches:
        run = runs.get(_name_in_results(watch))
        series = run.of(target).values() if run is not None else ()
        last = max((float(s.step[s.step <= until].max(initial=0.0)) for s in series), default=0.0)
        if watch.final_step is not None and 0 < last < watch.final_step:
            ends.add(watch.final_step / last)
    before = {h for h in usual if ends and h < max(ends)}
    return tuple(sorted(ends | before)) or tuple(usual)


def _name_in_results(watch: WatchConfig) -> str:
    own = watch.candidate
    bits = own.quantize.bits if own.quantize else None
    return run_name(
        (
            own.family or watch.run,
            own.corpus,
            own.seed,
            bits,
            str(own.drop_layers) if own.drop_layers else None,
        )
    )
