"""A night's comparisons, from the warehouse: every watched checkpoint with the best before it in its run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np

from forecast.config.nightly import WatchConfig
from forecast.nightly.best_so_far import Series, best_of, compare
from forecast.nightly.checkpoint_candidates import Watched
from forecast.nightly.records import BestSoFar, Comparison, Value
from forecast.nightly.state import State
from forecast.proxies.token_proxies import PROXIES
from forecast.warehouse.build import DIRECT_METRIC

SIGNS: Mapping[str, int] = {proxy.name: proxy.sign for proxy in PROXIES if not proxy.learned}
_LEARNED = {proxy.name for proxy in PROXIES if proxy.learned}

_Key = tuple[str, int, str, str]  # run, step, task, metric
_Instances = Mapping[_Key, Mapping[str, float]]


def sign_of(metric: str) -> int | None:
    """+1 where higher is better, as of every measured score; None where the direction is unknown."""
    return None if metric in _LEARNED else SIGNS.get(metric, 1)


def comparisons_of(
    db: duckdb.DuckDBPyConnection, watched: Sequence[Watched], values: Sequence[Value]
) -> tuple[Comparison, ...]:
    """Of all tasks together every checkpoint, of one task the newest; by run and metric.

    Metrics whose direction is unknown are left out.
    """
    metrics = list(dict.fromkeys(v.metric for v in values if sign_of(v.metric) is not None))
    instances, errors = _instances(db, watched, metrics), _errors(db, watched)
    found: list[Comparison] = []
    for run, metric in dict.fromkeys((v.run, v.metric) for v in values if v.metric in metrics):
        own = [v for v in values if (v.run, v.metric) == (run, metric)]
        by_task = {task: _series(own, task, instances, errors) for task in dict.fromkeys(v.task for v in own)}
        made = compare(run, metric, by_task)
        newest = {one.task: one.step for one in made}
        found += [one for one in made if one.overall or one.step == newest[one.task]]
    return tuple(found)


def best_so_far(
    watches: Sequence[WatchConfig],
    state: State,
    comparisons: Sequence[Comparison],
    metrics: Sequence[str],
) -> tuple[BestSoFar, ...]:
    """The best checkpoint of each run, by the first of these metrics that its checkpoints have."""
    return tuple(_best(watch.run, state, comparisons, metrics) for watch in watches)


def _best(run: str, state: State, comparisons: Sequence[Comparison], metrics: Sequence[str]) -> BestSoFar:
    rows = {m: [c for c in comparisons if c.overall and (c.run, c.metric) == (run, m)] for m in metrics}
    metric = next((m for m in metrics if rows[m]), None)
    if metric is None:
        known = any(c.run == run for c in comparisons)
        reason = "no task is scored at every checkpoint" if known else "no checkpoint is scored yet"
        return BestSoFar(run, reason=reason)
    best = best_of(rows[metric], sign_of(metric) or 1)
    (scored,) = (one for one in state.runs[run].scored if one.checkpoint.step == best.step)
    name = scored.checkpoint.name
    return BestSoFar(run, metric, best.task, name, best.step, best.value, scored.since, rows[metric][-1])


def _series(own: Sequence[Value], task: str, instances: _Instances, errors: Mapping[_Key, float]) -> Series:
    mine = [v for v in own if v.task == task]
    keys: dict[int, _Key] = {v.step: (v.run, v.step, task, v.metric) for v in mine}
    return Series(
        sign_of(mine[0].metric) or 1,
        {v.step: v.value for v in mine},
        {step: instances[key] for step, key in keys.items() if key in instances},
        {step: errors[key] for step, key in keys.items() if key in errors},
    )


def _instances(
    db: duckdb.DuckDBPyConnection, watched: Sequence[Watched], metrics: Sequence[str]
) -> _Instances:
    """Values of instances, the mean over their experts."""
    found: dict[_Key, dict[str, float]] = defaultdict(dict)
    sources = {m: (f'avg("{m}" ORDER BY expert)', "instance_proxies") for m in metrics if m in SIGNS}
    sources[DIRECT_METRIC] = ("any_value(correct)", "choice_results")
    checkpoints = {one.settings.name: one.checkpoint for one in watched}
    for metric, (value, table) in sources.items():
        query = (
            f"SELECT candidate, task, instance_id, {value} FROM {table} JOIN candidates USING (candidate_id) "
            "WHERE list_contains($names, candidate) GROUP BY ALL ORDER BY ALL"
        )
        for name, task, instance, number in db.execute(query, {"names": list(checkpoints)}).fetchall():
            checkpoint = checkpoints[name]
            if number is not None and np.isfinite(number):
                found[checkpoint.run, checkpoint.step, task, metric][instance] = float(number)
    return found


def _errors(db: duckdb.DuckDBPyConnection, watched: Sequence[Watched]) -> Mapping[_Key, float]:
    checkpoints = {one.settings.name: one.checkpoint for one in watched}
    rows = db.execute("SELECT candidate, task, metric, stderr FROM measured").fetchall()
    return {
        (checkpoints[name].run, checkpoints[name].step, task, metric): float(error)
        for name, task, metric, error in rows
        if name in checkpoints and error is not None and np.isfinite(error)
    }
