"""Which observed tasks stand for a target task, and a metric's values on them.

The task of the same name, where a metric has it. Else the mean over observed tasks: for a macro, those that
are themselves targets (all of them, or where none is, all that are no means); for any other task likewise
everything that was observed, as with generic text, whose loss stands for every task. An observed task that is
itself a macro by its name is never averaged with others: it stands alone. A corpus counts only where it has
all tasks of the mean.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.corpora.decision_accuracy import Array
from forecast.analysis.corpora.observation_arrays import Panel
from forecast.analysis.corpora.targets import Target, Targets, is_macro
from forecast.analysis.corpora.variants import mean_of_runs


@dataclass(frozen=True)
class Series:
    """One metric against one target."""

    metric: str
    tasks: tuple[str, ...]  # observed ones that stand for the target
    runs: Array  # [points, seeds, corpora] in the metric's own unit
    variants: tuple[str, ...]  # [seeds]
    given: Array  # [points, corpora] means over seeds that were given as such
    seen: NDArray[np.bool_]  # [points, seeds + 1] whether any corpus was observed there

    @cached_property
    def means(self) -> Array:
        """[points, corpora] over a corpus' own variants and their seeds; a given mean where it has none."""
        return np.where(self.seed_counts > 0, mean_of_runs(self.runs, self.variants), self.given)

    @cached_property
    def seed_counts(self) -> Array:
        """[points, corpora] how many runs a mean is over; 0 for a given mean."""
        return np.asarray(np.isfinite(self.runs).sum(axis=1))


def tasks_for(observed: Collection[str], target: Target, targets: Targets) -> tuple[str, ...]:
    """The observed tasks that stand for a target, in alphabetical order."""
    if target.task in observed:
        return (target.task,)
    macros = sorted(task for task in observed if is_macro(task))
    if len(macros) == 1:
        return (macros[0],)
    plain = sorted(task for task in observed if not is_macro(task))
    wanted = set(target.made_of) or {other.task for other in targets.tasks if not other.macro}
    if target.macro and (parts := [task for task in plain if task in wanted]):
        return tuple(parts)
    return tuple(plain or macros)


def series_of(panel: Panel, metric: str, target: Target, targets: Targets) -> Series:
    """A metric's values on the tasks that stand for a target."""
    tasks = tasks_for(panel.tasks_of(metric), target, targets)
    places = [panel.place(task) for task in tasks]
    values = panel.values[metric][:, places].mean(axis=1)  # NaN unless all tasks are there
    seen = np.asarray(panel.seen[metric][:, places].any(axis=1))
    return Series(metric, tasks, values[:, :-1], panel.variants, values[:, -1], seen)


def matching_words(panel: Panel, targets: Targets) -> list[str]:
    """Warnings about tasks that do not match by name, one for each set of tasks."""
    said: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for metric in panel.metrics:
        for target in targets.tasks:
            tasks = tasks_for(panel.tasks_of(metric), target, targets)
            if tasks != (target.task,):
                said.setdefault(tasks, {}).setdefault(target.task, []).append(metric)
    words = []
    for tasks, of_targets in said.items():
        metrics = sorted({metric for names in of_targets.values() for metric in names})
        has = "has" if len(of_targets) == 1 else "have"
        what = f"{', '.join(_few(tuple(of_targets)))} {has} no observations"
        stands = (
            tasks[0]
            if len(tasks) == 1
            else f"the mean of {len(tasks)} observed tasks ({', '.join(_few(tasks))})"
        )
        words.append(
            f"{what} of {', '.join(_few(tuple(metrics)))} of the same name: {stands} stands for them"
        )
    return words


def _few(names: tuple[str, ...], most: int = 6) -> list[str]:
    return [*names[:most], f"{len(names) - most} more"] if len(names) > most else list(names)
