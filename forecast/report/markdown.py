"""A report as Markdown (CommonMark with GitHub's tables), safe whatever names and errors hold."""

import re

from forecast.report.document import Chart, Document, Paragraph, Section, Table, Warning
from forecast.safe_text import clean

# Everything that begins markup anywhere in a line.
_ACTIVE = re.compile(r"[\\`*\[\]<>|~&$]")
# Between letters they are letters; elsewhere they may begin emphasis.
_UNDERSCORES = re.compile(r"(?<![^\W_])(?<!_)_+|_+(?!_)(?![^\W_])")
# What GitHub makes a link of without being asked: addresses, and people who are called.
_LINKS = re.compile(r"://|(?<=\bwww)\.|@(?=\w)", re.IGNORECASE)
# At the beginning of a line: headings, lists, rules.
_BEGINNING = re.compile(r"^([#+=-])|^(\d{1,9})([.)])")


def render(document: Document, plots: str | None = None) -> str:
    """The whole file; `plots` names the file that has the plots, which cannot be drawn here."""
    parts = [f"# {escaped(document.title)}", escaped(document.subtitle)]
    if plots and any(isinstance(part, Chart) for section in document.sections for part in section.parts):
        parts.append(f"Plots are in [{plots}]({plots}).")
    for section in document.sections:
        if any(not isinstance(part, Chart) for part in section.parts):
            parts += _section(section)
    return "\n\n".join(filter(None, parts)) + "\n"


def escaped(text: str) -> str:
    """Text that shows as it is, on one line."""
    text = _escaped_within(text)
    return _BEGINNING.sub(lambda found: f"\\{found[1]}" if found[1] else f"{found[2]}\\{found[3]}", text)


def _escaped_within(text: str) -> str:
    """The same where a line does not begin: in a table's cell, where -0.05 begins no list."""
    text = _ACTIVE.sub(r"\\\g<0>", clean(text))
    text = _UNDERSCORES.sub(lambda found: "\\_" * len(found[0]), text)
    return _LINKS.sub(lambda found: "\\" + found[0], text)


def _section(section: Section) -> list[str]:
    parts, warnings = [f"## {escaped(section.heading)}"] if section.heading else [], []
    for part in section.parts:
        if isinstance(part, Warning):
            label = f"**{escaped(part.label)}**: " if part.label else ""
            warnings.append(f"- {label}{escaped(part.text)}")
            continue
        if warnings:
            parts.append("\n".join(warnings))
            warnings = []
        if isinstance(part, Paragraph):
            parts.append(escaped(part.text))
        elif isinstance(part, Table):
            parts += _table(part)
    return [*parts, "\n".join(warnings)] if warnings else parts


def _table(table: Table) -> list[str]:
    lines = [
        _row([_escaped_within(column.label) for column in table.columns]),
        _row(["---:" if column.format.right else "---" for column in table.columns]),
        *(_row([_escaped_within(cell) for cell in row]) for row in table.cells()),
    ]
    return ["\n".join(lines), *([escaped(table.caption)] if table.caption else [])]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
