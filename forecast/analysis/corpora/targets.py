"""What is to be predicted: scores of the large runs by corpus, for every task and their mean."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from forecast.analysis.corpora.decision_accuracy import Array
from forecast.analysis.corpora.observation_arrays import size_number
from forecast.analysis.corpora.observations_from_file import COUNTS, MEAN, TargetScore
from forecast.analysis.stats.figures import mean_known
from forecast.errors import ConfigError, InputError, did_you_mean
from forecast.proxies.metric_direction import is_accuracy

MACRO = "macro"
_MACRO_WORDS = frozenset({"macro", "avg", "average", "mean", "overall", "all"})


@dataclass(frozen=True)
class Target:
    """One task's target over the corpora."""

    task: str
    mean: Array  # [corpora], NaN where there is none
    by_seed: dict[str, Array]  # [corpora] each; empty where only means are known
    macro: bool
    made_of: tuple[str, ...] = ()  # tasks, where it is their mean, made here


@dataclass(frozen=True)
class Targets:
    """All tasks of one metric of the large runs."""

    metric: str
    size: str | None  # None: not in the table
    counts: dict[str, float]  # those of COUNTS that the table has, mean over rows
    corpora: tuple[str, ...]
    tasks: tuple[Target, ...]
    warnings: tuple[str, ...]

    @property
    def main(self) -> Target:
        """The macro where there is one, else the first task."""
        return next((target for target in self.tasks if target.macro), self.tasks[0])


def is_macro(task: str) -> bool:
    """Whether a task's name says that it is a mean over tasks."""
    return bool(_MACRO_WORDS & set(re.split(r"[^a-z]+", task.lower())))


def targets_of(
    scores: Sequence[TargetScore], corpora: Iterable[str], metric: str | None, size: str | None
) -> Targets:
    """Targets over the corpora, in their order.

    The target of a corpus is the mean over its seeds; a given mean is used where there are none, and where
    corpora have different seeds. Tasks without a macro among them get one: their mean.

    Args:
        metric: to be taken where there are several; None: the only one, else the accuracy.
        size: of the runs to be taken where there are several; None: the largest.

    Raises:
        InputError: several metrics and none of them chosen.
        ConfigError: a metric or size that is not there.
    """
    names = tuple(sorted(corpora))
    warnings: list[str] = []
    chosen, size = _size(scores, size, warnings)
    chosen, metric = _metric(chosen, metric, warnings)
    by_task: dict[str, list[TargetScore]] = defaultdict(list)
    for score in chosen:
        by_task[score.task].append(score)
    found = [_target(task, by_task[task], names, warnings) for task in sorted(by_task)]
    if len(found) > 1 and not any(target.macro for target in found):
        found.insert(0, _macro(found))
        warnings.append(f"no macro among the targets: {MACRO} is the mean of their {len(found) - 1} tasks")
    found.sort(key=lambda target: (not target.macro, target.task))
    counts = {}
    for i, name in enumerate(COUNTS):
        known = sorted(score.counts[i] for score in chosen if score.counts[i] is not None)  # type: ignore[type-var]
        if known:
            counts[name] = float(np.mean(np.array(known, float)))
    return Targets(metric, size, counts, names, tuple(found), tuple(warnings))


def _size(
    scores: Sequence[TargetScore], size: str | None, warnings: list[str]
) -> tuple[Sequence[TargetScore], str | None]:
    known = sorted({s.size for s in scores if s.size is not None}, key=lambda s: (size_number(s) or 0.0, s))
    if not known:
        return scores, size
    if size is not None and size not in known:
        raise ConfigError(f"no target of size {size!r}; {did_you_mean(size, known)}")
    taken = known[-1] if size is None else size
    if len(known) > 1:
        warnings.append(
            f"targets of sizes {', '.join(known)}: {taken} is taken (--target-size names another)"
        )
    return [s for s in scores if s.size == taken], taken


def _metric(
    scores: Sequence[TargetScore], metric: str | None, warnings: list[str]
) -> tuple[Sequence[TargetScore], str]:
    known = sorted({s.metric for s in scores})
    if metric is None:
        accuracies = [name for name in known if is_accuracy(name)]
        plain = [name for name in accuracies if name.lower() in ("accuracy", "acc")]
        few = known if len(known) == 1 else plain if len(plain) == 1 else accuracies
        if len(few) != 1:
            raise InputError(
                f"targets of {len(known)} metrics; choose one with --target-metric: {', '.join(known)}"
            )
        metric = few[0]
        if len(known) > 1:
            others = ", ".join(name for name in known if name != metric)
            warnings.append(f"the target is {metric}; also in the table: {others} (--target-metric)")
    elif metric not in known:
        raise ConfigError(f"no target metric {metric!r}; {did_you_mean(metric, known)}")
    return [s for s in scores if s.metric == metric], metric


def _target(task: str, scores: Sequence[TargetScore], corpora: Sequence[str], warnings: list[str]) -> Target:
    place = {corpus: i for i, corpus in enumerate(corpora)}
    grids: dict[str, Array] = {}
    for score in scores:
        if score.corpus in place:
            grids.setdefault(score.seed, np.full(len(corpora), np.nan))[place[score.corpus]] = score.value
    given = grids.pop(MEAN, None)
    if not grids:
        return Target(task, np.full(len(corpora), np.nan) if given is None else given, {}, is_macro(task))
    stacked = np.stack([grids[seed] for seed in sorted(grids)])
    n = np.isfinite(stacked).sum(axis=0)
    own = mean_known(stacked, axis=0)
    uneven = len(set(n[n > 0])) > 1
    if given is not None:
        both = np.isfinite(own) & np.isfinite(given) & (n == len(grids))
        if (np.abs(own - given)[both] > 1e-3 * np.abs(given[both]) + 1e-9).any():
            warnings.append(
                f"{task}: given means differ from the means of the seeds, which are taken where whole"
            )
        own = np.where(np.isfinite(given) & (n < len(grids)), given, own)
    elif uneven:
        warnings.append(
            f"{task}: corpora have targets of different numbers of seeds; each mean is over its own"
        )
    return Target(task, own, {seed: grids[seed] for seed in sorted(grids)}, is_macro(task))


def _macro(found: Sequence[Target]) -> Target:
    """Mean over tasks, of the corpora that have all of them."""
    seeds = set.intersection(*(set(target.by_seed) for target in found))
    return Target(
        MACRO,
        np.mean([target.mean for target in found], axis=0),
        {seed: np.mean([target.by_seed[seed] for target in found], axis=0) for seed in sorted(seeds)},
        True,
        tuple(target.task for target in found),
    )
