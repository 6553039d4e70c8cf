"""Columns of a table that are no measurements: row numbers that were saved with it, and doubled columns.

Readers give a column that stands twice in a file a name of its own, under which the next program takes it for
another one: `MMLU.1` (pandas, R), `MMLU_duplicated_0` (polars), `MMLU...7` (readr), `MMLU_1` (DuckDB).
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from forecast.errors import InputError
from forecast.inputs.literals import number_of, text_of

# No person names a column so; `name` is the one that was doubled.
_RENAMED = re.compile(r"(?P<name>.*?\S)\s*(_duplicated_\d+|(?P<all>\.\.\.)\d+|\.\d+)", re.DOTALL)
# Doubled columns often end so, but others do, too: equal cells tell.
_PERHAPS_RENAMED = re.compile(r"[ _.:#-]*(x|y|left|right|copy|dup|\(?\d+\)?)$")
_NAMELESS = re.compile(r"\s*|Unnamed: .*|__index_level_\d+__|level_\d+|\.\.\.\d+", re.DOTALL)
_IDENTIFIER = re.compile(r"(.*[\W_])?([Uu]{0,2}[Ii][Dd])|.*[a-z]I[Dd]", re.DOTALL)
# Names of row numbers, in lower case, without signs and digits at the end.
_ROW_NUMBERS = re.compile(
    r"index|idx|(serial|record|sr?|row)(n|nr|no|num|number|idx|index|name|names)|row|rn|obs|columnindex"
)
# Others' names, too: a few rows may have such numbers by chance, and sparse ones are something else.
_PERHAPS_ROW_NUMBERS = re.compile(
    r"X\d*|V\d+|_c\d+|(column|field)_?\d+|\W|no\.?|nr\.?|num|number|seq|\d+", re.I
)
_FEWEST = 4  # rows
_FEWEST_ANYWHERE = 8  # rows of which 1, 2, 3, ... is no coincidence, whatever the name


def check_not_doubled(where: str, names: Sequence[str], asked: Collection[str]) -> None:
    """Raises: InputError: a reader made another column from a second one of a name that is asked for."""
    for name in names:
        found = _RENAMED.fullmatch(name)
        if found and found["name"] in asked and found["name"] in names and name not in asked:
            raise _doubled(where, name, found["name"])


def measurements(
    where: str, cells: Mapping[str, Sequence[Any]], keys: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """The columns that hold measurements, and notes on those that are left out.

    Args:
        where: how messages name the table.
        cells: of each column, row by row.
        keys: columns that say what a row is about, and scores: no measurements, but they may be doubled.

    Raises:
        InputError: a column without a name that may be a measurement; two columns that were one name's and
            differ.
    """
    kept: list[str] = []
    notes = []
    first: dict[tuple[str, int], str] = {}  # column by the stem of its name and the hash of its cells
    for name in [*(key for key in keys if key in cells), *(name for name in cells if name not in keys)]:
        if name not in keys and _is_row_number(where, name, cells[name]):
            notes.append(f"column {name!r} holds row numbers or nothing, no measurements: left out")
            continue
        look = (_stem(name), hash(tuple(map(_value, cells[name]))))
        original = _certain_original(name, cells) or first.setdefault(look, name)
        if name in keys:
            continue
        if original == name:
            kept.append(name)
        elif all(_value(a) == _value(b) for a, b in zip(cells[name], cells[original], strict=True)):
            notes.append(f"column {name!r} is column {original!r} a second time: left out")
        else:
            raise _doubled(where, name, original)
    return kept, notes


def _certain_original(name: str, cells: Collection[str]) -> str | None:
    """The column that was there twice; the first of several that readr renamed, all of them."""
    if (found := _RENAMED.fullmatch(name)) is None:
        return None
    if found["name"] in cells:
        return found["name"]
    ending = f"{found['name']}..."
    return (
        next(n for n in cells if n.startswith(ending) and n[len(ending) :].isdigit())
        if found["all"]
        else None
    )


def _stem(name: str) -> str:
    return _PERHAPS_RENAMED.sub("", name.strip().casefold()) or name


def _value(cell: Any) -> float | str:
    number = number_of(cell)
    return text_of(cell) if math.isnan(number) else number


def _is_row_number(where: str, name: str, cells: Sequence[Any]) -> bool:
    numbers = [number_of(cell) for cell in cells if text_of(cell)]
    whole = all(number.is_integer() for number in numbers)  # NaN is not
    distinct = len(set(numbers)) == len(cells)
    if _NAMELESS.fullmatch(name):
        if whole or any(math.isnan(number) for number in numbers):
            return True
        raise InputError(f"{where}: column {name!r} has no name and holds numbers; name or remove it")
    if not numbers or not whole:
        return False
    ordered, n = sorted(numbers), len(cells)
    plain = re.sub(r"[\W_]|\d+$", "", name.casefold())
    if _ROW_NUMBERS.fullmatch(plain) or _IDENTIFIER.fullmatch(name):
        return True
    if not distinct or n < _FEWEST:
        return False
    if _PERHAPS_ROW_NUMBERS.fullmatch(name) and ordered[0] >= 0 and ordered[-1] <= 10 * n:
        return True
    from_start = ordered[0] in (0, 1) or numbers in (ordered, ordered[::-1])
    return n >= _FEWEST_ANYWHERE and ordered[-1] - ordered[0] == n - 1 and from_start


def _doubled(where: str, name: str, original: str) -> InputError:
    return InputError(
        f"{where}: column {name!r} is what programs call a second column {original!r}; "
        "rename or remove one of the two"
    )
