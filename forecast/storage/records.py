"""Records that this program has written as JSON: another hand may have changed them since.

Whoever reads one gets the types that are declared, numbers that a table and a calendar can hold, and else a
`ValueError` of one line: no nesting, number or type of a file ends a run with a traceback.
"""

from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

T = TypeVar("T")

Count = Annotated[int, Field(ge=0, lt=2**63)]  # as tables hold it
UnixTime = Annotated[float, Field(ge=0, lt=253_402_300_800)]  # until the year 9999

_MOST_BYTES = 1 << 28  # a state of a thousand runs with a thousand checkpoints each


def parsed_json(data: bytes | str) -> Any:
    """Raises: ValueError: no JSON, nested too deeply, or far larger than any record is."""
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has {len(data):,} bytes, no record has more than {_MOST_BYTES:,}")
    return from_json(data)


def checked(kind: type[T], value: Any, extra: Literal["forbid", "allow"] = "forbid") -> T:
    """A value read from JSON as a dataclass or another annotated type.

    Args:
        extra: whether keys that are not declared are an error or kept.

    Raises:
        ValueError: a type, a missing or an unknown key; says which is the first.
    """
    hashable: Any = kind  # mypy takes type[T] for unhashable
    try:
        return cast(T, _adapter(hashable).validate_python(value, extra=extra))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where or kind.__name__}: {first['msg']}") from None


def plain(kind: type[T], value: T) -> Any:
    """What `checked` reads again: mappings, sequences and plain values."""
    hashable: Any = kind
    return _adapter(hashable).dump_python(value)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
