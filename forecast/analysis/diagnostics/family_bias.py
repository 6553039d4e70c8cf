"""Does an expert favour its own family? The ranking with each expert left out, and who moves.

An expert that is a model may write what its relatives find likely. Leaving it out then moves its family's
candidates down (to higher places) and the others up.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forecast.analysis.diagnostics.selection import PLACES, Selection
from forecast.analysis.stats.figures import Compared, Rho, number, rho_of
from forecast.analysis.stats.rank_correlation import ranks
from forecast.config.schema import ExpertConfig
from forecast.warehouse.features import features
from forecast.warehouse.population import Population


@dataclass(frozen=True)
class Shift:
    """A candidate's place (1 is best) with all experts and with one left out."""

    candidate: str
    family: str | None
    same_family: bool
    place_with: float
    place_without: float


@dataclass(frozen=True)
class LeftOut:
    """One proxy's order over all tasks with and without an expert, and its rho against each target."""

    proxy: str
    order_rho: Rho  # of the two orders
    targets: tuple[Compared, ...]  # with all experts and without it
    shifts: tuple[Shift, ...]
    favour: float | None  # mean places lost by its family without it, less those lost by the others
    reason: str | None  # why there is no favour


@dataclass(frozen=True)
class ExpertOverlap:
    """One expert."""

    expert: str
    family: str | None
    known_by: str | None  # configuration, name
    same_family: tuple[str, ...]  # candidates of its family
    tasks_lost: tuple[str, ...]  # tasks that only it has written for
    left_out: tuple[LeftOut, ...]
    reason: str | None  # why nothing can be said without it


def expert_overlap(
    population: Population, selection: Selection, configured: Mapping[str, ExpertConfig]
) -> tuple[ExpertOverlap, ...]:
    """All experts, in alphabetical order."""
    experts = sorted({name for task in population.proxies.values() for name in task.experts})
    families = [family for family in population.families if family is not None]
    return tuple(
        _one(population, selection, expert, *family_of(expert, configured, families)) for expert in experts
    )


def family_of(
    expert: str, configured: Mapping[str, ExpertConfig], families: Sequence[str]
) -> tuple[str | None, str | None]:
    """An expert's family, and how it is known.

    As configured, else the longest of the candidates' families that its name begins with; only letters and
    digits are compared.
    """
    if expert in configured and configured[expert].family is not None:
        return configured[expert].family, "configuration"
    name = _plain(expert)
    fitting = [family for family in families if _plain(family) and name.startswith(_plain(family))]
    return (max(fitting, key=len), "name") if fitting else (None, None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def without_expert(population: Population, expert: str) -> Population:
    """The population whose proxies are means over the other experts; tasks of this one alone are gone."""
    kept = {}
    for task, proxies in population.proxies.items():
        others = {name: own for name, own in proxies.experts.items() if name != expert}
        if others:
            kept[task] = replace(proxies, experts=others)
    return replace(population, proxies=kept)


def _one(
    population: Population, selection: Selection, expert: str, family: str | None, known_by: str | None
) -> ExpertOverlap:
    same = np.array(
        [f is not None and family is not None and _plain(f) == _plain(family) for f in population.families]
    )
    names = tuple(name for name, own in zip(population.candidates, same, strict=True) if own)
    rest = without_expert(population, expert)
    lost = tuple(task for task in population.proxies if task not in rest.proxies)
    head = (expert, family, known_by, names, lost)
    if not rest.proxies:
        return ExpertOverlap(*head, (), "it is the only expert: without it nothing is left")
    left_out = tuple(_left_out(population, rest, selection, proxy, same) for proxy in selection.proxies)
    return ExpertOverlap(*head, left_out, None)


def _left_out(
    population: Population, rest: Population, selection: Selection, proxy: str, same: np.ndarray
) -> LeftOut:
    column = PLACES[proxy]

    def values(of: Population, tasks: Sequence[str]) -> np.ndarray:
        return features(of, [task for task in tasks if task in of.proxies])[:, column]

    with_it, without = (values(p, tuple(population.proxies)) for p in (population, rest))
    before, after = ranks(with_it), ranks(without)
    lost = after - before
    favour, reason = None, None
    if not same.any():
        reason = "no candidate is of its family"
    elif same.all():
        reason = "all candidates are of its family: there are no others to compare them with"
    else:
        favour = number(lost[same].mean() - lost[~same].mean())
    targets = []
    for question in selection.questions:
        if question.target is not None:
            mine = rho_of(values(population, question.tasks), question.scores, selection.confidence)
            if any(task in rest.proxies for task in question.tasks):
                other = rho_of(values(rest, question.tasks), question.scores, selection.confidence)
            else:
                other = Rho(None, None, None, None, 0, "only this expert wrote for its tasks")
            targets.append(Compared(proxy, question.target, mine, other))
    shifts = tuple(
        Shift(name, population.families[i], bool(same[i]), float(before[i]), float(after[i]))
        for i, name in enumerate(population.candidates)
    )
    return LeftOut(
        proxy, rho_of(with_it, without, selection.confidence), tuple(targets), shifts, favour, reason
    )
