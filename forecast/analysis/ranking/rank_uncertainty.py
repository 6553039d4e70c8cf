"""The candidates in their forecast order, how sure each step of it is, and how far a place may be off.

Every candidate is forecast by fits that saw neither it nor the task (leave-models-out), whether it is
measured or not. How far such forecasts miss is known from the measured candidates:

    standing = slope * forecast + error

with the forecast a mean over tasks, and the standing the mean over tasks of the normal quantile of the rank.
Families are drawn again, slope and error are fitted to each draw, and standings of all candidates are drawn
from that. The probability that one candidate stands above another, and the interval of a rank, are shares of
these draws. They are about candidates like these on tasks like these; a candidate's own scores are not used
to place it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from forecast.analysis.stats.correlations import average_ranks
from forecast.analysis.stats.family_bootstrap import MIN_FAMILIES
from forecast.analysis.stats.family_permutations import family_codes
from forecast.analysis.stats.figures import number
from forecast.analysis.stats.rank_correlation import ranks
from forecast.analysis.stats.rank_intervals import p_above_next, rank_intervals

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_MEASURED = 4
OVER_CANDIDATES = "candidates and families"
OVER_INSTANCES = "instances"


@dataclass(frozen=True)
class Place:
    """One candidate in the order; None where it is not known."""

    candidate: str
    family: str
    rank: float  # 1 is best, ties share
    forecast: float  # mean over tasks, in units of the spread of a task's forecasts
    rank_low: float | None
    rank_high: float | None
    p_above_next: float | None  # probability of standing above the next one in the order
    measured_rank: float | None  # by the mean standing over tasks
    n_tasks_measured: int
    interval_over: str | None  # what the interval and the probability are over


@dataclass(frozen=True)
class Order:
    """The order and what it stands on."""

    scorer: str
    places: tuple[Place, ...]
    n_measured: int
    slope: float | None
    error: float | None  # standard deviation, in units of a normal standing
    reason: str | None  # why intervals are not over candidates and families
    unseen: bool  # whether no forecast saw its candidate


def order_of(
    scorer: str,
    candidates: tuple[str, ...],
    families: tuple[str, ...],
    predicted: Array,
    scores: Array,
    *,
    confidence: float,
    draws: int,
    seed: int,
    unseen: bool = True,
    redrawn: Array | None = None,
) -> Order:
    """Order candidates by predictions.

    Args:
        predicted: [T, C] in units of each task's spread, NaN where there is none.
        scores: [any number of tasks, C], NaN where not measured.
        unseen: whether no prediction saw its candidate's scores; else nothing is known of the error.
        redrawn: [D, C], mean predictions under D drawings of the instances; None: there are none.
    """
    forecast = mean_of_tasks(np.round(predicted, 10))
    standing = mean_of_tasks(normal_standings(scores))
    known = np.isfinite(forecast)
    order = np.array(sorted(np.flatnonzero(known), key=lambda c: (-forecast[c], candidates[c])), int)
    both = np.isfinite(standing) & known
    reason, over = _why_not(standing, both, families, draws, unseen), None
    slope = error = None
    low = high = above = np.full(len(order), np.nan)
    if reason is None:
        slope, error = map(float, _fit(forecast[both], standing[both]))
        over = OVER_CANDIDATES
        drawn = _draws(forecast, standing, both, family_codes(families), draws, seed)[
            :, order
        ]  # [draws, places]
        placed = len(order) + 1 - average_ranks(drawn)
        tail = (1 - confidence) / 2
        low, high = np.quantile(placed, [tail, 1 - tail], axis=0, method="closest_observation")
        above = p_above_next(drawn)
    elif redrawn is not None and len(redrawn) > 1 and len(order):
        over = OVER_INSTANCES
        drawn = np.round(redrawn[:, order], 10)
        low, high = rank_intervals(forecast[order], drawn, confidence)
        above = p_above_next(drawn)
        reason = f"rank intervals are over instances alone, not over candidates: {reason}"
    else:
        reason = f"no rank intervals: {reason}"
    own, measured = ranks(forecast), ranks(standing)
    places = tuple(
        Place(
            candidates[c],
            families[c],
            float(own[c]),
            float(forecast[c]),
            number(low[i]),
            number(high[i]),
            number(above[i]),
            number(measured[c]),
            int(np.isfinite(scores[:, c]).sum()),
            over,
        )
        for i, c in enumerate(order)
    )
    return Order(scorer, places, int(both.sum()), slope, error, reason, unseen)


def normal_standings(scores: Array) -> Array:
    """Normal quantile of (rank - 1/2) / n within each task: [T, C]; NaN where there is no score."""
    found = average_ranks(scores)
    n = np.isfinite(found).sum(axis=1, keepdims=True)
    return np.asarray(stats.norm.ppf((found - 0.5) / np.maximum(n, 1)))


def _why_not(
    standing: Array, both: NDArray[np.bool_], families: tuple[str, ...], draws: int, unseen: bool
) -> str | None:
    n_families = len({families[c] for c in np.flatnonzero(both)})
    if both.sum() < MIN_MEASURED or n_families < MIN_FAMILIES:
        return (
            f"that takes {MIN_MEASURED} measured candidates of {MIN_FAMILIES} families, there are "
            f"{both.sum()} of {n_families}"
        )
    if np.ptp(standing[both]) == 0:
        return "all measured candidates stand alike"
    if not unseen:
        return "that takes forecasts of candidates that the fit has not seen"
    return "no bootstraps" if draws < 2 else None


def mean_of_tasks(values: Array) -> Array:
    """Mean over tasks [C] of what is there."""
    known = np.isfinite(values)
    n = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    return np.where(n > 0, np.round(total / np.maximum(n, 1), 10), np.nan)


def _fit(x: Array, y: Array) -> tuple[float, float]:
    """Slope, not below 0, and standard deviation of the error, of a line through the means."""
    dx, dy = x - x.mean(), y - y.mean()
    slope = max(0.0, float(dx @ dy / max(float(dx @ dx), 1e-12)))
    rest = dy - slope * dx
    return slope, float(np.sqrt(rest @ rest / max(len(x) - 2, 1)))


def _draws(
    forecast: Array, standing: Array, both: NDArray[np.bool_], families: Ints, draws: int, seed: int
) -> Array:
    """Standings [draws, C]; a draw that holds fewer than 3 different candidates is drawn again."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero((families == name) & both) for name in np.unique(families[both])]
    out = np.empty((draws, len(forecast)))
    for i in range(draws):
        while True:
            picked = np.concatenate([groups[g] for g in rng.integers(len(groups), size=len(groups))])
            if len(np.unique(forecast[picked])) >= 3 or len(np.unique(forecast[both])) < 3:
                break
        slope, error = _fit(forecast[picked], standing[picked])
        out[i] = slope * forecast + error * rng.normal(size=len(forecast))
    return out
