"""Measured downstream scores, imported from files that other programs wrote; nothing is ever filled in."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from forecast.config.sources import MeasuredSource
from forecast.errors import did_you_mean
from forecast.inputs.columns import text_at
from forecast.inputs.files import Problems
from forecast.inputs.literals import number_of
from forecast.inputs.lm_eval_results import (
    ScoreEntry,
    chosen_tasks,
    is_error_rate,
    is_no_value,
    lm_eval_entries,
    lower_is_better,
)
from forecast.inputs.long_table import is_repeat, read_long_table
from forecast.proxies.metric_direction import known_direction

_CSV_COLUMNS = ("candidate", "task", "metric", "value")


@dataclass(frozen=True)
class MeasuredScore:
    """One measured number: `value` and its standard error in the unit of `metric`, higher is better."""

    candidate: str
    task: str
    metric: str
    value: float
    stderr: float | None
    source: str


def load_scores(source: MeasuredSource, candidates: Collection[str]) -> list[MeasuredScore]:
    """The scores of one source, in file order.

    Args:
        candidates: names of the candidates of the run; a score of any other one is an error.

    Raises:
        InputError: unreadable file, missing column, unknown candidate or task, a number that is missing or
            not finite, a score given twice, several metrics of one task and none chosen; names the line or
            the key.
    """
    problems = Problems()
    entries = _csv_entries(source, problems) if source.format == "csv" else lm_eval_entries(source)
    entries = _of_chosen_metric(entries, source, problems)
    scores: list[MeasuredScore] = []
    places: dict[tuple[object, ...], str] = {}
    for entry in entries:
        if entry.candidate not in candidates:
            hint = did_you_mean(entry.candidate, candidates)
            problems.add(entry.where, f"unknown candidate {entry.candidate!r}; {hint}")
            continue
        key = (entry.candidate, entry.task, entry.metric)
        if is_repeat(key, entry.where, places, problems):
            continue
        if entry.fault is not None:
            problems.add(entry.where, entry.fault)
            continue
        value = number_of(entry.value)
        stderr = None if is_no_value(entry.stderr) else number_of(entry.stderr)
        if not math.isfinite(value):
            fix = "remove the score if it is not known"
            problems.add(entry.where, f"value {entry.value!r} is not a finite number; {fix}")
        elif stderr is not None and not 0 <= stderr < math.inf:
            fault = "is not a finite number of 0 or more; leave it out"
            problems.add(entry.where, f"stderr {entry.stderr!r} {fault}")
        else:
            scores.append(MeasuredScore(*key, value, stderr, entry.source))
    problems.raise_if_any()
    return scores


def _csv_entries(source: MeasuredSource, problems: Problems) -> list[ScoreEntry]:
    entries = []
    for row in read_long_table(source.path, _CSV_COLUMNS, ("stderr", "source")):
        candidate, task, metric = (text_at(row, column, problems) for column in _CSV_COLUMNS[:3])
        if candidate is not None and task is not None and metric is not None:
            value, stderr = row.data["value"], row.data.get("stderr")
            origin = row.data.get("source") or source.path
            fault = None if source.higher_is_better else _fault(metric)
            entries.append(ScoreEntry(row.where, candidate, task, metric, value, stderr, origin, fault))
    tasks = chosen_tasks(source, dict.fromkeys(entry.task for entry in entries))
    return [entry for entry in entries if entry.task in tasks]


def _fault(metric: str) -> str | None:
    known = known_direction(metric)
    if is_error_rate(metric) or (known is not None and known.better == "low"):
        return f"{lower_is_better(metric)}; if the values have their sign turned, set higher_is_better: true"
    return None


def _of_chosen_metric(
    entries: list[ScoreEntry], source: MeasuredSource, problems: Problems
) -> list[ScoreEntry]:
    """One metric per task: the only one there is, or the one that `metric` names."""
    chosen: list[ScoreEntry] = []
    for task in dict.fromkeys(entry.task for entry in entries):
        own = matching = [entry for entry in entries if entry.task == task]
        if source.metric is not None:
            wanted = source.metric.removesuffix(",none")
            exact = [entry for entry in own if entry.metric == wanted]
            matching = exact or [entry for entry in own if entry.metric.partition(",")[0] == wanted]
        metrics = dict.fromkeys(entry.metric for entry in matching)
        if len(metrics) == 1:
            chosen += matching
            continue
        fault = f"has several metrics; set metric to one of: {', '.join(metrics)}"
        if not metrics:
            present = ", ".join(dict.fromkeys(entry.metric for entry in own))
            fix = "choose one of these, or name in tasks those that have it"
            fault = f"has no metric {source.metric!r}; it has: {present}; {fix}"
        problems.add(own[0].where, f"the task {task!r} {fault}")
    return chosen
