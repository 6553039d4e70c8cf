"""Result files of lm-evaluation-harness, of all versions.

`results` holds tasks, groups and subgroups side by side, so the same questions stand there up to three times.
Which contain which is said by `group_subtasks` (0.4.1 and later), in 0.4.0 only by how `alias` is indented.

| version | what else differs |
|---|---|
| before 0.4 | keys are `acc`, `acc_stderr`; others `METRIC,FILTER`, `METRIC_stderr,FILTER` |
| before 0.4.3 | no `higher_is_better` |
| 0.4.4 and later | a group without a score of its own has the key `" "`, or none |
| 0.5 | `group_subtasks` names groups alone, before also each task |
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from forecast.config.sources import MeasuredSource
from forecast.errors import InputError, did_you_mean, listed
from forecast.inputs.files import read_file
from forecast.inputs.literals import number_of, parse_json
from forecast.proxies.metric_direction import known_direction

_Subtasks = Mapping[str, list[str]]  # the direct parts of each group

_PLACEHOLDER = 999.0  # what the harness writes where nothing was measured
_NO_VALUES = frozenset({"", "n/a", "na", "nan", "none", "null", "[]"})
# Whatever a file says: the harness has `ter`, an error rate, as better where it is higher.
_ERRORS = frozenset(
    ["ter", "wer", "cer", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score"]
)


@dataclass(frozen=True)
class ScoreEntry:
    """A score as its file has it, numbers unchecked."""

    where: str
    candidate: str
    task: str
    metric: str
    value: Any
    stderr: Any
    source: str
    fault: str | None = None  # why it is not known that more is better


@dataclass(frozen=True)
class LmEvalResults:
    """A result file: scores by task and key, and how its tasks lie within each other."""

    path: str
    data: Mapping[str, Any]  # the file's object
    results: Mapping[str, Mapping[str, Any]]
    groups: Collection[str]
    subtasks: _Subtasks | None
    directions: Mapping[str, Mapping[str, Any]]  # True where higher is better, by task and metric
    scores: Mapping[str, Mapping[str, Any]]  # what may be a score; placeholders are left out

    @property
    def date(self) -> tuple[float, str]:
        """When it was written, by which files can be put in order: Unix time, then the file's name."""
        return (date if math.isfinite(date := number_of(self.data.get("date"))) else 0.0), self.path


def read_results(path: str) -> LmEvalResults:
    """Read a result file.

    Raises:
        InputError: no such file, one of another kind, or one without scores.
    """
    try:
        data = parse_json(read_file(path))
        results = {str(task): dict(entry) for task, entry in data["results"].items()}
        groups = {str(task): dict(entry) for task, entry in dict(data.get("groups") or {}).items()}
        stated = data.get("higher_is_better") or {}
        directions = {task: dict(of_task or {}) for task, of_task in stated.items()}
        if other := [
            one for of in directions.values() for one in of.values() if one not in (True, False, None)
        ]:
            raise TypeError(f"{other[0]!r} in higher_is_better")
        is_old = not any("," in key for entry in (*results.values(), *groups.values()) for key in entry)
        apart = groups.keys() - results.keys()
        for group, entry in groups.items():  # some versions list a group's own score here alone
            if not _scores(results.get(group, {}), is_old):
                results[group] = {**results.get(group, {}), **entry}
        # A group that stands apart is above none of the indented tasks.
        subtasks = None if apart and "group_subtasks" not in data else _subtasks(data, groups, results)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: not a result file of lm-evaluation-harness ({error!r}); "
            "expected an object whose key `results` holds the tasks (results_DATE.json)"
        ) from None
    if is_old and len(results) > 1:
        results.pop("all", None)  # the mean over all tasks
    scores = {task: found for task, entry in results.items() if (found := _scores(entry, is_old))}
    if not scores:
        raise InputError(
            f"{path}: `results` has no score, i.e. no number under a key like `acc,none`; "
            "expected the result of an evaluation without --predict_only"
        )
    return LmEvalResults(path, data, results, groups, subtasks, directions, scores)


def lm_eval_entries(source: MeasuredSource, file: LmEvalResults, candidate: str) -> list[ScoreEntry]:
    """The scores of the tasks that are chosen: each question once, and no placeholders.

    The filter `none` is left out of a metric's name.

    Raises:
        InputError: tasks that share questions; groups whose tasks are not known.
    """
    entries = []
    for task in _chosen(source, file):
        for key, value in file.scores[task].items():
            metric, comma, filter_name = key.partition(",")
            entries.append(
                ScoreEntry(
                    where=f"{file.path}: results.{task}.{key}",
                    candidate=candidate,
                    task=task,
                    metric=key.removesuffix(",none"),
                    value=value,
                    stderr=file.results[task].get(f"{metric}_stderr{comma}{filter_name}"),
                    source=file.path,
                    fault=_fault(source, metric, _stated(task, key, file)),
                )
            )
    return entries


def check_tasks(source: MeasuredSource, known: Collection[str]) -> None:
    """Raises: InputError: `tasks` of the configuration names one that is not known."""
    for task in source.tasks or ():
        if task not in known:
            raise InputError(f"{source.path}: no scores of the task {task!r}; {did_you_mean(task, known)}")


def is_no_value(cell: Any) -> bool:
    """Whether a cell says that there is nothing: null, NaN, `N/A`, `[]`."""
    return str(cell).strip().lower() in _NO_VALUES


