"""Columns that are averages of other columns, told by their values.

A table of benchmarks often has one ("Average"). Whoever forecasts a benchmark from the others has the answer
in it. A column counts as an average where it is, within rounding, the mean of the others, of some that stand
side by side, or of any, plain or weighted; and where that is no coincidence: the fewer rows there are and the
coarser the numbers, the more closely they must agree.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from forecast.errors import listed

Array = NDArray[np.float64]

_NAMED = re.compile(
    r"(?<![a-z])(averages?|avg|means?|overall|macro|aggregated?|total)(?![a-z])", re.IGNORECASE
)
_FEWEST = 4  # rows
# Residuals of one benchmark against others, as a share of its spread, are rarely below this.
_SPREAD, _SPREAD_NAMED = 0.3, 1.0
_CHANCE, _CHANCE_NAMED = 1e-6, 1e-3  # that an agreement is coincidence
_DIGITS = 10  # of a number as it was meant; behind them stands what floating point makes of it


def averages(columns: Mapping[str, Sequence[float] | Array]) -> dict[str, list[str]]:
    """Columns that are averages, each with those that it is an average of.

    Args:
        columns: numbers row by row, NaN where one is missing.
    """
    numbers = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
    units = {name: _unit(values) for name, values in numbers.items()}
    named = [name for name in numbers if _NAMED.search(name)]
    found: dict[str, list[str]] = {}
    for name in [*named, *(name for name in numbers if name not in named)]:
        others = [other for other in numbers if other != name and other not in found and other not in named]
        rows = np.isfinite(numbers[name])
        if len(others) < 2 or rows.sum() < _FEWEST or not (spread := float(numbers[name][rows].std())):
            continue
        table = np.stack([numbers[other][rows] for other in others], axis=1)  # [rows, columns]
        # How far a mean of each may be off by the rounding of itself and of its parts.
        bounds = 0.505 * (units[name] + np.array([units[other] for other in others])) + 1e-9 * spread
        share = (_SPREAD_NAMED if name in named else _SPREAD) * spread
        chance = _CHANCE_NAMED if name in named else _CHANCE
        column = numbers[name][rows]
        if parts := _run(column, table, bounds, share, chance) or _weighted(
            column, table, bounds, share, chance
        ):
            found[name] = [others[i] for i in parts]
    return found


def _run(column: Array, table: Array, bounds: Array, share: float, chance: float) -> list[int]:
    """Places of the longest run of columns, perhaps all, that this is the mean of."""
    few = slice(None, None, max(1, len(table) // 8))  # rows that are looked at first
    known = np.isfinite(table)
    zeros = np.zeros((len(table), 1))
    sums = np.hstack([zeros, np.cumsum(np.where(known, table, 0.0), axis=1)])
    counts = np.hstack([zeros, np.cumsum(known, axis=1)])
    k = table.shape[1]
    for length in range(k, 1, -1):
        bound = sliding_window_view(bounds, length).max(axis=1)
        if not _agree(column[few], sums[few], counts[few], bound, length)[0].any():
            continue
        agree, n_rows = _agree(column, sums, counts, bound, length)
        likely = (1 if length == k else k * k / 2) * np.minimum(1.0, 2 * bound / share) ** n_rows
        for begin in np.flatnonzero((n_rows >= _FEWEST) & agree & (likely < chance)):
            return list(range(begin, begin + length))
    return []


def _agree(
    column: Array, sums: Array, counts: Array, bound: Array, length: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """For each run of this length, whether its mean is the column, and the rows in which it is all known."""
    whole = counts[:, length:] - counts[:, :-length] == length  # [rows, runs]
    off = np.abs(column[:, None] - (sums[:, length:] - sums[:, :-length]) / length)
    return np.where(whole, off, 0.0).max(axis=0) <= bound, whole.sum(axis=0)


def _weighted(column: Array, table: Array, bounds: Array, share: float, chance: float) -> list[int]:
    """Places of the columns that this is a weighted mean of, by least squares; the weights' sum is 1."""
    whole = np.isfinite(table).all(axis=1)
    free = int(whole.sum()) - table.shape[1]  # rows beyond what weights could be fitted to
    if free < _FEWEST:
        return []
    known, values = table[whole], column[whole]
    weights = np.linalg.lstsq(known, values, rcond=None)[0]
    bound = float(bounds.max())
    fits = np.abs(known @ weights - values).max() <= 1.5 * bound
    convex = weights.min() > -0.02 and abs(weights.sum() - 1) < 0.02
    parts = np.flatnonzero(weights > 0.02 / len(weights))
    if fits and convex and len(parts) > 1 and min(1.0, 2 * bound / share) ** free < chance:
        return [int(i) for i in parts]
    return []


def _unit(values: Array) -> float:
    """The last decimal place that a column is written with: 0.01 where numbers have up to two."""
    known = values[np.isfinite(values)]
    texts = [np.format_float_positional(float(f"{value:.{_DIGITS}g}"), trim="-") for value in known]
    return float(10.0 ** -max((len(text.partition(".")[2]) for text in texts), default=0))


def left_out(what: str, columns: Mapping[str, Sequence[float] | Array]) -> tuple[list[str], list[str]]:
    """Names of the columns that are no averages, and notes on those that are.

    Args:
        what: what a column is, for the notes: `column`, `task`.
    """
    found = averages(columns)
    notes = [f"{what} {name!r} is an average of {listed(parts)}: left out" for name, parts in found.items()]
    return [name for name in columns if name not in found], notes
