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
    """Mean of the targets and its standard error, taken as independent: [candidates] each; see `combined`.

    NaN for candidates without a mean, and for errors where that of one of its scores is unknown.
    """
    values = np.stack([target.values for target in targets])
    known, has = np.isfinite(values), _covered(values)
    units = np.ones(len(targets)) if complete(values) else _spreads(values)
    errors = np.stack([target.stderr for target in targets]) / units[:, None]
    total = np.sqrt(np.where(known, errors**2, 0).sum(axis=0)) / np.maximum(known.sum(axis=0), 1)
    return combined(values), np.where(has, total, np.nan)


def combined(values: Array) -> Array:
    """One score a candidate from scores [..., T, candidates]: [..., candidates].

    Where every candidate that is measured at all has every task: the mean. Else the scores are z-scored over
    the candidates that have the task, and a candidate's score is the mean over the tasks that it has; NaN
    with fewer than half of them.
    """
    if complete(values):
        return tied(values.mean(axis=-2))
    known = np.isfinite(values)
    n = np.maximum(known.sum(axis=-1, keepdims=True), 1)
    filled = np.where(known, values, 0)
    centred = (
        np.where(known, filled - filled.sum(axis=-1, keepdims=True) / n, 0) / _spreads(values)[..., None]
    )
    means = centred.sum(axis=-2) / np.maximum(known.sum(axis=-2), 1)
    return tied(np.where(_covered(values), means, np.nan))


def complete(values: Array) -> bool:
    """Whether each candidate of [..., T, candidates] has the scores of all tasks, or of none."""
    known = np.isfinite(values)
    return bool((known.all(axis=-2) | ~known.any(axis=-2)).all())


def _covered(values: Array) -> NDArray[np.bool_]:
    """Which candidates have half of the tasks or more."""
    known = np.isfinite(values)
    return np.asarray(known.any(axis=-2) & (2 * known.sum(axis=-2) >= values.shape[-2]))


def _spreads(values: Array) -> Array:
    """Standard deviation of each task [..., T] over the candidates that have it; 1 where they are equal."""
    known = np.isfinite(values)
    n = np.maximum(known.sum(axis=-1), 1)
    filled = np.where(known, values, 0)
    centred = np.where(known, filled - (filled.sum(axis=-1) / n)[..., None], 0)
    spread = np.sqrt((centred**2).sum(axis=-1) / n)
    return np.where(spread > 10.0**-_DECIMALS, spread, 1)
