"""Tables that other programs wrote: `candidate, family, task, score`, then one column for each feature."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecast.analysis.ranking.feature_table import CellTable
from forecast.errors import InputError, did_you_mean
from forecast.inputs.average_columns import left_out
from forecast.inputs.files import Problems
from forecast.inputs.long_table import is_repeat, name_at, number_at, read_long_table
from forecast.inputs.read_limits import MOST_VALUES
from forecast.inputs.table_columns import measurements

KEYS = ("candidate", "task", "score")
FAMILY = "family"


@dataclass(frozen=True)
class Imported:
    """A table, and what its reader should know about it."""

    table: CellTable
    warnings: tuple[str, ...]
    cells: frozenset[tuple[str, str]] = frozenset()  # (candidate, task) of the file's rows


def read_table(
    path: str, features: Sequence[str] | None = None, covariates: Sequence[str] = (), scored: bool = True
) -> Imported:
    """Read a table (CSV, JSON lines, Parquet, Arrow; also `.gz` and `s3://`).

    Args:
        features: columns to use; None: all that are neither keys nor covariates.
        covariates: columns that are no features, e.g. parameters: baselines, and what partial correlations
            are taken given.
        scored: False: the column `score` may be absent.

    A cell that is empty, NaN, `NA`, `null` or `None` is missing: a candidate may lack a score or a feature.
    Without a column `family` every candidate is its own family.

    Raises:
        InputError: a column that is not there, text where a number belongs, an infinite number, a candidate
            with two rows for a task or with two families; names the line.
    """
    needed = KEYS if scored else KEYS[:2]
    optional = (*KEYS[len(needed) :], FAMILY, *(features or ()), *covariates)
    rows = read_long_table(path, needed, optional, others=features is None)
    columns = rows[0].columns
    notes: list[str] = []
    others = [name for name in columns if name not in (*KEYS, FAMILY)]
    if features is None:
        cells = {name: [row.data.get(name) for row in rows] for name in rows[0].data}
        others, notes = measurements(f"{path}:1", cells, (*KEYS, FAMILY, *covariates))
        others += [name for name in covariates if name in cells]
        notes = [f"{note} (to take it nevertheless, list the features with --features)" for note in notes]
    chosen = _chosen(path, others, features, covariates)
    problems = Problems()
    numbers = ["score", *chosen, *covariates]
    read: dict[tuple[str, str], list[float | None]] = {}
    places: dict[tuple[object, ...], str] = {}
    families: dict[str, tuple[str | None, str]] = {}
    for row in rows:
        candidate, task = (name_at(row, column, problems) for column in ("candidate", "task"))
        values = [number_at(row, column, problems) for column in numbers]
        if candidate is None or task is None:
            continue
        is_repeat((candidate, task), row.where, places, problems)
        if FAMILY in columns:
            family = name_at(row, FAMILY, problems)
            known, where = families.setdefault(candidate, (family, row.where))
            if family != known and family is not None and known is not None:
                problems.add(
                    row.where, f"{candidate!r} is of family {family!r} here and of {known!r} at {where}"
                )
        read[candidate, task] = values
    problems.raise_if_any()
    candidates = tuple(sorted({candidate for candidate, _ in read}))
    tasks = tuple(sorted({task for _, task in read}))
    if (size := len(tasks) * len(candidates) * len(numbers)) > MOST_VALUES:
        shape = f"{len(candidates):,} candidates x {len(tasks):,} tasks x {len(numbers):,} columns"
        raise InputError(f"{path}: {shape} are {size:,} numbers, expected at most {MOST_VALUES:,}")
    places_of = [{name: i for i, name in enumerate(names)} for names in (tasks, candidates)]
    cube = np.full((len(tasks), len(candidates), len(numbers)), np.nan)
    for (candidate, task), values in read.items():
        cube[places_of[0][task], places_of[1][candidate]] = values  # None becomes NaN
    warnings = notes
    if FAMILY not in columns:
        warnings.append("no column family: every candidate is taken as a family of its own")
    unscored = int(np.isnan(cube[:, :, 0]).sum()) - (cube.shape[0] * cube.shape[1] - len(read))
    if absent := cube.shape[0] * cube.shape[1] - len(read):
        warnings.append(f"{absent} of {cube.shape[0] * cube.shape[1]} cells (candidate on task) have no row")
    if unscored:
        warnings.append(f"{unscored} of {len(read)} rows have no score")
    kept, of_averages = left_out("task", dict(zip(tasks, cube[:, :, 0], strict=True)))
    warnings += of_averages
    cube = cube[[tasks.index(task) for task in kept]]
    split = 1 + len(chosen)
    table = CellTable(
        candidates,
        tuple(str(families[name][0]) if FAMILY in columns else name for name in candidates),
        tuple(kept),
        tuple(chosen),
        cube[:, :, 1:split],
        cube[:, :, 0],
        tuple(covariates),
        cube[:, :, split:] if covariates else None,
    )
    return Imported(table, tuple(warnings), frozenset(key for key in read if key[1] in kept))


def _chosen(
    path: str, others: list[str], features: Sequence[str] | None, covariates: Sequence[str]
) -> list[str]:
    taken = (*KEYS, FAMILY)
    for name in [*(features or ()), *covariates]:
        if name not in others:
            problem = "is no feature" if name in taken else "is not there"
            raise InputError(f"{path}:1: column {name!r} {problem}; {did_you_mean(name, others)}")
    names = [name for name in others if name not in covariates] if features is None else list(features)
    if both := [name for name in names if name in covariates]:
        raise InputError(f"column {both[0]!r} is named as a feature and as a baseline; choose one")
    if not names:
        raise InputError(f"{path}:1: no feature columns beside {', '.join(taken)}")
    return sorted(dict.fromkeys(names))
