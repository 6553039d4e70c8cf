"""How numbers are written, alike in every table, report and alert; a missing one is a dash, never 0."""

import math
from collections.abc import Callable
from dataclasses import dataclass

MISSING = "–"

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Format:
    """How one column is written.

    Attributes:
        text: from the column's value, and those of `Column.also`, to what is shown; never called with a
            missing first value.
        right: numbers stand on the right.
        d3: the same for charts and the app's tables, where one value is formatted alone; empty: as it is.
    """

    text: Callable[..., str]
    right: bool = True
    d3: str = ""

    def __call__(self, value: Cell, *also: Cell) -> str:
        """The cell's text; `MISSING` where there is no value or it is NaN."""
        return MISSING if is_missing(value) else self.text(value, *also)


def is_missing(value: Cell) -> bool:
    """None and NaN alike."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def figure(value: float | None, signed: bool = False) -> str:
    """Four significant digits, never in exponents below a million: 0.5123, 1.919, 40.49, 9612."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:{'+' if signed else ''}.4g}"
    return f"{value:{'+' if signed else ''},.0f}" if "e+" in text and abs(value) < 1e6 else text


def step_text(step: int | None) -> str:
    """A training step: 143,000."""
    return MISSING if step is None else f"{step:,}"


def count(value: float | None) -> str:
    """135000000 as 135M."""
    if value is None:
        return MISSING
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * limit:  # 999,999 is 1M, not 1e+03k
            return f"{value / limit:.3g}{unit}"
    return f"{value:.4g}"


def fixed(digits: int, signed: bool = False) -> Format:
    """So many digits after the point: 0.405, or +0.41 where the sign matters."""
    pattern = f"{'+' if signed else ''}.{digits}f"
    return Format(lambda value: format(value, pattern), d3=pattern)


def interval(digits: int, signed: bool = False) -> Format:
    """The ends of an interval, from two columns: [+0.82, +1.00]; a dash where either is missing."""
    one = fixed(digits, signed)
    return Format(lambda low, high: MISSING if is_missing(high) else f"[{one(low)}, {one(high)}]")


def plus_minus(digits: int) -> Format:
    """A value and its standard error: 0.405 ± 0.035; the value alone where there is no error."""
    one = fixed(digits)
    return Format(lambda value, error: one(value) if is_missing(error) else f"{one(value)} ± {one(error)}")


TEXT = Format(str, right=False)
NUMBER = Format(figure, d3=".4~g")  # four significant digits
INTEGER = Format(lambda value: f"{value:,}", d3=",d")
COUNT = Format(count, d3=".3~s")  # of parameters, tokens, bytes
SCIENTIFIC = Format(lambda value: f"{value:.3g}", d3=".3~g")  # shares of compute, FLOPs
PERCENT = Format(lambda value: f"{100 * value:.1f} %", d3=".1%")
P_VALUE = Format(lambda value: f"{value:.3f}", d3=".3f")
YES_NO = Format(lambda value: "yes" if value else "no", right=False)
