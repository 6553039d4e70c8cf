"""Correlations with gaps, many at once, and what can be said about two that share a sample.

Sources: Williams (1959) and Zou (2007), "Toward using confidence intervals to compare correlations", as in
the R package cocor; Bonett and Wright (2000) for the variance of Spearman's rho; Vigna (2015) for the
weighted tau.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES, kendall

Array = NDArray[np.float64]


def average_ranks(values: Array) -> Array:
    """Average ranks along the last axis, 1 for the lowest; NaN stays NaN and takes no rank.

    Counts pairs: [..., n] costs n squared comparisons for each row, which for some dozens of candidates is
    faster than sorting.
    """
    out = np.empty(values.shape)
    flat, result = values.reshape(-1, values.shape[-1]), out.reshape(-1, values.shape[-1])
    rows = max(1, 4_000_000 // max(1, values.shape[-1] ** 2))  # bounds the memory to some megabytes
    for start in range(0, len(flat), rows):
        v = flat[start : start + rows]
        less = (v[:, :, None] > v[:, None, :]).sum(axis=-1)
        same = (v[:, :, None] == v[:, None, :]).sum(axis=-1)
        result[start : start + rows] = np.where(np.isnan(v), np.nan, less + (same + 1) / 2)
    return out


def unit_ranks(values: Array) -> Array:
    """Average ranks of the finite entries along the last axis, centred, of length 1; NaN becomes 0.

    All 0 where they are constant or fewer than 3: such a row has no say in a sum of rhos.
    """
    ranks = average_ranks(np.where(np.isfinite(values), values, np.nan))
    known = np.isfinite(ranks)
    n = known.sum(axis=-1, keepdims=True)
    centred = np.where(known, ranks - (n + 1) / 2, 0.0)
    length = np.sqrt((centred**2).sum(axis=-1, keepdims=True))
    return np.where((length > 0) & (n >= MIN_CANDIDATES), centred / np.where(length > 0, length, 1.0), 0.0)


def spearman_where(x: Array, y: Array) -> Array:
    """Spearman's rho along the last axis over the entries where both are finite.

    Returns:
        [...], rounded to 12 digits; NaN where either is constant there, or fewer than 3 are left.
    """
    x, y = np.broadcast_arrays(x, y)
    both = np.isfinite(x) & np.isfinite(y)
    a, b = unit_ranks(np.where(both, x, np.nan)), unit_ranks(np.where(both, y, np.nan))
    rho = np.round((a * b).sum(axis=-1), 12)
    defined = (a != 0).any(axis=-1) & (b != 0).any(axis=-1)
    return np.where(defined, rho, np.nan)


def kendall_where(x: Array, y: Array) -> float:
    """Kendall's tau-b over the entries where both are finite; NaN as for `spearman_where`."""
    both = np.isfinite(x) & np.isfinite(y)
    return kendall(x[both], y[both])


def weighted_tau_where(x: Array, y: Array) -> float:
    """Vigna's weighted tau (hyperbolic weights, so that the top counts most), mean of both rankings.

    NaN as for `spearman_where`.
    """
    both = np.isfinite(x) & np.isfinite(y)
    a, b = x[both], y[both]
    if len(a) < MIN_CANDIDATES or (a == a[0]).all() or (b == b[0]).all():
        return float("nan")
    return round(float(stats.weightedtau(a, b).statistic), 12)


def partial_spearman(x: Array, y: Array, given: Array) -> float:
    """Spearman's rho of x and y given a third, over the entries where all are finite.

    NaN where fewer than 4 are left, or one of the three is constant or agrees wholly with `given`.
    """
    every = np.isfinite(x) & np.isfinite(y) & np.isfinite(given)
    if every.sum() < MIN_CANDIDATES + 1:
        return float("nan")
    a, b, c = unit_ranks(np.stack([x[every], y[every], given[every]]))
    xy, xz, yz = float(a @ b), float(a @ c), float(b @ c)
    rest = (1 - xz**2) * (1 - yz**2)
    if not (a.any() and b.any() and c.any()) or rest < 1e-12:
        return float("nan")
    return round(float(np.clip((xy - xz * yz) / math.sqrt(rest), -1, 1)), 12)


