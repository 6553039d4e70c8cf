"""One proxy against one target, candidate by candidate: what a scatter plot shows."""

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.results import TargetReport
from forecast.proxies.token_proxies import PROXIES, Proxy
from forecast.warehouse.features import mean_scores
from forecast.warehouse.population import Population

Array = NDArray[np.float64]


def proxy_values(population: Population, report: TargetReport, proxy: Proxy) -> Array:
    """[candidates], in the proxy's own unit: mean over instances, experts and tasks that forecast the target.

    Over several tasks rho is computed on z-scores within each task, so it may differ a little from the order
    seen in these means.
    """
    column = PROXIES.index(proxy)
    means: Array = np.mean([population.proxies[task].means()[:, column] for task in report.tasks], axis=0)
    return means


def target_scores(population: Population, report: TargetReport) -> tuple[Array, Array]:
    """Measured scores and their standard errors, [candidates] each; NaN where there is none."""
    return mean_scores([target for target in population.targets if target.task in report.measured])
