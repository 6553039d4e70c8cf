"""What every diagnostic is made of: a rank correlation with its n and interval, or the reason why not."""

import math
from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.stats.correlations import rho_interval
from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES, kendall, spearman

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rho:
    """Spearman's rho over candidates, with Bonett and Wright's interval over them, and Kendall's tau-b."""

    spearman: float | None
    kendall: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None


@dataclass(frozen=True)
class OrderRho:
    """Of two orders of the candidates by one proxy."""

    proxy: str
    rho: Rho


@dataclass(frozen=True)
class Compared:
    """Rho of a proxy with a measured target, by all that there is and by a part of it."""

    proxy: str
    target: str
    whole: Rho
    part: Rho


def rho_of(x: Array, y: Array, confidence: float) -> Rho:
    """Rank correlation of two columns [candidates] where both are finite.

    The interval takes the candidates as drawn independently; members of one family are not, so it is too
    narrow for them.
    """
    both = np.isfinite(x) & np.isfinite(y)
    a, b, n = x[both], y[both], int(both.sum())
    if n < MIN_CANDIDATES:
        return Rho(
            None, None, None, None, n, f"{n} candidates have both; a rank correlation takes {MIN_CANDIDATES}"
        )
    value = float(spearman(a, b))
    if math.isnan(value):
        return Rho(None, None, None, None, n, "all values of one side are equal")
    low, high = rho_interval(value, n, confidence)
    return Rho(value, number(kendall(a, b)), number(low), number(high), n)


def number(value: SupportsFloat) -> float | None:
    """None for what is not finite: JSON knows no NaN."""
    return float(value) if math.isfinite(value) else None


def mean_known(values: Array, axis: int) -> Array:
    """The mean over one axis of what is finite; NaN where nothing is."""
    known = np.isfinite(values)
    n = known.sum(axis=axis)
    return np.where(n > 0, np.where(known, values, 0.0).sum(axis=axis) / np.maximum(n, 1), np.nan)
