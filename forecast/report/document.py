"""What a report is made of, in no format yet: one description, rendered for terminal, HTML, Markdown and app.

An analysis returns one frozen result with `frames()`; its `document()` says which of their columns are shown
and how. Renderers: `terminal`, `html` (also notebooks), `markdown`; JSON and CSV come from the frames.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forecast.report.format import TEXT, Format
from forecast.safe_text import clean

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt
    import polars as pl


@dataclass(frozen=True)
class Column:
    """One column of a table: which values, under which heading, how they are written, what they mean.

    Attributes:
        name: the frame's column.
        help: one sentence on what the number is, for tooltips and legends.
        wide_only: left out where there is little room (a terminal).
        also: further columns of the frame that the format takes, e.g. the upper end of an interval.
        link: the frame's column that holds where the cell leads to, relative to the page; only in HTML.
    """

    name: str
    label: str
    format: Format = TEXT
    help: str = ""
    wide_only: bool = False
    also: tuple[str, ...] = ()
    link: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of a frame, as they stand.

    Attributes:
        group_by: the frame's column whose changes are marked: in a terminal by a rule, and its value stands
            once per group; in HTML by a rule. Markdown has every row in full.
        bold: the frame's column of booleans that says which rows are emphasised.
        terminal_rows: so many rows where there is little room, and a line that says how many are left out.

    Raises:
        ValueError: a column that the frame does not have.
    """

    frame: "pl.DataFrame"
    columns: tuple[Column, ...]
    caption: str = ""
    group_by: str | None = None
    bold: str | None = None
    terminal_rows: int | None = None
    wide_only: bool = False

    def __post_init__(self) -> None:
        named = {name for column in self.columns for name in (column.name, *column.also)}
        named |= {name for name in (self.group_by, self.bold, *(c.link for c in self.columns)) if name}
        if missing := sorted(named - set(self.frame.columns)):
            raise ValueError(f"the frame has no column {', '.join(missing)}; it has {self.frame.columns}")

    def shown(self, wide: bool) -> tuple[Column, ...]:
        """The columns that are rendered."""
        return tuple(column for column in self.columns if wide or not column.wide_only)

    def cells(self, wide: bool = True, limit: int | None = None) -> list[list[str]]:
        """The texts of the shown columns, row by row; those of others cleaned."""
        frame = self.frame if limit is None else self.frame.head(limit)
        by_column = [
            [clean(column.format(*values)) for values in frame.select(column.name, *column.also).rows()]
            for column in self.shown(wide)
        ]
        return [list(row) for row in zip(*by_column, strict=True)]

    def links(self) -> list[list[str]]:
        """Where the cells of each row lead to; empty where nowhere."""
        columns = [self.frame[c.link].to_list() if c.link else [""] * self.frame.height for c in self.columns]
        return [list(row) for row in zip(*columns, strict=True)]

    def marks(self) -> list[tuple[bool, bool]]:
        """For each row whether a group begins there, as at the first, and whether it is emphasised."""
        height = self.frame.height
        groups = self.frame[self.group_by].to_list() if self.group_by else [None] * height
        bold = self.frame[self.bold].to_list() if self.bold else [False] * height
        return [(k == 0 or groups[k - 1] != groups[k], bool(bold[k])) for k in range(height)]


@dataclass(frozen=True)
class Chart:
    """A plot, built where it can be drawn.

    Attributes:
        alt: what it shows, for people who cannot see it.
    """

    build: Callable[[], "alt.TopLevelMixin"]
    caption: str
    alt: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text."""

    text: str
    wide_only: bool = False


@dataclass(frozen=True)
class Warning:  # shadows the builtin on purpose: documents are the only place that names it
    """A paragraph that must not be overlooked; `label` says of what kind it is."""

    text: str
    label: str | None = None


Part = Paragraph | Warning | Table | Chart


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; `wide_only` sections are left out where there is little room."""

    heading: str
    parts: tuple[Part, ...]
    wide_only: bool = False


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    def save(self, path: str) -> None:
        """Write it whole or not at all, as HTML or Markdown by the ending; a local path or `s3://...`.

        Raises:
            ValueError: another ending.
            StorageError: it cannot be written.
        """
        from forecast import storage
        from forecast.report import html, markdown

        if path.endswith((".html", ".htm")):
            text = html.render(self)
        elif path.endswith(".md"):
            text = markdown.render(self)
        else:
            raise ValueError(f"{path}: a report is .html or .md; tables as data are in the result's frames()")
        storage.write_bytes(path, text.encode())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from forecast.report import html

        return html.render(self, fragment=True)
