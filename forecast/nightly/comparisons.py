"""A night's comparisons, from the warehouse: every watched checkpoint with the best before it in its run."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

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

_Pair = tuple[int, int]  # steps, the later first


def sign_of(metric: str) -> int | None:
    """+1 where higher is better, as of every measured score; None where the direction is unknown."""
    return None if metric in _LEARNED else SIGNS.get(metric, 1)


def comparisons_of(
    db: duckdb.DuckDBPyConnection, watched: Sequence[Watched], values: Sequence[Value]
) -> tuple[Comparison, ...]:
    """Of all tasks together every checkpoint, of one task the newest; by run and metric.

    Metrics whose direction is unknown are left out.
    """
    errors = _errors(db, watched)
    found: list[Comparison] = []
    for run, metric in dict.fromkeys((v.run, v.metric) for v in values):
        if (sign := sign_of(metric)) is None:
            continue
        by_task: dict[str, dict[int, float]] = defaultdict(dict)
        for v in values:
            if (v.run, v.metric) == (run, metric):
                by_task[v.task][v.step] = v.value
        bare = {task: Series(sign, own, errors=errors[run, task, metric]) for task, own in by_task.items()}
        pairs = {(c.step, c.best_step) for c in _kept(compare(run, metric, bare)) if c.best_step is not None}
        paired = _paired(db, metric, pairs, [w for w in watched if w.checkpoint.run == run])
        known = {task: replace(own, paired=paired[task]) for task, own in bare.items()}
        found += _kept(compare(run, metric, known))
    return tuple(found)


def _kept(compared: Sequence[Comparison]) -> list[Comparison]:
    newest = {one.task: one.step for one in compared}
    return [one for one in compared if one.overall or one.step == newest[one.task]]


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


def _paired(
    db: duckdb.DuckDBPyConnection, metric: str, pairs: Iterable[_Pair], watched: Sequence[Watched]
) -> Mapping[str, dict[_Pair, tuple[int, float]]]:
    """By task and two steps: instances in common, and the standard deviation of their differences.

    An instance's value is the mean over its experts.
    """
    if metric in SIGNS:
        value, table = f'avg("{metric}" ORDER BY expert)', "instance_proxies"
    elif metric == DIRECT_METRIC:
        value, table = "any_value(correct)", "choice_results"
    else:
        return defaultdict(dict)
    steps = {one.settings.name: one.checkpoint.step for one in watched}
    names = {step: name for name, step in steps.items()}
    ordered = sorted(pairs)
    rows = db.execute(
        "WITH pair AS (SELECT unnest($now) AS now, unnest($before) AS before), value AS ("
        f"  SELECT candidate, task, instance_id, {value} AS value FROM {table}"
        "  JOIN candidates USING (candidate_id) WHERE list_contains($names, candidate) GROUP BY ALL"
        ") "
        "SELECT a.task, now, before, count(*), stddev_samp(a.value - b.value ORDER BY a.instance_id) "
        "FROM pair JOIN value AS a ON a.candidate = now JOIN value AS b ON b.candidate = before "
        "AND a.task = b.task AND a.instance_id = b.instance_id "
        "WHERE isfinite(a.value) AND isfinite(b.value) GROUP BY ALL",
        {
            "now": [names[now] for now, _ in ordered],
            "before": [names[before] for _, before in ordered],
            "names": list(steps),
        },
    ).fetchall()
    found: dict[str, dict[_Pair, tuple[int, float]]] = defaultdict(dict)
    for task, now, before, n, sd in rows:
        found[task][steps[now], steps[before]] = n, sd or 0.0
    return found


def _errors(
    db: duckdb.DuckDBPyConnection, watched: Sequence[Watched]
) -> Mapping[tuple[str, str, str], dict[int, float]]:
    """Standard errors of measured scores, by run, task and metric."""
    checkpoints = {one.settings.name: one.checkpoint for one in watched}
    rows = db.execute("SELECT candidate, task, metric, stderr FROM measured").fetchall()
    found: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    for name, task, metric, error in rows:
        if name in checkpoints and error is not None and np.isfinite(error):
            found[checkpoints[name].run, task, metric][checkpoints[name].step] = float(error)
    return found
