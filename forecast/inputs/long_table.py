"""Long tables that other programs wrote: one number a row, under names; every defect is noted with its place.

A cell that is empty, NaN, `NA`, `null` or `None` is missing.
"""

import math
from collections.abc import Sequence

from forecast.config.sources import DataSource
from forecast.errors import InputError, did_you_mean
from forecast.inputs.files import Problems, SourceRow, read_rows
from forecast.inputs.literals import number_of, text_of

_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_long_table(
    path: str, needed: Sequence[str], optional: Sequence[str] = (), others: bool = False
) -> list[SourceRow]:
    """The rows of a table (CSV, JSON lines, Parquet, Arrow; also `.gz` and `s3://`); cells are not checked.

    Args:
        needed: columns that must be there.
        optional: further columns.
        others: all other columns are read, too.

    Raises:
        InputError: as `read_rows`; a column is missing; the file is not UTF-8.
    """
    try:
        rows = read_rows(DataSource.at(path), None if others else (*needed, *optional))
    except InputError as error:
        if not isinstance(cause := error.__cause__, UnicodeDecodeError):
            raise
        line = 1 + cause.object.count(b"\n", 0, cause.start)
        byte = cause.object[cause.start]
        raise InputError(f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None
    columns = rows[0].columns
    missing = [name for name in needed if name not in columns]
    if not missing:
        return rows
    for separator, word in _SEPARATORS.items():
        if any(separator in column for column in columns):
            hint = f"the columns seem to be separated by {word}, expected commas"
            raise InputError(f"{path}:1: no column {missing[0]!r}; {hint}")
    may = f"; optional: {', '.join(optional)}" if optional else ""
    raise InputError(
        f"{path}:1: no column {', '.join(map(repr, missing))} (needed: {', '.join(needed)}{may}); "
        f"{did_you_mean(missing[0], columns)}"
    )


def name_at(row: SourceRow, column: str, problems: Problems) -> str | None:
    """The text of a cell; None, and a problem noted, where it is empty."""
    if not (text := text_of(row.data.get(column))):
        problems.add(row.where, f"column {column!r} is empty; every row needs one")
    return text or None


def number_at(row: SourceRow, column: str, problems: Problems, needed: bool = False) -> float | None:
    """The finite number of a cell; None where it is missing, and for all else, noted as a problem.

    Args:
        needed: a missing one is a problem, too.
    """
    value = row.data.get(column)
    number = number_of(value)
    if math.isfinite(number):
        return number
    if value is None or str(value).strip().lower() in _MISSING:
        if needed:
            shown = "empty" if value in (None, "") else value
            problems.add(
                row.where, f"column {column!r} is {shown}, expected a finite number; remove such rows"
            )
        return None
    fault = "is not a number" if math.isnan(number) else "is infinite"
    instead = "remove such rows" if needed else "leave the cell empty where it is missing"
    problems.add(row.where, f"column {column!r}: {value!r} {fault}, expected a finite number; {instead}")
    return None


def is_repeat(
    key: tuple[object, ...], where: str, places: dict[tuple[object, ...], str], problems: Problems
) -> bool:
    """Whether an earlier row has this key, which is a problem.

    Args:
        places: of the rows so far, by key; this one is added.
    """
    if key not in places:
        places[key] = where
        return False
    words = " / ".join(map(str, key))
    problems.add(where, f"a second row for {words}, the first is at {places[key]}; remove one")
    return True
