"""The two sides of a correlation: features, turned so that higher should be better, and mean scores."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from forecast.proxies.token_proxies import PROXIES
from forecast.warehouse.population import Population, Target

Array = NDArray[np.float64]

_SIGNS = np.array([proxy.sign for proxy in PROXIES], float)
# Means that are equal on paper may differ in their last bits, and ranks would make a difference of that.
# Engines are good to 1e-5 nats, so nothing is lost.
_DECIMALS = 10


def tied(values: Array) -> Array:
    """Values in which differences by rounding are gone."""
    return np.round(values, _DECIMALS)


def features(
    population: Population,
    tasks: Sequence[str],
    weights: Mapping[str, Array] | None = None,
    columns: Sequence[int] | None = None,
) -> Array:
    """Features [candidates, 80]; [b, candidates, 80] under weights [b, instances] of each task's instances.

    Of `columns` alone, where these are given.

    A proxy for which low is better has its sign turned; entropy, whose direction is not known, stays as it
    is. One task: its means. Several: z-scored over the candidates within each task (no scores are used in
    that), then averaged.
    """
    parts = []
    signs = _SIGNS if columns is None else _SIGNS[list(columns)]
    for task in tasks:
        own = population.proxies[task] if columns is None else population.proxies[task].only(columns)
        values = tied(own.means(None if weights is None else weights[task])) * signs
        if len(tasks) > 1:
            spread = values.std(axis=-2, keepdims=True)
            same = values.max(axis=-2, keepdims=True) == values.min(axis=-2, keepdims=True)
            values = (values - values.mean(axis=-2, keepdims=True)) / np.where(same, 1.0, spread)
        parts.append(values)
    return tied(np.mean(parts, axis=0))


def mean_scores(targets: Sequence[Target]) -> tuple[Array, Array]:
    """Mean of the targets and its standard error, taken as independent: [candidates] each.

    NaN for candidates that lack the score, or the standard error, of one of them.
    """
    values = tied(np.mean([target.values for target in targets], axis=0))
    return values, np.sqrt(np.sum([target.stderr**2 for target in targets], axis=0)) / len(targets)
