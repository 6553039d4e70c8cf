"""Tables that other programs wrote: `candidate, family, task, score`, then one column for each feature."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forecast.analysis.ranking.feature_table import CellTable
from forecast.config.sources import DataSource
from forecast.errors import InputError, did_you_mean
from forecast.inputs.files import Problems, Row, read_rows

KEYS = ("candidate", "task", "score")
FAMILY = "family"
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


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
    rows = _rows(path)
    columns = list(rows[0].data)
    _check_columns(path, columns, KEYS if scored else KEYS[:2])
    chosen = _chosen(path, columns, features, covariates)
    problems = Problems()
    numbers = ["score", *chosen, *covariates]
    read: dict[tuple[str, str], list[float]] = {}
    places: dict[tuple[str, str], str] = {}
    families: dict[str, tuple[str | None, str]] = {}
    for row in rows:
        keys = [_name(row, column, problems) for column in ("candidate", "task")]
        values = [_number(row, column, problems) for column in numbers]
        candidate, task = keys
        if candidate is None or task is None:
            continue
        if (first := places.setdefault((candidate, task), row.where)) != row.where:
            problems.add(
                row.where,
                f"{candidate!r} has a second row for task {task!r}, the first is at {first}; remove one",
            )
        if FAMILY in columns:
            family = _name(row, FAMILY, problems)
            known, where = families.setdefault(candidate, (family, row.where))
            if family != known and family is not None and known is not None:
                problems.add(
                    row.where, f"{candidate!r} is of family {family!r} here and of {known!r} at {where}"
                )
        read[candidate, task] = values
    problems.raise_if_any()
    candidates = tuple(sorted({candidate for candidate, _ in read}))
    tasks = tuple(sorted({task for _, task in read}))
    cube = np.full((len(tasks), len(candidates), len(numbers)), np.nan)
    for (candidate, task), values in read.items():
        cube[tasks.index(task), candidates.index(candidate)] = values
    warnings = []
    if FAMILY not in columns:
        warnings.append("no column family: every candidate is taken as a family of its own")
    unscored = int(np.isnan(cube[:, :, 0]).sum()) - (cube.shape[0] * cube.shape[1] - len(read))
    if absent := cube.shape[0] * cube.shape[1] - len(read):
        warnings.append(f"{absent} of {cube.shape[0] * cube.shape[1]} cells (candidate on task) have no row")
    if unscored:
        warnings.append(f"{unscored} of {len(read)} rows have no score")
    split = 1 + len(chosen)
    table = CellTable(
        candidates,
        tuple(str(families[name][0]) if FAMILY in columns else name for name in candidates),
        tasks,
        tuple(chosen),
        cube[:, :, 1:split],
        cube[:, :, 0],
        tuple(covariates),
        cube[:, :, split:] if covariates else None,
    )
    return Imported(table, tuple(warnings), frozenset(read))


def _rows(path: str) -> list[Row]:
    try:
        return read_rows(DataSource(path=path))
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, UnicodeDecodeError):
            line = 1 + cause.object.count(b"\n", 0, cause.start)
            raise InputError(
                f"{path}:{line}: byte 0x{cause.object[cause.start]:02x} is not UTF-8; save the file as UTF-8"
            ) from None
        raise


def _check_columns(path: str, columns: list[str], keys: Sequence[str]) -> None:
    missing = [name for name in keys if name not in columns]
    if not missing:
        return
    header = f"{path}:1"
    for separator, word in _SEPARATORS.items():
        if any(separator in column for column in columns):
            raise InputError(
                f"{header}: no column {missing[0]!r}; the columns seem to be separated by {word}, "
                "expected commas"
            )
    hint = did_you_mean(missing[0], columns)
    raise InputError(f"{header}: no column {missing[0]!r} (needed: {', '.join(keys)}); {hint}")


def _chosen(
    path: str, columns: list[str], features: Sequence[str] | None, covariates: Sequence[str]
) -> list[str]:
    taken = (*KEYS, FAMILY)
    others = [name for name in columns if name not in taken]
    for name in [*(features or ()), *covariates]:
        if name not in others:
            problem = "is no feature" if name in taken else "is not there"
            raise InputError(f"{path}:1: column {name!r} {problem}; {did_you_mean(name, others)}")
    names = [name for name in others if name not in covariates] if features is None else list(features)
    if both := [name for name in names if name in covariates]:
        raise InputError(f"column {both[0]!r} is named as a feature and as a baseline; choose one")
    if "" in names:
        raise InputError(f"{path}:1: column {columns.index('') + 1} has no name; name or remove it")
    if not names:
        raise InputError(f"{path}:1: no feature columns beside {', '.join(taken)}")
    return sorted(dict.fromkeys(names))


def _name(row: Row, column: str, problems: Problems) -> str | None:
    value = row.data.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip():
        problems.add(row.where, f"column {column!r} is empty; every row needs one")
        return None
    return str(value).strip()


def _number(row: Row, column: str, problems: Problems) -> float:
    """A finite number, NaN where it is missing."""
    value: Any = row.data.get(column)
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return math.nan
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number) and not (isinstance(value, float) and math.isnan(value)):
        problems.add(
            row.where, f"column {column!r}: {value!r} is not a number; leave it empty if it is missing"
        )
    if math.isinf(number):
        problems.add(
            row.where, f"column {column!r}: {value!r} is infinite; give a finite number, or leave it empty"
        )
    return number


_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
