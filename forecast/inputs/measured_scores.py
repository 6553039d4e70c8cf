"""Measured downstream scores, imported from files that other programs wrote; nothing is ever filled in."""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from forecast.config.sources import MeasuredSource
from forecast.errors import InputError, did_you_mean
from forecast.inputs.columns import text_at
from forecast.inputs.files import Problems, read_file
from forecast.inputs.literals import number_of
from forecast.inputs.long_table import is_repeat, read_long_table

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


@dataclass(frozen=True)
class _Entry:
    """A score as its file has it, numbers unchecked."""

    where: str
    candidate: str
    task: str
    metric: str
    value: Any
    stderr: Any
    source: str
    lower_is_better: bool = False


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
    entries = _csv_entries(source, problems) if source.format == "csv" else _lm_eval_entries(source)
    entries = _of_chosen_metric(_of_chosen_tasks(entries, source), source, problems)
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
        if entry.lower_is_better:
            fix = "choose another metric, or leave the task out with tasks"
            problems.add(
                entry.where, f"lower is better for {entry.metric!r}, forecasts take higher as better; {fix}"
            )
            continue
        value = number_of(entry.value)
        stderr = None if entry.stderr is None else number_of(entry.stderr)
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


def _csv_entries(source: MeasuredSource, problems: Problems) -> list[_Entry]:
    entries = []
    for row in read_long_table(source.path, _CSV_COLUMNS, ("stderr", "source")):
        candidate, task, metric = (text_at(row, column, problems) for column in _CSV_COLUMNS[:3])
        if candidate is not None and task is not None and metric is not None:
            value, stderr = row.data["value"], row.data.get("stderr")
            origin = row.data.get("source") or source.path
            entries.append(_Entry(row.where, candidate, task, metric, value, stderr, origin))
    return entries


def _lm_eval_entries(source: MeasuredSource) -> list[_Entry]:
    """Entries of `results`: task -> `METRIC,FILTER`; the filter `none` is left out of the metric's name."""
    try:
        data = json.loads(read_file(source.path))
        tasks = {task: dict(entry) for task, entry in data["results"].items()}
        directions = data.get("higher_is_better") or {}
        lower_is_better = {
            (t, m) for t, of_task in directions.items() for m, higher in of_task.items() if higher is False
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{source.path}: not a result file of lm-evaluation-harness ({error!r}); "
            "expected an object whose key `results` holds the tasks"
        ) from None
    entries = []
    for task, entry in tasks.items():
        for key, value in entry.items():
            metric, has_filter, filter_name = key.partition(",")
            if not has_filter or metric.endswith("_stderr"):
                continue  # alias, sample_len and the like
            stderr = entry.get(f"{metric}_stderr,{filter_name}")
            entries.append(
                _Entry(
                    where=f"{source.path}: results.{task}.{key}",
                    candidate=str(source.candidate),
                    task=task,
                    metric=key.removesuffix(",none"),
                    value=value,
                    stderr=None if stderr == "N/A" else stderr,
                    source=source.path,
                    lower_is_better=(task, metric) in lower_is_better,
                )
            )
    if not entries:
        raise InputError(
            f"{source.path}: `results` has no key like `acc,none`; "
            "expected a file of lm-evaluation-harness 0.4 or later"
        )
    return entries


def _of_chosen_tasks(entries: list[_Entry], source: MeasuredSource) -> list[_Entry]:
    if source.tasks is None:
        return entries
    known = dict.fromkeys(entry.task for entry in entries)
    for task in source.tasks:
        if task not in known:
            raise InputError(f"{source.path}: no scores of the task {task!r}; {did_you_mean(task, known)}")
    return [entry for entry in entries if entry.task in source.tasks]


def _of_chosen_metric(entries: list[_Entry], source: MeasuredSource, problems: Problems) -> list[_Entry]:
    """One metric per task: the only one there is, or the one that `metric` names."""
    chosen: list[_Entry] = []
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
