"""Results as plain records and frames: what `--json`, CSV, the app and the Python interface share."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import polars as pl
from pydantic import TypeAdapter

_DTYPES: dict[Any, pl.DataType] = {
    str: pl.String(),
    int: pl.Int64(),
    float: pl.Float64(),
    bool: pl.Boolean(),
}


def record_of(value: Any) -> Any:
    """A dataclass, or a collection of them, as JSON would hold it; numbers that are no JSON become nulls."""
    kind: Any = type(value)  # mypy takes type[Any] for unhashable
    return json.loads(_adapter(kind).dump_json(value))


def frame_of(rows: Iterable[Any], kind: type) -> pl.DataFrame:
    """Dataclasses of one kind as a frame: a column per field, with its type also where there are no rows.

    NaN becomes null: a missing number. Fields that are no plain values become lists, structs or, where polars
    has no type for them, their JSON text.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    rows = list(rows)
    columns = {}
    for name in names:
        dtype = _DTYPES.get(_plain(hints[name]))
        values = [_value(getattr(row, name)) for row in rows]
        columns[name] = pl.Series(name, values, dtype=dtype, strict=False)
    return pl.DataFrame(columns)


def frame_with(rows: Iterable[Sequence[Any]], columns: str) -> pl.DataFrame:
    """Rows under columns named with their types, e.g. "task:s n:i rho:f same:b"; there may be no rows."""
    types = {"s": str, "i": int, "f": float, "b": bool}
    schema = {name: _DTYPES[types[kind]] for name, kind in (column.split(":") for column in columns.split())}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _plain(hint: Any) -> Any:
    """The type of `X | None`."""
    if get_origin(hint) in (Union, UnionType):
        inner = [kind for kind in get_args(hint) if kind is not NoneType]
        return inner[0] if len(inner) == 1 else hint
    return hint


def _value(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if value is None or isinstance(value, str | int):
        return value
    return record_of(value)
