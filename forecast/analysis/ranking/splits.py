"""Protocols as folds: which tasks are held out, whose cells are learned from, whose are predicted.

Ways to hold out, side by side. *leave-2-tasks-out* (the paper's) learns from all candidates on the other
tasks, so that a scorer may remember which candidate is which. *leave-models-out* and *leave-families-out*
predict candidates that the scorer has seen on no task, on tasks that it has not seen: the estimate for a new
model. *known-tasks* predicts new families on tasks that other candidates have been measured on; there alone
baselines that live on measured scores (observational scaling laws, matrix completion) can take part: they
are shown the new candidates' scores on the other tasks.

Where candidates are held out in groups, chance says who is held out with whom, and with which tasks: over
deals, the rho of 12 candidates went from 0.51 to 0.72. So they are dealt `FOLD_REPEATS` times, and a rho is
the mean over the deals, in the permutations as for the scores themselves. Folds that chance has no part in
(a group for every candidate or family, and a task at a time or all of them) are there once, and so is
leave-2-tasks-out, which takes all pairs of up to 8 tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.stats.family_permutations import family_codes
from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES

Bools = NDArray[np.bool_]

LEAVE_2_TASKS_OUT = "leave-2-tasks-out"
LEAVE_MODELS_OUT = "leave-models-out"
LEAVE_FAMILIES_OUT = "leave-families-out"
KNOWN_TASKS = "known-tasks"
PROTOCOLS = (LEAVE_2_TASKS_OUT, LEAVE_MODELS_OUT, LEAVE_FAMILIES_OUT, KNOWN_TASKS)
UNSEEN = (LEAVE_MODELS_OUT, LEAVE_FAMILIES_OUT)  # what says how a scorer does for models not seen

FOLD_REPEATS = 3  # deals of candidates and tasks
CANDIDATE_GROUPS = 6  # 18 candidates: 3 are held out at a time, 15 learned from
MAX_TASK_PAIRS = 30  # all pairs of up to 8 tasks; of more tasks a seeded choice that takes each equally often


@dataclass(frozen=True)
class Fold:
    """One split; a cell is learned from where `learned` holds its task and `train` its candidate."""

    tasks: tuple[int, ...]  # held out
    train: Bools  # [C]
    test: Bools  # [C], whose cells on the held-out tasks are predicted
    known: bool = False  # whether other candidates' scores on the held-out tasks are learned from
    repeat: int = 0  # in every repeat, each cell is held out once

    def learned(self, n_tasks: int) -> Bools:
        """Tasks [T] that are learned from."""
        return np.array([self.known or t not in self.tasks for t in range(n_tasks)], bool)


@dataclass(frozen=True)
class Protocol:
    """The folds of one protocol; none, and the reason, where the table is too small for it."""

    name: str
    folds: tuple[Fold, ...]
    groups: NDArray[np.int64] | None  # [C]: equal numbers are held out together; None: no candidate is
    reason: str | None = None

    @property
    def n_repeats(self) -> int:
        """How many times the candidates were dealt to folds; 0 without folds."""
        return max((fold.repeat + 1 for fold in self.folds), default=0)

    @property
    def pooled(self) -> bool:
        """Whether a rho is taken over the predictions of several folds, since each has too few candidates."""
        return self.groups is not None


def make_protocol(name: str, families: Sequence[str], scored: Bools, seed: int, repeats: int = 1) -> Protocol:
    """Folds of a protocol for a table.

    Args:
        families: of each candidate, [C].
        scored: [T, C], cells with a score.
        seed: deals candidates and tasks out to folds.
        repeats: deals, where chance has a part in them.
    """
    n_tasks, n_candidates = scored.shape
    if not n_tasks:
        why = f"no task has {MIN_CANDIDATES} candidates with features and scores that are not all equal"
        return Protocol(name, (), None, why)
    if name == LEAVE_2_TASKS_OUT:
        return _leave_tasks_out(n_tasks, n_candidates, seed)
    groups = np.arange(n_candidates)
    unit = "candidates"
    if name in (LEAVE_FAMILIES_OUT, KNOWN_TASKS):
        groups = family_codes(families)
        unit = "families"
    return _leave_groups_out(name, groups, scored, unit, seed, repeats)


def _leave_tasks_out(n_tasks: int, n_candidates: int, seed: int) -> Protocol:
    if n_tasks < 3:
        return Protocol(
            LEAVE_2_TASKS_OUT, (), None, f"takes 3 tasks: 2 to hold out, 1 to learn from; there are {n_tasks}"
        )
    pairs = list(combinations(range(n_tasks), 2))
    if len(pairs) > MAX_TASK_PAIRS:
        pairs = _some_pairs(n_tasks, np.random.default_rng(seed))
    everyone = np.ones(n_candidates, bool)
    return Protocol(LEAVE_2_TASKS_OUT, tuple(Fold(pair, everyone, everyone) for pair in pairs), None)


def _some_pairs(n_tasks: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """About `MAX_TASK_PAIRS` different pairs, dealt in rounds that take every task once (or all but one)."""
    found: dict[tuple[int, int], None] = {}
    while len(found) < MAX_TASK_PAIRS:
        order = rng.permutation(n_tasks)
        for a, b in zip(order[::2], order[1::2], strict=False):
            found[(int(min(a, b)), int(max(a, b)))] = None
    return sorted(found)


def _leave_groups_out(
    name: str, groups: NDArray[np.int64], scored: Bools, unit: str, seed: int, repeats: int
) -> Protocol:
    """Every cell is held out once: its group with others, its task with another (alone if tasks are few)."""
    n_tasks = len(scored)
    there = np.asarray(scored.any(axis=0))
    n_groups = len(np.unique(groups[there]))
    known = name == KNOWN_TASKS
    if n_tasks < 2 and not known:
        return Protocol(
            name, (), groups, f"takes 2 tasks: 1 to hold out, 1 to learn from; there is {n_tasks or 'none'}"
        )
    if n_groups < 2:
        return Protocol(name, (), groups, f"takes 2 {unit} with scores; there is {n_groups or 'none'}")
    rng = np.random.default_rng(seed)
    size = n_tasks if known else 2 if n_tasks >= 4 else 1
    by_chance = n_groups > CANDIDATE_GROUPS or size not in (1, n_tasks)
    folds = []
    for repeat in range(repeats if by_chance else 1):
        fold_of = deal(groups, there, min(CANDIDATE_GROUPS, n_groups), rng)
        task_groups = np.array_split(rng.permutation(n_tasks), -(-n_tasks // size))
        folds += [
            Fold(tuple(sorted(map(int, tasks))), fold_of != k, fold_of == k, known, repeat)
            for k in range(int(fold_of.max()) + 1)
            for tasks in task_groups
        ]
    fewest = min(int((fold.train & there).sum()) for fold in folds)
    if fewest < MIN_CANDIDATES:
        return Protocol(
            name, (), groups, f"leaves {fewest} candidates to learn from in a fold; it takes {MIN_CANDIDATES}"
        )
    return Protocol(name, tuple(folds), groups)


def deal(
    groups: NDArray[np.int64], counted: Bools, n_folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """A fold [C] for every candidate, the same within a group, of about equal numbers of counted candidates.

    Large groups are dealt first, each to the fold with the fewest counted candidates; chance orders equals.
    """
    names, place = np.unique(groups, return_inverse=True)
    sizes = np.bincount(place, weights=counted, minlength=len(names))
    order = rng.permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled = np.zeros(n_folds)
    fold = np.zeros(len(names), int)
    for i in order:
        fold[i] = filled.argmin()
        filled[fold[i]] += sizes[i]
    return np.asarray(fold[place])