def rho_interval(rho: float, n: int, confidence: float) -> tuple[float, float]:
    """Fisher's interval of one rho with Bonett and Wright's variance `(1 + rho^2 / 2) / (n - 3)`.

    NaN for n < 4. At a rho of 1 or -1 Fisher's scale ends; half of the smallest possible disagreement is
    taken to have been seen. So made, the lower end for 8 and 12 candidates in perfect order is 0.95 and
    0.991; true rhos down to 0.92 and 0.988 show a perfect order more than once in 40 times.
    """
    if n < 4 or not math.isfinite(rho):
        return math.nan, math.nan
    inner = _inside(rho, n)
    z, se = math.atanh(inner), math.sqrt((1 + inner**2 / 2) / (n - 3))
    reach = float(stats.norm.ppf(0.5 + confidence / 2)) * se
    return math.tanh(z - reach), (1.0 if rho == 1 else math.tanh(z + reach))


def _inside(rho: float, n: int) -> float:
    """Rho, or where it is 1 or -1 half a step inside: exchanging two neighbours costs 6 / (n (n^2 - 1))."""
    limit = 1 - 3 / (n * (n**2 - 1))
    return float(np.clip(rho, -limit, limit))


def williams(r_ay: float, r_by: float, r_ab: float, n: int) -> tuple[float, float]:
    """Williams' t for two correlations with the same y, and its two-sided p (n - 3 degrees of freedom).

    Made for Pearson's correlations, taken for ranks as an approximation. NaN where it is undefined.
    """
    if n < 4 or not all(map(math.isfinite, (r_ay, r_by, r_ab))):
        return math.nan, math.nan
    det = 1 - r_ay**2 - r_by**2 - r_ab**2 + 2 * r_ay * r_by * r_ab
    mean = (r_ay + r_by) / 2
    below = 2 * det * (n - 1) / (n - 3) + mean**2 * (1 - r_ab) ** 3
    if below <= 0 or r_ab >= 1:
        return math.nan, math.nan
    t = (r_ay - r_by) * math.sqrt((n - 1) * (1 + r_ab) / below)
    return t, float(2 * stats.t.sf(abs(t), n - 3))


def zou(r_ay: float, r_by: float, r_ab: float, n: int, confidence: float) -> tuple[float, float]:
    """Zou's interval of `r_ay - r_by`, two correlations with the same y, from Fisher's interval of each.

    The intervals take the plain variance 1 / (n - 3), as cocor does. NaN where it is undefined.
    """
    if n < 4 or not all(map(math.isfinite, (r_ay, r_by, r_ab))) or max(abs(r_ay), abs(r_by)) >= 1:
        return math.nan, math.nan
    reach = float(stats.norm.ppf(0.5 + confidence / 2)) / math.sqrt(n - 3)
    (low_a, high_a), (low_b, high_b) = (
        (math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach)) for r in (r_ay, r_by)
    )
    # Correlation of the two correlations (Olkin and Siotani).
    c = (r_ab - r_ay * r_by / 2) * (1 - r_ay**2 - r_by**2 - r_ab**2) + r_ab**3
    c /= (1 - r_ay**2) * (1 - r_by**2)
    difference = r_ay - r_by

    def side(of_a: float, of_b: float) -> float:
        return math.sqrt(max(0.0, of_a**2 + of_b**2 - 2 * c * of_a * of_b))

    low = difference - side(r_ay - low_a, high_b - r_by)
    return low, difference + side(high_a - r_ay, r_by - low_b)


def smallest_detectable_rho(n: int, confidence: float = 0.95, power: float = 0.8) -> float:
    """The true rho that a two-sided test of one task with n candidates finds with this power; NaN for n < 4.

    Solves `atanh(rho) sqrt(n - 3) = z_alpha + z_power sqrt(1 + rho^2 / 2)`: the variance without correlation
    for the test's bound, Bonett and Wright's for the power. Simulated with 6 to 100 candidates: power 0.79
    to 0.81.
    """
    if n < 4:
        return math.nan
    z_alpha, z_power = float(stats.norm.ppf(0.5 + confidence / 2)), float(stats.norm.ppf(power))
    rho = 0.0
    for _ in range(200):  # a contraction: the right side grows slowly with rho
        rho = math.tanh((z_alpha + z_power * math.sqrt(1 + rho**2 / 2)) / math.sqrt(n - 3))
    return rho
