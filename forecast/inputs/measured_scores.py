"""Measured downstream scores, imported from files that other programs wrote; nothing is ever filled in."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice

from forecast.config.candidates import CandidateConfig
from forecast.config.sources import MeasuredSource
from forecast.errors import InputError, did_you_mean, listed
from forecast.inputs.columns import text_at
from forecast.inputs.files import Problems, matching_files
from forecast.inputs.literals import number_of
from forecast.inputs.lm_eval_models import EvaluatedModel, candidates_of, model_of
from forecast.inputs.lm_eval_results import (
    LmEvalResults,
    ScoreEntry,
    check_tasks,
    is_error_rate,
    is_no_value,
    lm_eval_entries,
    lower_is_better,
    read_results,
)
from forecast.inputs.long_table import is_repeat, read_long_table
from forecast.proxies.metric_direction import known_direction

_CSV_COLUMNS = ("candidate", "task", "metric", "value")
_NAMES_SHOWN = 3  # of models that are no candidates


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
class LoadedScores:
    """The scores of one source that are of candidates, and a line on what else it has."""

    scores: tuple[MeasuredScore, ...]
    notes: tuple[str, ...]


def load_scores(source: MeasuredSource, candidates: Sequence[CandidateConfig]) -> LoadedScores:
    """The scores of one source, in the order of its files; those of models that are no candidates are noted.

    Raises:
        InputError: unreadable file, missing column, no score of any candidate, a task that is not there, a
            number that is missing or not finite, a score given twice, several metrics of one task and none
            chosen; names the line or the key.
    """
    problems = Problems()
    paths = matching_files(source.path)
    if source.format == "csv":
        found = _csv_scores(source, paths, candidates, problems)
    else:
        found = _lm_eval_scores(source, paths, candidates)
    entries = _of_chosen_metric(found.entries, source, problems)
    scores: list[MeasuredScore] = []
    places: dict[tuple[object, ...], str] = {}
    for entry in entries:
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
            if str(entry.value).strip().endswith("%"):
                fix = "write it without the sign, all scores of a task in one unit"
            problems.add(entry.where, f"value {entry.value!r} is not a finite number; {fix}")
        elif stderr is not None and not 0 <= stderr < math.inf:
            fault = "is not a finite number of 0 or more; leave it out"
            problems.add(entry.where, f"stderr {entry.stderr!r} {fault}")
        else:
            scores.append(MeasuredScore(*key, value, stderr, entry.source))
    problems.raise_if_any()
    notes = [*found.notes, *_without_metric(source, found.entries, entries)]
    return LoadedScores(tuple(scores), tuple(f"{source.path}: {note}" for note in notes))


@dataclass(frozen=True)
class _Entries:
    """What files have of candidates, and notes on what they have of others."""

    entries: list[ScoreEntry]
    notes: list[str]


def _csv_scores(
    source: MeasuredSource, paths: Sequence[str], candidates: Sequence[CandidateConfig], problems: Problems
) -> _Entries:
    names = [one.name for one in candidates]
    others: dict[str, list[str]] = {}  # by name: where it stands
    entries = []
    for path in paths:
        for row in read_long_table(path, _CSV_COLUMNS, ("stderr", "source")):
            if (candidate := text_at(row, "candidate", problems)) is None:
                continue
            if candidate not in names:
                others.setdefault(candidate, []).append(row.where)
                continue
            task, metric = (text_at(row, column, problems) for column in ("task", "metric"))
            if task is not None and metric is not None:
                value, stderr = row.data["value"], row.data.get("stderr")
                origin = row.data.get("source") or path
                fault = None if source.higher_is_better else _fault(metric)
                entries.append(ScoreEntry(row.where, candidate, task, metric, value, stderr, origin, fault))
    problems.raise_if_any()
    if not entries:
        for name, places in islice(others.items(), _NAMES_SHOWN):
            problems.add(places[0], f"unknown candidate {name!r}; {did_you_mean(name, names)}")
        problems.raise_if_any()
    check_tasks(source, dict.fromkeys(entry.task for entry in entries))
    n_rows = sum(map(len, others.values()))
    what = f"{n_rows} {'row' if n_rows == 1 else 'rows'} of {_models(others)}"
    missing = [name for name in names if name not in {entry.candidate for entry in entries}]
    alike = [(n, near[0]) for n in others if (near := get_close_matches(n, missing, n=1, cutoff=0.8))]
    hint = "".join(f"; did you mean {near!r} by {name!r}?" for name, near in alike[:_NAMES_SHOWN])
    chosen = [entry for entry in entries if source.tasks is None or entry.task in source.tasks]
    return _Entries(chosen, [f"{what} left out{hint}"] if others else [])


def _lm_eval_scores(
    source: MeasuredSource, paths: Sequence[str], candidates: Sequence[CandidateConfig]
) -> _Entries:
    """Of several results of one candidate and task the newest counts."""
    names = [one.name for one in candidates]
    if source.candidate is not None and source.candidate not in names:
        hint = did_you_mean(source.candidate, names)
        raise InputError(f"{source.path}: unknown candidate {source.candidate!r}; {hint}")
    notes = []
    files: dict[str, list[LmEvalResults]] = {}  # by candidate
    perhaps: dict[str, dict[EvaluatedModel, list[LmEvalResults]]] = {}  # by candidate and model
    others: dict[str, list[str]] = {}
    for path in paths:
        try:
            file = read_results(path)
        except InputError as error:
            if len(paths) == 1:
                raise
            notes.append(f"left out: {error}")
            continue
        if source.candidate is not None:
            files.setdefault(source.candidate, []).append(file)
            continue
        model = model_of(file.data)
        matching, is_certain = candidates_of(model, candidates)
        if len(matching) > 1:
            them = ", ".join(one.name for one in matching)
            notes.append(f"{path} left out: its model {model} may be each of {them}; set candidate")
        elif not matching:
            others.setdefault(str(model), []).append(path)
        elif is_certain:
            files.setdefault(matching[0].name, []).append(file)
        else:
            perhaps.setdefault(matching[0].name, {}).setdefault(model, []).append(file)
    for name, by_model in perhaps.items():
        if len(by_model) == 1 and name not in files:
            files[name] = next(iter(by_model.values()))
        else:
            them = ", ".join(sorted(map(str, by_model)))
            notes.append(f"{them} left out: each may be candidate {name} or another; set candidate")
    if others:
        notes.append(f"{_models(others)} left out")
    if not files:
        raise InputError(
            f"{source.path}: no result of a candidate ({'; '.join(notes)}); set candidate to the one that it "
            f"is of: {listed(names)}"
        )
    check_tasks(source, dict.fromkeys(task for own in files.values() for file in own for task in file.scores))
    entries = []
    for name, own in files.items():
        newest: dict[str, list[ScoreEntry]] = {}  # by task
        for file in sorted(own, key=lambda file: file.date):
            by_task: dict[str, list[ScoreEntry]] = {}
            for entry in lm_eval_entries(source, file, name):
                by_task.setdefault(entry.task, []).append(entry)
            if again := newest.keys() & by_task.keys():
                notes.append(
                    f"candidate {name}: {listed(sorted(again))} taken from the newest file, {file.path}"
                )
            newest |= by_task
        entries += [entry for of_task in newest.values() for entry in of_task]
    return _Entries(entries, notes)


def _models(names: Collection[str]) -> str:
    """`3 models that are no candidates (a, b, c)`."""
    shown = ", ".join(islice(names, _NAMES_SHOWN)) + (", ..." if len(names) > _NAMES_SHOWN else "")
    what = (
        "1 model that is no candidate" if len(names) == 1 else f"{len(names)} models that are no candidates"
    )
    return f"{what} ({shown})"


def _fault(metric: str) -> str | None:
    known = known_direction(metric)
    if is_error_rate(metric) or (known is not None and known.better == "low"):
        return f"{lower_is_better(metric)}; if the values have their sign turned, set higher_is_better: true"
    return None


def _of_chosen_metric(
    entries: Sequence[ScoreEntry], source: MeasuredSource, problems: Problems
) -> list[ScoreEntry]:
    """One metric per task: the only one there is, or the first that `metric` names."""
    chosen: list[ScoreEntry] = []
    for task in dict.fromkeys(entry.task for entry in entries):
        own = [entry for entry in entries if entry.task == task]
        matching = next(filter(None, (_with(own, metric) for metric in source.metrics)), [])
        matching = matching if source.metrics else own
        metrics = dict.fromkeys(entry.metric for entry in matching)
        if len(metrics) == 1:
            chosen += matching
            continue
        fault = f"has several metrics; set metric to one of: {', '.join(metrics)}"
        if not metrics:
            present = ", ".join(dict.fromkeys(entry.metric for entry in own))
            wanted = " or ".join(map(repr, source.metrics))
            fix = "choose one of these, or name in tasks those that have it"
            fault = f"has no metric {wanted}; it has: {present}; {fix}"
        problems.add(own[0].where, f"the task {task!r} {fault}")
    return chosen


def _with(entries: Sequence[ScoreEntry], metric: str) -> list[ScoreEntry]:
    """Those with a metric: of this whole name, else of this name with any filter."""
    wanted = metric.removesuffix(",none")
    exact = [entry for entry in entries if entry.metric == wanted]
    return exact or [entry for entry in entries if entry.metric.partition(",")[0] == wanted]


def _without_metric(
    source: MeasuredSource, entries: Sequence[ScoreEntry], chosen: Sequence[ScoreEntry]
) -> list[str]:
    """Notes on candidates whose scores of a task are all of other metrics than the chosen one."""
    if not source.metrics:
        return []
    metrics = {entry.task: entry.metric for entry in chosen}
    has = {(entry.task, entry.candidate) for entry in chosen}
    lacks: dict[str, dict[str, None]] = {}
    for entry in entries:
        if (entry.task, entry.candidate) not in has:
            lacks.setdefault(entry.task, {})[entry.candidate] = None
    return [f"no {metrics[task]} of the task {task} for {listed(names)}" for task, names in lacks.items()]
