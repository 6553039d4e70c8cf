"""Do experts agree about the candidates? Rank correlations between what two experts' solutions say."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from forecast.analysis.diagnostics.selection import PLACES, Selection
from forecast.analysis.stats.figures import OrderRho, number, rho_of
from forecast.analysis.stats.rank_correlation import spearman
from forecast.proxies.token_proxies import PROXIES
from forecast.warehouse.features import tied
from forecast.warehouse.population import ExpertProxies, Population


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
    x, y = (_means(expert, common if len(common) else expert.index) for expert in (a, b))
    rhos = tuple(
        OrderRho(proxy, rho_of(x[:, PLACES[proxy]], y[:, PLACES[proxy]], selection.confidence))
        for proxy in selection.proxies
    )
    every = spearman(x.T, y.T)
    return Agreement(
        task=task,
        first=first,
        second=second,
        n_instances=(len(common), len(common)) if len(common) else (len(a.index), len(b.index)),
        same_instances=len(common) > 0,
        rhos=rhos,
        median_rho=number(float(np.median(every[np.isfinite(every)]))) if np.isfinite(every).any() else None,
    )


def _means(expert: ExpertProxies, instances: np.ndarray) -> np.ndarray:
    """[candidates, 80] over some of the expert's instances, each of which it has once."""
    own = tied(expert.values[:, np.isin(expert.index, instances)].mean(axis=1))
    assert own.shape[1] == len(PROXIES)
    return own
