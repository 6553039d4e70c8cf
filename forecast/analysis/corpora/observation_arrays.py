"""Observations laid out: an array for each metric, by checkpoint, task, seed and corpus."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.corpora.decision_accuracy import Array
from forecast.analysis.corpora.observations_from_file import COUNTS, MEAN, Observation

Step = float | Literal["final"] | None

OWN_LAST: Literal["final"] = "final"  # each run's own last checkpoint, where these are not at the same step
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
_SIZE = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([KkMmBbGgTt]?)")


@dataclass(frozen=True)
class Point:
    """A checkpoint of all runs of a size; step None: the final one."""

    size: str
    step: Step

    @property
    def words(self) -> str:
        """For messages."""
        if self.step in (None, OWN_LAST):
            return self.size
        return f"{self.size} at step {self.step:g}"


def size_number(label: str) -> float | None:
    """150M -> 150e6; None for a label that is no size."""
    found = _SIZE.fullmatch(label.strip())
    return float(found[1]) * _UNITS[found[2].upper()] if found else None


@dataclass(frozen=True)
class Panel:
    """Observations of several metrics on the same places."""

    corpora: tuple[str, ...]
    sizes: tuple[str, ...]  # from small to large
    points: tuple[Point, ...]
    tasks: tuple[str, ...]
    seeds: tuple[str, ...]  # of runs
    variants: tuple[str, ...]  # of the same runs; "": there are none
    groups: NDArray[np.int64]  # [corpora], equal numbers: variants of one base
    # By metric, [points, tasks, seeds + 1, corpora], NaN where there is none. The last place of the seeds
    # holds means over seeds that were given as such.
    values: dict[str, Array]
    seen: dict[str, NDArray[np.bool_]]  # [points, tasks, seeds + 1], also by corpora that have no target
    counts: dict[str, Array]  # by count of COUNTS: [points], mean over runs, NaN where unknown
    scored: Array  # [points, tasks] tokens scored for a task, mean over runs, NaN where unknown
    uneven: tuple[str, ...]  # counts that differ between runs of one point by more than 1 %

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """In alphabetical order."""
        return tuple(sorted(self.values))

    def place(self, task: str) -> int:
        """Of a task."""
        return self.tasks.index(task)

    def tasks_of(self, metric: str) -> tuple[str, ...]:
        """Tasks with any value of a metric."""
        has = np.asarray(self.seen[metric].any(axis=(0, 2)))
        return tuple(task for task, observed in zip(self.tasks, has.tolist(), strict=True) if observed)


def panel_of(observations: Sequence[Observation], corpora: Iterable[str]) -> Panel:
    """Lay out observations; corpora without any are NaN throughout.

    Where runs of one size end at different steps, a further point holds each run's own last checkpoint.
    """
    names = tuple(sorted(corpora))
    sizes = _ordered_sizes(observations)
    tasks = tuple(sorted({o.task for o in observations}))
    runs = sorted(
        {(o.variant, o.seed) for o in observations if o.seed != MEAN},
        key=lambda run: (run[0], _natural(run[1])),
    )
    points = _points(observations, sizes)
    place = {point: i for i, point in enumerate(points)}
    task_place = {task: i for i, task in enumerate(tasks)}
    run_place = {run: i for i, run in enumerate((*runs, ("", MEAN)))}
    group_of = {o.corpus: (o.group, "" if o.group else o.corpus) for o in observations}
    group_of |= {name: ("", name) for name in names if name not in group_of}
    group_place = {group: i for i, group in enumerate(sorted(set(group_of.values())))}
    corpus_place = {corpus: i for i, corpus in enumerate(names)}
    shape = (len(points), len(tasks), len(runs) + 1, len(names))
    values = {metric: np.full(shape, np.nan) for metric in sorted({o.metric for o in observations})}
    seen = {metric: np.zeros(shape[:3], bool) for metric in values}
    known: dict[str, dict[tuple[int, int], dict[tuple[int, int], float]]] = {
        name: defaultdict(dict) for name in COUNTS
    }
    last = _last_steps(observations)
    for o in observations:
        at = [place[Point(o.size, o.step)]]
        own_last = place.get(Point(o.size, OWN_LAST))
        if own_last is not None and o.step == last[o.size, o.variant, o.seed, o.corpus]:
            at.append(own_last)
        t, s, c = task_place[o.task], run_place[o.variant, o.seed], corpus_place.get(o.corpus, -1)
        for p in at:
            seen[o.metric][p, t, s] = True
            if c >= 0:
                values[o.metric][p, t, s, c] = o.value
            for name, count in zip(COUNTS, o.counts, strict=True):
                if count is not None:
                    known[name][p, t if name == "scored_tokens" else 0][s, c] = count
    counts, uneven = {}, []
    for name in COUNTS:
        counts[name] = grid = np.full((len(points), len(tasks)), np.nan)
        for (p, t), by_run in known[name].items():
            own_counts = np.array([by_run[run] for run in sorted(by_run)])
            grid[p, t] = own_counts.mean()
            if own_counts.max() > 1.01 * own_counts.min() and name not in uneven and name != "scored_tokens":
                uneven.append(name)
    scored = counts.pop("scored_tokens")
    return Panel(
        corpora=names,
        sizes=sizes,
        points=points,
        tasks=tasks,
        seeds=tuple(seed for _, seed in runs),
        variants=tuple(variant for variant, _ in runs),
        groups=np.array([group_place[group_of[name]] for name in names], int),
        values=values,
        seen=seen,
        counts={name: grid[:, 0] for name, grid in counts.items()},
        scored=scored,
        uneven=tuple(uneven),
    )


def _points(observations: Sequence[Observation], sizes: Sequence[str]) -> tuple[Point, ...]:
    steps = {(o.size, o.step) for o in observations}
    ends = {(size, step) for (size, *_), step in _last_steps(observations).items()}
    points: list[Point] = []
    for size in sizes:
        points += [Point(size, step) for step in sorted((at for of, at in steps if of == size), key=_late)]
        if sum(of == size for of, _ in ends) > 1:
            points.append(Point(size, OWN_LAST))
    return tuple(points)


def _last_steps(observations: Sequence[Observation]) -> dict[tuple[str, ...], float | None]:
    """Last step of every run (size, variant, seed, corpus)."""
    last: dict[tuple[str, ...], float | None] = {}
    for o in observations:
        run = (o.size, o.variant, o.seed, o.corpus)
        last[run] = max(last.get(run, o.step), o.step, key=_late)
    return last


def _late(step: float | None) -> float:
    return np.inf if step is None else step


def _ordered_sizes(observations: Sequence[Observation]) -> tuple[str, ...]:
    """By the number in the label, else by parameters, else as text."""
    parameters: dict[str, float] = {}
    for o in observations:
        n = o.counts[COUNTS.index("parameters")]
        if n is not None:
            parameters[o.size] = max(n, parameters.get(o.size, 0.0))

    def key(size: str) -> tuple[float, str]:
        number = size_number(size)
        return (parameters.get(size, np.inf) if number is None else number), size

    return tuple(sorted({o.size for o in observations}, key=key))


def _natural(seed: str) -> tuple[bool, float, str]:
    try:
        return False, float(seed), seed
    except ValueError:
        return True, 0.0, seed
