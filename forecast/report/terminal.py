"""A document for a terminal: rich's tables and paragraphs; charts are left to the HTML report.

Names come from users and may hold square brackets: they reach rich as `Text`, since it would read a plain
string as markup.
"""

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from forecast.report.document import Chart, Document, Paragraph, Part, Table, Warning
from forecast.safe_text import clean, printable

_LONGEST_WORD = 30  # characters; longer words may be broken


def render(document: Document, wide: bool = False) -> RenderableType:
    """The whole document; `wide` shows also what a terminal leaves out by default."""
    parts: list[RenderableType] = []
    for section in document.sections:
        if section.wide_only and not wide:
            continue
        found = [shown for part in section.parts if (shown := _part(part, wide)) is not None]
        if found and section.heading:
            parts.append(Text(clean(section.heading), style="bold"))
        parts += found
    return Group(*parts)


def table(table: Table, wide: bool = False) -> RichTable:
    """One table, with its caption above."""
    caption = Text(clean(table.caption), style="table.title", justify="center") if table.caption else None
    drawn = RichTable(title=caption)
    limit = None if wide else table.terminal_rows
    columns, rows = table.shown(wide), table.cells(wide, limit)
    for k, column in enumerate(columns):
        right = column.format.right
        # Texts wrap between words: without a least width rich breaks names in the middle to save numbers.
        words = [word for row in rows for word in row[k].split()]
        drawn.add_column(
            Text(printable(column.label[:200])),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
            min_width=None if right else min(_LONGEST_WORD, max(map(len, words), default=0)),
        )
    group = next((k for k, column in enumerate(columns) if column.name == table.group_by), None)
    for row, (starts, bold) in zip(rows, table.marks(), strict=False):  # rows may be fewer
        if starts:
            drawn.add_section()
        cells = ["" if k == group and not starts else text for k, text in enumerate(row)]
        drawn.add_row(*map(Text, cells), style="bold" if bold else None)
    return drawn


def _part(part: Part, wide: bool) -> RenderableType | None:
    if isinstance(part, Chart) or (isinstance(part, Paragraph | Table) and part.wide_only and not wide):
        return None
    if isinstance(part, Paragraph):
        return Text(clean(part.text))
    if isinstance(part, Warning):
        return Text(f"{clean(part.label or 'note')}: {clean(part.text)}", style="yellow")
    drawn = table(part, wide)
    left_out = part.frame.height - (part.terminal_rows or part.frame.height)
    if wide or left_out <= 0:
        return drawn
    return Group(drawn, Text(f"... and {left_out} more rows (all with --json or --html)"))