def lower_is_better(metric: str) -> str:
    """The message about such a metric."""
    fix = "choose another metric, or leave the task out with tasks"
    return f"lower is better for {metric!r}, forecasts take higher as better; {fix}"


def is_error_rate(metric: str) -> bool:
    """Whether lower is better beyond doubt."""
    return metric.partition(",")[0] in _ERRORS


def _scores(entry: Mapping[str, Any], is_old: bool) -> dict[str, Any]:
    """What may be a score, by its key; counts, names and placeholders are left out."""
    found = {}
    for key, value in entry.items():
        metric, has_filter, _ = key.partition(",")
        if metric.endswith("_stderr") or metric in ("bypass", "samples", "sample_len", "sample_count", "tab"):
            continue
        if not has_filter and not (is_old and isinstance(value, int | float)):
            continue  # alias and the like
        is_text = isinstance(value, str) and is_no_value(value)
        if not isinstance(value, list | dict) and not is_text and number_of(value) != _PLACEHOLDER:
            found[key] = value
    return found


def _subtasks(
    data: Mapping[str, Any], groups: Collection[str], results: Mapping[str, Mapping[str, Any]]
) -> _Subtasks | None:
    """None where there are groups and it is not said which tasks they hold."""
    if "group_subtasks" in data:
        named: _Subtasks = data["group_subtasks"]
        lists = [parts if isinstance(parts, list) else [None] for parts in named.values()]
        if any(not isinstance(part, str) for parts in lists for part in parts):
            raise TypeError("group_subtasks holds other things than lists of names")
        return {group: [part for part in parts if part != group] for group, parts in named.items()}
    depths = {task: _depth(str(entry.get("alias", ""))) for task, entry in results.items()}
    if set(groups) >= results.keys():
        return {}
    if not any(depths.values()):
        return None if groups else {}
    parts: dict[str, list[str]] = {}
    above: list[str] = []  # the tasks that the current one stands below, each deeper than the one before
    for task, depth in depths.items():
        while above and depths[above[-1]] >= depth:
            above.pop()
        if above:
            parts.setdefault(above[-1], []).append(task)
        above.append(task)
    return parts


def _depth(alias: str) -> int:
    return len(alias) - len(alias.lstrip(" ")) if alias.lstrip(" ").startswith("- ") else 0


def _chosen(source: MeasuredSource, file: LmEvalResults) -> list[str]:
    """Tasks to take, in the order of the file."""
    scores, results, subtasks = file.scores, file.results, file.subtasks
    if source.tasks is not None:
        chosen = [task for task in scores if task in source.tasks]
    elif subtasks is None and source.count_by == "leaves":
        chosen = [task for task in scores if task not in file.groups]
    elif subtasks is None:
        raise InputError(
            f"{file.path}: it has groups and does not say which tasks they hold: the same questions would "
            f"count twice; set count_by: leaves, or list in tasks those to take: {listed(scores)}"
        )
    else:
        parts = {part for of_group in subtasks.values() for part in of_group}
        roots = [name for name in (*results, *subtasks) if name not in parts]
        if source.count_by == "leaves":
            found = _below(roots, subtasks) & _leaves(scores, subtasks)
        else:  # in the place of a group without a score stand its parts
            found = _below(roots, subtasks, stop=scores) & scores.keys()
        chosen = [task for task in scores if task in found]
        if not chosen:
            raise InputError(f"{file.path}: groups that hold each other in `group_subtasks`; set tasks")
    holder: dict[str, str] = {}
    leaves = _leaves(results, subtasks or {})
    for task in chosen:
        for leaf in _below([task], subtasks or {}) & leaves:
            if (other := holder.setdefault(leaf, task)) != task:
                raise InputError(
                    f"{file.path}: {other!r} and {task!r} share questions ({leaf}), which would count "
                    "twice; list one of them in tasks, or set count_by: leaves"
                )
    return chosen


def _below(names: Iterable[str], subtasks: _Subtasks, stop: Collection[str] = ()) -> set[str]:
    """Tasks and groups, and all their parts but those of what is in `stop`."""
    found: set[str] = set()
    left = list(names)
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += () if name in stop else subtasks.get(name, ())
    return found


def _leaves(known: Collection[str], subtasks: _Subtasks) -> set[str]:
    """Those known tasks and groups that no other known one is a part of."""
    holders: dict[str, list[str]] = {}
    for group, parts in subtasks.items():
        for part in parts:
            holders.setdefault(part, []).append(group)
    above = _below((group for name in known for group in holders.get(name, ())), holders)
    return set(known) - above


def _stated(task: str, key: str, file: LmEvalResults) -> set[Any]:
    """What the file says of a task, or else of its parts: True where higher is better.

    Args:
        key: of the score; some versions state the direction by it, others by the metric alone.
    """

    def of(one: str) -> set[Any]:
        own = file.directions.get(one, {})
        return {own[name] for name in (key, key.partition(",")[0]) if name in own}

    parts = _below([task], file.subtasks or {})
    return of(task) or set().union(*map(of, parts))


def _fault(source: MeasuredSource, metric: str, stated: set[Any]) -> str | None:
    higher, stated = source.higher_is_better, stated - {None}
    if higher is None and is_error_rate(metric):
        higher = False
    if higher is None and len(stated) == 1:
        (higher,) = stated
    if higher is None and not stated and (known := known_direction(metric)) is not None:
        higher = known.better == "high"
    if higher is None:
        what = "says both of its parts" if stated else "does not say"
        return f"the file {what} whether more of {metric!r} is better; if so, set higher_is_better: true"
    return None if higher else lower_is_better(metric)
