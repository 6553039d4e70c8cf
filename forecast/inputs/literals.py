"""JSON and numbers that other programs wrote, read without guessing."""

import json
import math
import re
from collections import Counter
from typing import Any

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?|nan", re.ASCII | re.IGNORECASE)


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, nested too deep to be read, or a key given twice, of which Python's own reader
            would keep the last.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deep") from None


def parse_number(text: str) -> float:
    """The number that a text stands for.

    Raises:
        ValueError: none, or one that only Python takes for a number: 1_000, digits of other scripts.
    """
    if _NUMBER.fullmatch(text.strip()) is None:
        raise ValueError(f"{text!r} is not a number")
    return float(text)


def text_of(value: Any) -> str:
    """A cell as text, empty where it is missing; whole numbers without a decimal point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def number_of(value: Any) -> float:
    """The number that a cell stands for; NaN where it stands for none."""
    try:
        if isinstance(value, str):
            return parse_number(value)
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} is given twice")
    return found
