"""Cells: one number per feature, and perhaps a measured score, for each candidate on each task.

Arrays follow the sorted names of tasks (T), candidates (C) and features (F), so that nothing depends on the
order of a file's rows. Missing numbers are NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Equal on paper may differ in the last bits, and ranks would make a difference of that. In units of a task's
# standard deviation.
DECIMALS = 10


@dataclass(frozen=True)
class CellTable:
    """Raw features and scores as imported; a cell that the file does not have is NaN throughout."""

    candidates: tuple[str, ...]
    families: tuple[str, ...]  # of each candidate
    tasks: tuple[str, ...]
    features: tuple[str, ...]
    values: Array  # [T, C, F]
    scores: Array  # [T, C], higher is better
    covariates: tuple[str, ...] = ()
    covariate_values: Array | None = None  # [T, C, number of covariates]


@dataclass(frozen=True)
class Design:
    """What scorers see of a table: z-scores without a gap, and where there are any."""

    candidates: tuple[str, ...]
    families: tuple[str, ...]
    tasks: tuple[str, ...]
    features: tuple[str, ...]
    z: Array  # [T, C, F]; 0 where `usable` is false
    usable: Bools  # [T, C]

    def select(self, features: Sequence[str]) -> "Design":
        """The design with these features alone, in this order."""
        places = [self.features.index(name) for name in features]
        return replace(self, features=tuple(features), z=self.z[:, :, places])


def standardised(values: Array) -> tuple[Array, Bools]:
    """Z-scores of each feature within each task over the candidates that have it; no score is used.

    Args:
        values: [T, C, F], NaN where missing.

    Returns:
        z [T, C, F], rounded to 10 decimals, NaN where missing. A feature that is the same for all candidates
        of a task tells none of them apart: its z is 0 there.
        constant [T, F]: where that is so (also where a task has a single candidate).
    """
    present = np.isfinite(values)
    n = np.maximum(present.sum(axis=1), 1)[:, None]
    filled = np.where(present, values, 0.0)
    # Scaled first: the squares of numbers beyond 1e154 would overflow.
    largest = np.maximum(np.abs(filled).max(axis=1, keepdims=True), np.finfo(float).tiny)
    filled = filled / largest
    centred = np.where(present, filled - filled.sum(axis=1, keepdims=True) / n, 0.0)
    spread = np.sqrt((centred**2).sum(axis=1, keepdims=True) / n)
    lowest = np.where(present, values, np.inf).min(axis=1)
    constant = np.where(present, values, -np.inf).max(axis=1) <= lowest
    z = np.round(centred / np.where(constant[:, None] | (spread == 0), 1.0, spread), DECIMALS)
    z = np.where(constant[:, None], 0.0, z)
    return np.where(present, z, np.nan), constant


def design_of(table: CellTable) -> tuple[Design, list[str]]:
    """Z-scores without gaps, and in words what had to be left out for that.

    Nothing is filled in. As long as numbers are missing, the feature or the cell with the greatest share of
    missing ones is left out (of equals the cell, then the first). A cell is left out with all its features.
    """
    have = np.isfinite(table.values)
    there = np.asarray(have.any(axis=2))
    keep_cell, keep_feature = there.copy(), np.ones(len(table.features), bool)
    while True:
        gaps = ~have & keep_cell[:, :, None] & keep_feature
        if not gaps.any():
            break
        by_cell = gaps.sum(axis=2) / max(keep_feature.sum(), 1)
        by_feature = gaps.sum(axis=(0, 1)) / max(keep_cell.sum(), 1)
        if by_cell.max() >= by_feature.max():
            keep_cell[np.unravel_index(by_cell.argmax(), by_cell.shape)] = False
        else:
            keep_feature[by_feature.argmax()] = False
    names = tuple(name for name, keep in zip(table.features, keep_feature, strict=True) if keep)
    values = np.where(keep_cell[:, :, None], table.values, np.nan)[:, :, keep_feature]
    z, constant = standardised(values)
    words = _left_out(table, there & ~keep_cell, ~keep_feature) + _constant(table, names, constant, keep_cell)
    design = Design(
        table.candidates, table.families, table.tasks, names, np.where(keep_cell[:, :, None], z, 0), keep_cell
    )
    return design, words


def _left_out(table: CellTable, cells: Bools, features: Bools) -> list[str]:
    words = []
    if cells.any():
        named = [f"{table.candidates[c]} on {table.tasks[t]}" for t, c in np.argwhere(cells)]
        words.append(f"left out for missing features: {cells.sum()} cells: {shortened(named)}")
    if features.any():
        named = [name for name, out in zip(table.features, features, strict=True) if out]
        words.append(f"left out for missing values: {features.sum()} features: {shortened(named)}")
    return words


def _constant(table: CellTable, names: Sequence[str], constant: Bools, cells: Bools) -> list[str]:
    """Features that are the same for all candidates somewhere; tasks of one candidate are no news."""
    constant = constant & (cells.sum(axis=1) > 1)[:, None]
    named = []
    for k in np.flatnonzero(constant.any(axis=0)):
        where = [table.tasks[t] for t in np.flatnonzero(constant[:, k])]
        named.append(f"{names[k]} (on {shortened(where)})")
    return (
        [f"the same for all candidates, so of no weight there (z = 0): {shortened(named)}"] if named else []
    )


def shortened(names: Sequence[str], shown: int = 5) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
