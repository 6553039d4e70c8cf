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


def lm_eval_entries(source: MeasuredSource) -> list[ScoreEntry]:
    """The scores of the tasks that are chosen: each question once, and no placeholders.

    The filter `none` is left out of a metric's name.

    Raises:
        InputError: no such file; a task without scores; tasks that share questions; groups whose tasks are
            not known.
    """
    try:
        data = parse_json(read_file(source.path))
        results = {str(task): dict(entry) for task, entry in data["results"].items()}
        groups = dict(data.get("groups") or {})
        subtasks = _subtasks(data, groups, results)
        stated = data.get("higher_is_better") or {}
        directions = {task: dict(of_task or {}) for task, of_task in stated.items()}
        if other := [
            one for of in directions.values() for one in of.values() if one not in (True, False, None)
        ]:
            raise TypeError(f"{other[0]!r} in higher_is_better")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{source.path}: not a result file of lm-evaluation-harness ({error!r}); "
            "expected an object whose key `results` holds the tasks (results_DATE.json)"
        ) from None
    is_old = not any("," in key for entry in results.values() for key in entry)
    if is_old and len(results) > 1:
        results.pop("all", None)  # the mean over all tasks
    scores = {task: found for task, entry in results.items() if (found := _scores(entry, is_old))}
    if not scores:
        raise InputError(
            f"{source.path}: `results` has no score, i.e. no number under a key like `acc,none`; "
            "expected the result of an evaluation without --predict_only"
        )
    entries = []
    for task in _chosen(source, scores, results, groups, subtasks):
        for key, value in scores[task].items():
            metric, comma, filter_name = key.partition(",")
            entries.append(
                ScoreEntry(
                    where=f"{source.path}: results.{task}.{key}",
                    candidate=str(source.candidate),
                    task=task,
                    metric=key.removesuffix(",none"),
                    value=value,
                    stderr=results[task].get(f"{metric}_stderr{comma}{filter_name}"),
                    source=source.path,
                    fault=_fault(source, metric, _stated(task, metric, directions, subtasks)),
                )
            )
    return entries


def chosen_tasks(source: MeasuredSource, known: Collection[str]) -> list[str]:
    """Those of the known tasks that `tasks` of the configuration names.

    Raises:
        InputError: it names others, too.
    """
    for task in source.tasks or ():
        if task not in known:
            raise InputError(f"{source.path}: no scores of the task {task!r}; {did_you_mean(task, known)}")
    return [task for task in known if source.tasks is None or task in source.tasks]


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


def _chosen(
    source: MeasuredSource,
    scores: Mapping[str, object],
    results: Mapping[str, object],
    groups: Collection[str],
    subtasks: _Subtasks | None,
) -> list[str]:
    """Tasks to take, in the order of the file."""
    if source.tasks is not None:
        chosen = chosen_tasks(source, scores)
    elif subtasks is None and source.count_by == "leaves":
        chosen = [task for task in scores if task not in groups]
    elif subtasks is None:
        raise InputError(
            f"{source.path}: it has groups and does not say which tasks they hold: the same questions would "
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
            raise InputError(f"{source.path}: groups that hold each other in `group_subtasks`; set tasks")
    holder: dict[str, str] = {}
    leaves = _leaves(results, subtasks or {})
    for task in chosen:
        for leaf in _below([task], subtasks or {}) & leaves:
            if (other := holder.setdefault(leaf, task)) != task:
                raise InputError(
                    f"{source.path}: {other!r} and {task!r} share questions ({leaf}), which would count "
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


def _stated(
    task: str,
    metric: str,
    directions: Mapping[str, Mapping[str, Any]],
    subtasks: _Subtasks | None,
) -> set[Any]:
    """What the file says of a task, or else of its parts: True where higher is better."""
    if metric in (own := directions.get(task, {})):
        return {own[metric]}
    parts = _below([task], subtasks or {})
    return {directions[part][metric] for part in parts if metric in directions.get(part, {})}


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
