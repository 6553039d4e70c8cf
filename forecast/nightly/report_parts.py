"""What the report of a night is made of: sections of text, warnings, tables and plots, in no format yet."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt

Cell = str | int | float | None

_LONGEST = 500  # characters of somebody else's text in one cell
# Characters that turn the direction of writing round could make a name read as another.
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Warn:
    """A paragraph that must not be overlooked; `label` says of what kind it is."""

    text: str
    label: str | None = None


@dataclass(frozen=True)
class Grid:
    """A table; None is a dash."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str | None = None


@dataclass(frozen=True)
class Plot:
    """A chart, drawn where it can be."""

    draw: Callable[[], "alt.TopLevelMixin"]
    caption: str
    description: str  # what it shows, for people who cannot see it


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    heading: str
    parts: tuple[Text | Warn | Grid | Plot, ...]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def clean(text: str) -> str:
    """Text of others on one line, without control characters, and not too long."""
    words = " ".join(_DIRECTIONS.sub("", text).split())
    shown = "".join(c for c in words if unicodedata.category(c) not in ("Cc", "Cs"))
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def grid(columns: tuple[str, ...], rows: list[tuple[Cell, ...]], caption: str | None = None) -> Grid:
    """A table of cleaned cells; numbers have four significant digits: more would say more than they know."""
    return Grid(columns, tuple(tuple(_cell(cell) for cell in row) for row in rows), caption)


def _cell(cell: Cell) -> Cell:
    if isinstance(cell, str):
        return clean(cell)
    return float(f"{cell:.4g}") if isinstance(cell, float) else cell
