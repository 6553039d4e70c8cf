"""A document for a terminal: rich's tables and paragraphs; charts are left to the HTML report.

By default a report is short: its main table, then the answer as the last lines, since these are what people
see; `everything` prints all sections, the answer last again.

Names come from users and may hold square brackets: they reach rich as `Text`, since it would read a plain
string as markup.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from forecast.report.document import Chart, Column, Document, Paragraph, Part, Section, Table, Warning
from forecast.safe_text import clean, printable

LINES = 25  # of a short report
WIDTH = 100  # columns that a short report is made for
_LONGEST_WORD = 30  # characters; longer words may be broken
_FEWEST_ROWS = 3  # of a table in a short report
_KEPT = 2  # first columns of a table, which say what a row is about


def render(document: Document, wide: bool = False) -> RenderableType:
    """The whole document, the answer last; `wide` shows also tables and columns for large screens."""
    answer, others = _answer_and_others(document)
    parts: list[RenderableType] = []
    for section in others:
        if section.wide_only and not wide:
            continue
        found = [shown for part in section.parts if (shown := _part(part, wide)) is not None]
        if found and section.heading:
            parts.append(Text(clean(section.heading), style="bold"))
        parts += found
    parts += [shown for part in answer if (shown := _part(part, wide)) is not None]
    return Group(*parts)


@dataclass(frozen=True)
class Short:
    """The main table and the answer, in at most 25 lines; what is left out is counted.

    Attributes:
        more: where the rest is to be seen.
    """

    document: Document
    more: str = "--all"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        answer, others = _answer_and_others(self.document)
        tables = [part for part in answer if isinstance(part, Table)]
        tables += [p for s in others if not s.wide_only for p in s.parts if isinstance(p, Table)]
        main = next((table for table in tables if not table.wide_only and table.frame.height), None)
        notes = sum(isinstance(part, Warning) for section in others for part in section.parts)
        sections = sum(section.heading not in ("", "Notes") for section in others)
        last: list[RenderableType] = [shown for part in answer if (shown := _text(part)) is not None]
        if left_out := [_counted(n, what) for n, what in ((notes, "note"), (sections, "section")) if n]:
            last.append(Text(f"({' and '.join(left_out)} with {self.more}; plots with --html FILE)", "dim"))
        if main is not None:
            narrow = options.update(width=min(options.max_width, WIDTH))
            room = LINES - sum(_lines(console, narrow, part) for part in last)
            yield _fitting(console, narrow, main, room)
        yield from last


def table(table: Table, wide: bool = False, limit: int | None = None) -> RichTable:
    """One table, with its caption above.

    Args:
        limit: rows; None: as the table says, all where `wide`.
    """
    limit = limit if limit is not None else None if wide else table.terminal_rows
    return _drawn(table, table.shown(wide), table.cells(wide, limit))


def _drawn(
    table: Table, columns: Sequence[Column], rows: list[list[str]], compact: bool = False
) -> RichTable:
    caption = Text(clean(table.caption), style="table.title", justify="left") if table.caption else None
    drawn = RichTable(title=caption, box=box.SIMPLE_HEAD if compact else box.HEAVY_HEAD, title_justify="left")
    for k, column in enumerate(columns):
        right = column.format.right
        # Texts wrap between words: without a least width rich breaks names in the middle to save numbers.
        drawn.add_column(
            Text(printable(column.label[:200])),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
            min_width=None if right else max(_longest_word(rows, k), _longest(column.label.split())),
        )
    group = next((k for k, column in enumerate(columns) if column.name == table.group_by), None)
    for row, (starts, bold) in zip(rows, table.marks(), strict=False):  # rows may be fewer
        if starts:
            drawn.add_section()
        cells = ["" if k == group and not starts else text for k, text in enumerate(row)]
        drawn.add_row(*map(Text, cells), style="bold" if bold else None)
    return drawn


def _longest_word(rows: list[list[str]], k: int) -> int:
    return min(_LONGEST_WORD, _longest(word for row in rows for word in row[k].split()))


def _longest(texts: Iterable[str]) -> int:
    """Places on the screen; some letters take two."""
    return max(map(cell_len, texts), default=0)


@dataclass(frozen=True)
class _Narrowed:
    """A table without the columns that there is no room for: the last ones go first, and are named."""

    table: Table
    wide: bool
    limit: int | None
    compact: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, rows = list(self.table.shown(self.wide)), self.table.cells(self.wide, self.limit)
        dropped: list[str] = []
        while len(columns) > _KEPT and _least_width(columns, rows) > options.max_width:
            gone = columns.pop()
            dropped.insert(0, " ".join(gone.label.split()))
            rows = [row[:-1] for row in rows]
        yield _drawn(self.table, columns, rows, self.compact)
        if dropped:
            yield Text(f"no room for: {', '.join(map(clean, dropped))} (a wider terminal, or --json)", "dim")


def _least_width(columns: Sequence[Column], rows: list[list[str]]) -> int:
    """What the table needs with no number and no word of a text cut."""
    width = 1
    for k, column in enumerate(columns):
        head = _longest(column.label.split("\n") if column.format.right else column.label.split())
        cells = _longest(row[k] for row in rows) if column.format.right else 0
        width += 3 + max(head, cells, _longest_word(rows, k))
    return width


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n > 1)}"


def _answer_and_others(document: Document) -> tuple[tuple[Part, ...], tuple[Section, ...]]:
    """The first section is the answer where it has no heading."""
    first, *others = document.sections or (Section("", ()),)
    return ((), document.sections) if first.heading else (first.parts, tuple(others))


def _text(part: Part) -> Text | None:
    if isinstance(part, Paragraph):
        return Text(clean(part.text))
    if isinstance(part, Warning):
        return Text(f"{clean(part.label or 'note')}: {clean(part.text)}", style="yellow")
    return None


def _part(part: Part, wide: bool) -> RenderableType | None:
    if isinstance(part, Chart) or (isinstance(part, Paragraph | Table) and part.wide_only and not wide):
        return None
    if not isinstance(part, Table):
        return _text(part)
    limit = None if wide else part.terminal_rows
    return _with_count(part, _Narrowed(part, wide, limit), limit)


def _with_count(table: Table, drawn: RenderableType, limit: int | None) -> RenderableType:
    left_out = table.frame.height - (limit or table.frame.height)
    return drawn if left_out <= 0 else Group(drawn, Text(f"... and {left_out} more rows (--all)"))


def _fitting(console: Console, options: ConsoleOptions, table: Table, room: int) -> RenderableType:
    """The table with as many rows as fit into so many lines, three at least."""
    rows = min(table.frame.height, table.terminal_rows or table.frame.height)
    while True:
        drawn = _with_count(table, _Narrowed(table, False, rows, compact=True), rows)
        excess = _lines(console, options, drawn) - room
        if excess <= 0 or rows <= _FEWEST_ROWS:
            return drawn
        rows = max(_FEWEST_ROWS, rows - excess)


def _lines(console: Console, options: ConsoleOptions, part: RenderableType) -> int:
    return len(console.render_lines(part, options))
