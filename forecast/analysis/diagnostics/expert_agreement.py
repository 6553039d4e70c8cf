"""Do experts agree about the candidates? Rank correlations of the candidates' proxies between two experts."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from forecast.analysis.diagnostics.selection import Selection, median_rho
from forecast.analysis.stats.figures import OrderRho
from forecast.warehouse.features import tied
from forecast.warehouse.population import Population


@dataclass(frozen=True)
class Agreement:
    """Two experts of one task."""

    task: str
    first: str
    second: str
    n_instances: tuple[int, int]  # of each that the means are over
    same_instances: bool  # both have solved the same instances, which alone were taken
    rhos: tuple[OrderRho, ...]
    median_rho: float | None  # over all proxies that have one


@dataclass(frozen=True)
class ExpertAgreement:
    """All pairs; none where no task has two experts."""

    pairs: tuple[Agreement, ...]
    reason: str | None


def expert_agreement(population: Population, selection: Selection) -> ExpertAgreement:
    """Every pair of experts within every task; over the instances that both have solved, if there are any."""
    pairs = tuple(
        _pair(population, selection, task, *names)
        for task, proxies in population.proxies.items()
        for names in combinations(sorted(proxies.experts), 2)
    )
    return ExpertAgreement(pairs, None if pairs else "no task has solutions of two experts")


def _pair(population: Population, selection: Selection, task: str, first: str, second: str) -> Agreement:
    a, b = (population.proxies[task].experts[name] for name in (first, second))
    common = np.intersect1d(a.index, b.index)
    same = len(common) > 0
    x, y = (  # [candidates, 80]
        tied(expert.values[:, np.isin(expert.index, common if same else expert.index)].mean(axis=1))
        for expert in (a, b)
    )
    return Agreement(
        task=task,
        first=first,
        second=second,
        n_instances=(len(common), len(common)) if same else (len(a.index), len(b.index)),
        same_instances=same,
        rhos=selection.order_rhos(x, y),
        median_rho=median_rho(x, y),
    )
