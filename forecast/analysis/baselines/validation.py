"""What the baselines share: predictions that say why one is missing, and checks of score tables.

In arrays a missing number is NaN, as everywhere in this package; it becomes a null where records are written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """Predicted scores of M models."""

    values: Array  # [M], NaN where there is none
    reasons: tuple[str | None, ...]  # [M], why there is none; None where there is one


def name_of(names: Sequence[str] | None, index: int, kind: str) -> str:
    """How a message names a row or column: its name, or its 1-based place where there are no names."""
    return f"{kind} {index + 1}" if names is None else repr(names[index])


def score_table(
    scores: Array, models: Sequence[str] | None = None, benchmarks: Sequence[str] | None = None
) -> Array:
    """A table of scores [M, B] as floats, NaN for missing ones, checked.

    Raises:
        InputError: not a table, names that do not fit it, or a score outside 0..1; names the first such cell.
    """
    table = np.asarray(scores, float)
    if table.ndim != 2:
        raise InputError(f"expected a table of scores [models, benchmarks], got the shape {table.shape}")
    for names, kind, size in ((models, "models", table.shape[0]), (benchmarks, "benchmarks", table.shape[1])):
        if names is not None and len(names) != size:
            raise InputError(f"{len(names)} names for a table of {size} {kind}; expected one name for each")
    wrong = np.argwhere(~np.isnan(table) & ~((table >= 0) & (table <= 1)))
    if len(wrong):
        i, j = map(int, wrong[0])
        raise InputError(
            f"{name_of(models, i, 'model')}, {name_of(benchmarks, j, 'benchmark')}: "
            f"{outside(float(table[i, j]), len(wrong))}"
        )
    return table


def target_scores(target: Array, n_models: int, models: Sequence[str] | None = None) -> Array:
    """Scores of the benchmark to be predicted [M], NaN for missing ones, checked.

    Raises:
        InputError: not one for each of `n_models`, or a score outside 0..1.
    """
    found = np.asarray(target, float)
    if found.shape != (n_models,):
        raise InputError(f"expected the target's scores of {n_models} models, got the shape {found.shape}")
    wrong = np.flatnonzero(~np.isnan(found) & ~((found >= 0) & (found <= 1)))
    if len(wrong):
        i = int(wrong[0])
        raise InputError(f"{name_of(models, i, 'model')}, target: {outside(float(found[i]), len(wrong))}")
    return found


def outside(value: float, count: int) -> str:
    """The end of a message about scores that are no fractions."""
    others = f" (and {count - 1} more)" if count > 1 else ""
    return f"score {value:g} is outside 0..1{others}; give fractions: divide percentages by 100"


def without_spread(table: Array, benchmarks: Sequence[str] | None = None) -> dict[int, str]:
    """Columns that tell models not apart, and why, by index: no score at all, or the same one everywhere."""
    found = {}
    for j, column in enumerate(table.T):
        known = column[~np.isnan(column)]
        name = name_of(benchmarks, j, "benchmark")
        if not len(known):
            found[j] = f"{name}: no model has a score"
        elif known.min() == known.max():
            found[j] = f"{name}: all {len(known)} known scores are {known[0]:g}"
    return found
