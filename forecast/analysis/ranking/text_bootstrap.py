"""Intervals of rho over the texts: solutions and evaluation items are drawn again, the candidates are not.

Resampling adds the noise of the texts to figures that carry it already, and noise pulls a rank correlation
towards 0: the plain percentile interval lies too low, at strong correlations below the figure it belongs to.
Here the interval is rho plus or minus the larger of rho's distances to the two percentiles, within -1..1.

It does not hold its rate everywhere: rho itself lies too low where the candidates differ little beside the
noise of the texts (attenuation), and where scores run into a floor or ceiling. A 95 % interval held the rho
of endless texts in this share of simulated runs (48 instances, 200 items; columns: standard deviation of the
candidates' accuracies, of which their proxies' is 1.5 times, beside a noise of 0.94 of one solution; rows:
candidates, true rho; `python tests/analysis/ranking/text_simulations.py`):

                  0.05  0.1   0.2   0.4   0.8 (at floor and ceiling)
    11,  0.5      0.83  0.91  0.95  0.95  0.95
    11,  0.95     0.62  0.87  0.89  0.94  0.94
    30,  0.5      0.66  0.88  0.94  0.98  0.94
    30,  0.95     0.30  0.78  0.92  0.94  0.75

So it is near its rate in the middle, and far below it for candidates that are hard to tell apart.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES, spearman
from forecast.config.schema import RankingConfig
from forecast.proxies.token_proxies import PROXIES
from forecast.warehouse.features import combined, features
from forecast.warehouse.population import Population, Target

Array = NDArray[np.float64]

_FEWEST = MIN_CANDIDATES + 1  # of three candidates rho has four values: an interval of it is no evidence
_CHUNK = 50  # resamples at a time: bounds the memory to 50 x candidates x 80 numbers and a few copies


def interval(
    population: Population,
    targets: Sequence[Target],
    tasks: Sequence[str],
    have: NDArray[np.bool_],
    rho: Array,
    settings: RankingConfig,
) -> tuple[Array, Array]:
    """Interval of every proxy's rho against the mean of `targets`.

    Instances are drawn with replacement for each task by itself, the solutions of all experts to an instance
    together and for all candidates alike; so are the items of each direct evaluation. Imported scores have no
    items: they are drawn from a normal distribution with their standard error, and stay where none was given.

    Args:
        tasks: whose proxies are the features.
        have: [candidates], which of them have scores.
        rho: [80], the figures themselves.

    Returns:
        low, high [80]; NaN where rho is, where too many resamples have no rho for a quantile to be known, and
        everywhere with three candidates or fewer and where `resamplable` is not.
    """
    if settings.bootstraps == 0 or have.sum() < _FEWEST or not resamplable(population, targets, tasks):
        return np.full(len(PROXIES), np.nan), np.full(len(PROXIES), np.nan)
    rng = np.random.default_rng(settings.seed)
    drawn = []
    for start in range(0, settings.bootstraps, _CHUNK):
        size = min(_CHUNK, settings.bootstraps - start)
        weights = {task: _resample(rng, len(population.proxies[task].instances), size) for task in tasks}
        resampled = features(population, tasks, weights)[:, have]  # [size, n, 80]
        scores = combined(np.stack([_redraw(rng, target, size) for target in targets], axis=1))[:, have]
        drawn.append(spearman(resampled.transpose(0, 2, 1), scores[:, None, :]))
    return around(rho, np.concatenate(drawn), settings.confidence)


def resamplable(population: Population, targets: Sequence[Target], tasks: Sequence[str]) -> bool:
    """Whether there are two texts or more of everything: one alone resamples to itself and seems certain."""
    return all(len(population.proxies[task].instances) > 1 for task in tasks) and all(
        target.n_items is None or target.n_items > 1 for target in targets
    )


def around(figure: Array, drawn: Array, confidence: float) -> tuple[Array, Array]:
    """The interval of the module's text, for correlations.

    Args:
        figure: [k].
        drawn: [b, k] of resamples, NaN where one has no figure.
    """
    tail = (1 - confidence) / 2
    known = np.isnan(drawn).mean(axis=0) <= tail
    low, high = np.full_like(figure, np.nan), np.full_like(figure, np.nan)
    if known.any():
        bottom, top = np.nanquantile(drawn[:, known], [tail, 1 - tail], axis=0)
        reach = np.maximum(figure[known] - bottom, top - figure[known])
        low[known], high[known] = np.clip([figure[known] - reach, figure[known] + reach], -1, 1)
    return low, high


def _resample(rng: np.random.Generator, n: int, size: int) -> Array:
    """How often each of n is drawn in n draws: [size, n]."""
    return rng.multinomial(n, np.full(n, 1 / n), size=size).astype(float)


def _redraw(rng: np.random.Generator, target: Target, size: int) -> Array:
    """Scores [size, candidates]."""
    if target.items is not None:
        n = target.items.shape[1]
        scores: Array = _resample(rng, n, size) @ target.items.T / n
        return scores
    return target.values + rng.normal(size=(size, len(target.values))) * np.nan_to_num(target.stderr)
