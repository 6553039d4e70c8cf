"""Were the texts seen in training? Overlap of the trajectories' n-grams with a corpus that is given.

Prompts and solutions are looked up by themselves. A match is a hint: set phrases and quotations match too,
and a corpus that was not given is not searched.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from forecast.analysis.diagnostics.corpus_reader import CorpusProgress, Piece
from forecast.analysis.diagnostics.ngram_index import NgramMatches, NgramUnit, Overlap
from forecast.analysis.diagnostics.selection import Array, Selection
from forecast.analysis.stats.figures import Compared, Rho
from forecast.inputs.trajectories import Trajectory
from forecast.warehouse.features import features
from forecast.warehouse.population import Population

TextPart = Literal["prompt", "solution"]


@dataclass(frozen=True)
class TextOverlap:
    """One text that has matches."""

    task: str
    instance_id: str
    part: TextPart
    expert: str | None  # of a solution
    share: float  # of its n-grams
    longest_run: int  # words or characters
    excerpt: str


@dataclass(frozen=True)
class TaskOverlap:
    """All prompts, or all solutions, of a task."""

    task: str
    part: TextPart
    texts: int
    too_short: int  # than n: nothing can be said of them
    matched: int  # texts with one match or more
    mean_share: float | None  # over the texts that are long enough


@dataclass(frozen=True)
class WithoutMatches:
    """The order by one proxy, all tasks, when every instance with a match is left out."""

    proxy: str
    order_rho: Rho
    targets: tuple[Compared, ...]  # with all instances and without them


@dataclass(frozen=True)
class Contamination:
    """What the corpus has of the trajectories."""

    n: int
    unit: NgramUnit
    files: int
    documents: int
    rows_without_text: int
    ngrams: int  # different ones of the trajectories
    tasks: tuple[TaskOverlap, ...]
    matches: tuple[TextOverlap, ...]  # the longest runs first
    without: tuple[WithoutMatches, ...]
    without_reason: str | None  # why there is none
    reason: str | None


def not_searched(reason: str) -> Contamination:
    """Where there is no corpus."""
    return Contamination(0, "words", 0, 0, 0, 0, (), (), (), reason, reason)


def contamination(
    trajectories: Sequence[Trajectory],
    pieces: Iterable[Piece],
    progress: CorpusProgress,
    n: int,
    unit: NgramUnit,
    population: Population,
    selection: Selection,
) -> Contamination:
    """Look all trajectories up in a corpus.

    Args:
        trajectories: of all tasks, those alone that were read.
        pieces: of the corpus.
        progress: what the corpus' reader counts, complete when `pieces` is exhausted.
    """
    keys: dict[tuple[str, str, TextPart, str | None], str] = {}
    for t in trajectories:
        keys[t.task, t.instance_id, "prompt", None] = t.prompt  # one for all experts
        keys[t.task, t.instance_id, "solution", t.expert] = t.solution
    overlap = Overlap(list(keys.values()), n, unit)
    for piece in pieces:
        overlap.feed(piece.text, piece.starts)
    found = dict(zip(keys, overlap.results(), strict=True))
    matches = [
        TextOverlap(*key, own.share or 0.0, own.longest_run, own.excerpt)
        for key, own in found.items()
        if own.matched
    ]
    matches.sort(key=lambda m: (-m.longest_run, m.task, m.instance_id, m.part, m.expert or ""))
    groups: dict[tuple[str, TextPart], list[NgramMatches]] = {}
    for (task, _, part, _), own in found.items():
        groups.setdefault((task, part), []).append(own)
    without, without_reason = _without(population, selection, {(m.task, m.instance_id) for m in matches})
    return Contamination(
        n=n,
        unit=unit,
        files=progress.files,
        documents=progress.documents,
        rows_without_text=progress.without_text,
        ngrams=overlap.ngrams,
        tasks=tuple(_task(task, part, own) for (task, part), own in sorted(groups.items())),
        matches=tuple(matches),
        without=without,
        without_reason=without_reason,
        reason=None,
    )


def _task(task: str, part: TextPart, found: Sequence[NgramMatches]) -> TaskOverlap:
    shares = [own.share for own in found if own.share is not None]
    return TaskOverlap(
        task=task,
        part=part,
        texts=len(found),
        too_short=len(found) - len(shares),
        matched=sum(own.matched > 0 for own in found),
        mean_share=float(np.mean(shares)) if shares else None,
    )


def _without(
    population: Population, selection: Selection, matched: set[tuple[str, str]]
) -> tuple[tuple[WithoutMatches, ...], str | None]:
    """By every proxy, or why not."""
    weights = {
        task: np.array([[(task, instance) not in matched for instance in proxies.instances]], float)
        for task, proxies in population.proxies.items()
    }
    if not matched:
        return (), "nothing matches"
    if empty := [task for task, w in weights.items() if w.sum() == 0]:
        return (), f"every instance of {', '.join(empty)} matches"
    every, whole = tuple(population.proxies), partial(features, population)

    def part(tasks: Sequence[str]) -> Array:
        values: Array = features(population, tasks, weights)[0]
        return values

    orders = selection.order_rhos(whole(every), part(every))
    compared = (WithoutMatches(o.proxy, o.rho, selection.compared(o.proxy, whole, part)) for o in orders)
    return tuple(compared), None
