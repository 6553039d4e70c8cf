"""Curves of a number along a run: power law, straight line in log t, sigmoid in log t, monotone spline.

Every curve is a function of u = t / t_end, where t_end is the end of the window. Results are then the same
for steps, tokens and FLOPs, and parameters have the scale that the starting values assume.

All of them are linear in two of their parameters. For fixed shape (the exponent; the steepness and the
middle) these two have a closed form, also within bounds, so the search runs over the shape alone: bounded
non-linear least squares from the best local minima of a grid (variable projection, Golub and Pereyra 1973).
No start is random: a fit is deterministic.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression, least_squares
from scipy.special import expit

Array = NDArray[np.float64]
Bounds = tuple[float, float]

FREE: Bounds = (-np.inf, np.inf)
UNIT: Bounds = (0.0, 1.0)  # accuracies

EXPONENTS: Bounds = (0.01, 3.0)  # of power laws; 0.01 is a straight line in log t to within 2 % over 18x
_EXPONENT_GRID = np.geomspace(*EXPONENTS, 33)
_STEEPNESS_GRID = np.geomspace(0.1, 12.0, 13)  # of sigmoids, per standard deviation of x
_MIDDLE_GRID = np.linspace(-3.0, 6.0, 28)  # in standard deviations
_STARTS = 2
_MOST_STEPS = 25  # of a descent; further steps change no digit that matters


class FitError(Exception):
    """A curve cannot be fitted; the message becomes the reason of a null."""


@dataclass(frozen=True)
class Curve:
    """A fitted curve."""

    form: str
    parameters: dict[str, float]
    at: Callable[[Array], Array]  # [n] of u -> [n]
    rmse: float  # over the points that it was fitted to


def fit_power(u: Array, y: Array, limit: Bounds = FREE) -> Curve:
    """`a - b u^-c` with c in 0.01..3 and the limit `a` within bounds.

    Args:
        u: [n] t / t_end, above 0.
        y: [n].
        limit: bounds of `a`; an accuracy cannot end above 1.

    Raises:
        FitError: fewer than three different u, or numbers that are not finite.
    """
    _check(u, y, 3)
    powers = u[:, None] ** -_EXPONENT_GRID  # [n, grid]
    a, b = best_line(-powers, y, limit)
    costs = ((y[:, None] - a + b * powers) ** 2).sum(axis=0)
    log_u = np.log(u)

    def residuals(c: Array) -> Array:
        basis = -np.exp(-c[0] * log_u)[:, None]
        best_a, best_b = best_line(basis, y, limit)
        error: Array = best_a[0] + best_b[0] * basis[:, 0] - y
        return error

    (c,) = _descend(residuals, [_EXPONENT_GRID[[i]] for i in _valleys(costs)], ([0.01], [3.0]))
    basis = -np.exp(-c * log_u)[:, None]
    (a,), (b,) = best_line(basis, y, limit)
    return _curve("power", {"a": a, "b": b, "c": c}, lambda v: a - b * v**-c, u, y)


def fit_log_linear(u: Array, y: Array) -> Curve:
    """`a + b ln u`: a straight line in log t, the limit of power laws with c -> 0.

    Raises:
        FitError: fewer than two different u, or numbers that are not finite.
    """
    _check(u, y, 2)
    (a,), (b,) = best_line(np.log(u)[:, None], y, FREE)
    return _curve("log_linear", {"a": a, "b": b}, lambda v: a + b * np.log(v), u, y)


def fit_sigmoid(x: Array, y: Array, floor: Bounds = UNIT, ceiling: Bounds = UNIT) -> Curve:
    """`low + (high - low) / (1 + exp(-k (x - m)))`; rising or falling, as the points do.

    Args:
        x: [n] ln u, or a proxy.
        floor: bounds of `low`, the chance level; equal ones fix it.
        ceiling: bounds of `high`.

    Raises:
        FitError: fewer than four different x, or numbers that are not finite.
    """
    _check(x, y, 4)
    centre, spread = x.mean(), x.std()
    sign = 1.0 if np.polyfit(x - centre, y, 1)[0] >= 0 else -1.0
    z = sign * (x - centre) / spread
    k_grid, m_grid = (g.ravel() for g in np.meshgrid(_STEEPNESS_GRID, _MIDDLE_GRID, indexing="ij"))
    share = expit(k_grid * (z[:, None] - m_grid))  # [n, grid]
    low, high = best_ends(share, y, floor, ceiling)
    costs = ((low + (high - low) * share - y[:, None]) ** 2).sum(axis=0)

    def residuals(shape: Array) -> Array:
        part = expit(np.exp(shape[0]) * (z - shape[1]))[:, None]
        best_low, best_high = best_ends(part, y, floor, ceiling)
        error: Array = (best_low + (best_high - best_low) * part)[:, 0] - y
        return error

    starts = [np.array([np.log(k_grid[i]), m_grid[i]]) for i in _valleys(costs, len(_MIDDLE_GRID))]
    bounds = ([np.log(0.05), -8.0], [np.log(30.0), 10.0])
    log_k, m = _descend(residuals, starts, bounds)
    k = float(np.exp(log_k))
    (low,), (high,) = best_ends(expit(k * (z - m))[:, None], y, floor, ceiling)
    parameters = {"low": low, "high": high, "k": sign * k / spread, "m": centre + sign * m * spread}
    return _curve(
        "sigmoid",
        parameters,
        lambda v: low + (high - low) * expit(k * (sign * (v - centre) / spread - m)),
        x,
        y,
    )


def fit_monotone_spline(u: Array, y: Array) -> Curve:
    """A monotone cubic through the best monotone points, constant beyond the last: a reference, no forecast.

    Raises:
        FitError: fewer than two different u, or numbers that are not finite.
    """
    _check(u, y, 2)
    x, order = np.log(u), np.argsort(u, kind="stable")
    rising = np.polyfit(x, y, 1)[0] >= 0
    level = isotonic_regression(y[order], increasing=bool(rising)).x
    inside = PchipInterpolator(x[order], level)
    first, last = x[order[0]], x[order[-1]]
    return _curve("monotone_spline", {}, lambda v: inside(np.clip(np.log(v), first, last)), u, y)


def _curve(
    form: str, parameters: dict[str, float], at: Callable[[Array], Array], x: Array, y: Array
) -> Curve:
    rmse = float(np.sqrt(np.mean((at(x) - y) ** 2)))
    return Curve(form, {name: float(value) for name, value in parameters.items()}, at, rmse)


def _check(x: Array, y: Array, least: int) -> None:
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise FitError("numbers that are not finite")
    if len(np.unique(x)) < least:
        raise FitError(f"{len(np.unique(x))} different points, this form needs {least}")


def best_line(basis: Array, y: Array, limit: Bounds) -> tuple[Array, Array]:
    """`a` within bounds and `b` that minimise |a + b basis - y| for every column of [n, g]: [g], [g]."""
    mean, level = basis.mean(axis=0), y.mean()
    centred = basis - mean
    squares = (centred**2).sum(axis=0)
    b = np.where(
        squares > 0, (centred * (y - level)[:, None]).sum(axis=0) / np.where(squares > 0, squares, 1), 0
    )
    a = level - b * mean
    held = np.clip(a, *limit)
    through = (basis * (y[:, None] - held)).sum(axis=0) / (basis**2).sum(axis=0)
    return held, np.where(held == a, b, through)


def best_ends(share: Array, y: Array, floor: Bounds, ceiling: Bounds) -> tuple[Array, Array]:
    """Ends within bounds that minimise |low (1 - share) + high share - y| for every column: [g], [g]."""
    p, q, v = 1 - share, share, y[:, None]
    pp, qq, pq = (p * p).sum(axis=0), (q * q).sum(axis=0), (p * q).sum(axis=0)
    py, qy = (p * v).sum(axis=0), (q * v).sum(axis=0)
    tiny = 1e-12
    det = pp * qq - pq**2
    safe = np.where(det > tiny, det, 1.0)
    low, high = (qq * py - pq * qy) / safe, (pp * qy - pq * py) / safe
    inside = (
        (det > tiny) & (low >= floor[0]) & (low <= floor[1]) & (high >= ceiling[0]) & (high <= ceiling[1])
    )
    # Else the minimum is on an edge: one end at a bound, the other free within its own.
    best = np.where(inside, -np.inf, np.inf)
    edges = []
    for end in dict.fromkeys(floor):
        edges.append((np.full_like(low, end), np.clip((qy - end * pq) / np.maximum(qq, tiny), *ceiling)))
    for end in dict.fromkeys(ceiling):
        edges.append((np.clip((py - end * pq) / np.maximum(pp, tiny), *floor), np.full_like(low, end)))
    for new_low, new_high in edges:
        cost = ((new_low + (new_high - new_low) * share - v) ** 2).sum(axis=0)
        take = cost < best
        low, high = np.where(take, new_low, low), np.where(take, new_high, high)
        best = np.where(take, cost, best)
    return low, high


def _valleys(costs: Array, width: int | None = None) -> list[int]:
    """Indices of the lowest local minima of a grid; `width` of its last axis where it has two."""
    grid = costs.reshape(-1, width) if width else costs[None]
    padded = np.pad(grid, 1, constant_values=np.inf)
    lowest = np.ones(grid.shape, bool)
    rows, columns = grid.shape
    for down, right in ((0, 1), (1, 0), (1, 2), (2, 1)):
        lowest &= grid <= padded[down : down + rows, right : right + columns]
    places = np.flatnonzero(lowest.ravel())
    return [int(i) for i in places[np.argsort(costs[places], kind="stable")][:_STARTS]]


def _descend(
    residuals: Callable[[Array], Array], starts: list[Array], bounds: tuple[list[float], list[float]]
) -> list[float]:
    """The best solution of bounded least squares from several starts."""
    found = [
        least_squares(residuals, start, bounds=bounds, xtol=1e-9, ftol=1e-9, max_nfev=_MOST_STEPS)
        for start in starts
    ]
    return [float(value) for value in min(found, key=lambda end: end.cost).x]
