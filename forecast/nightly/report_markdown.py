"""A report as Markdown (CommonMark with GitHub's tables), safe whatever names and errors hold."""

import re

from forecast.nightly.report_parts import Cell, Document, Grid, Plot, Section, Text, Warn, clean
from forecast.report.format import MISSING, figure

# Everything that begins markup anywhere in a line.
_ACTIVE = re.compile(r"[\\`*\[\]<>|~&$]")
# Between letters they are letters; elsewhere they may begin emphasis.
_UNDERSCORES = re.compile(r"(?<![^\W_])(?<!_)_+|_+(?!_)(?![^\W_])")
# What GitHub makes a link of without being asked: addresses, and people who are called.
_LINKS = re.compile(r"://|(?<=\bwww)\.|@(?=\w)", re.IGNORECASE)
# At the beginning of a line: headings, lists, rules.
_BEGINNING = re.compile(r"^([#+=-])|^(\d{1,9})([.)])")


def markdown(document: Document, plots: str) -> str:
    """The whole file; `plots` names the file that has the plots, which cannot be drawn here."""
    parts = [f"# {escaped(document.title)}", escaped(document.subtitle)]
    if any(isinstance(part, Plot) for section in document.sections for part in section.parts):
        parts.append(f"Plots are in [{plots}]({plots}).")
    for section in document.sections:
        if any(not isinstance(part, Plot) for part in section.parts):
            parts += _section(section)
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text that shows as it is, on one line."""
    text = _ACTIVE.sub(r"\\\g<0>", clean(text))
    text = _UNDERSCORES.sub(lambda found: "\\_" * len(found[0]), text)
    text = _LINKS.sub(lambda found: "\\" + found[0], text)
    return _BEGINNING.sub(lambda found: f"\\{found[1]}" if found[1] else f"{found[2]}\\{found[3]}", text)


def _section(section: Section) -> list[str]:
    parts, warnings = [f"## {escaped(section.heading)}"], []
    for part in section.parts:
        if isinstance(part, Warn):
            label = f"**{escaped(part.label)}**: " if part.label else ""
            warnings.append(f"- {label}{escaped(part.text)}")
            continue
        if warnings:
            parts.append("\n".join(warnings))
            warnings = []
        if isinstance(part, Text):
            parts.append(escaped(part.text))
        elif isinstance(part, Grid):
            parts += _grid(part)
    return [*parts, "\n".join(warnings)] if warnings else parts


def _grid(grid: Grid) -> list[str]:
    numeric = [
        any(isinstance(row[k], int | float) for row in grid.rows)
        and not any(isinstance(row[k], str) for row in grid.rows)
        for k in range(len(grid.columns))
    ]
    lines = [
        _row([escaped(column) for column in grid.columns]),
        _row(["---:" if n else "---" for n in numeric]),
        *(_row([_cell(cell) for cell in row]) for row in grid.rows),
    ]
    return ["\n".join(lines), *([escaped(grid.caption)] if grid.caption else [])]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    if cell is None:
        return MISSING
    if isinstance(cell, str):
        return escaped(cell)
    return figure(cell) if isinstance(cell, float) else str(cell)
