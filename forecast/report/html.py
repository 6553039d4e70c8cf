"""A document as one HTML file: no scripts, nothing is fetched; a fragment of it for notebooks.

Charts are drawn to SVG when the page is written, so that it opens without a server, prints, and goes through
mail filters that refuse scripts. All text is escaped by the template.
"""

import html
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from forecast.report.document import Chart, Document, Paragraph, Part, Table, Warning, clean

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt
    import jinja2


def render(document: Document, fragment: bool = False) -> str:
    """The whole page, or with `fragment` what stands in its body."""
    sections = [
        {
            "heading": clean(section.heading),
            "parts": [_part(part, f"s{i}c{j}-") for j, part in enumerate(section.parts)],
        }
        for i, section in enumerate(document.sections)
    ]
    return _template().render(
        title=clean(document.title), subtitle=clean(document.subtitle), sections=sections, fragment=fragment
    )


def svg(chart: "alt.TopLevelMixin", description: str, prefix: str = "") -> str:
    """A chart drawn to SVG, described for people who cannot see it; `prefix` keeps its ids apart."""
    import vl_convert

    drawn = _own_ids(vl_convert.vegalite_to_svg(chart.to_dict()), prefix)
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1)


@cache
def _template() -> "jinja2.Template":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("forecast.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("document.html")


def _part(part: Part, prefix: str) -> dict[str, Any]:
    if isinstance(part, Paragraph):
        return {"kind": "paragraph", "text": clean(part.text)}
    if isinstance(part, Warning):
        label = f"{clean(part.label)}: " if part.label else ""
        return {"kind": "warning", "text": label + clean(part.text)}
    if isinstance(part, Chart):
        from markupsafe import Markup

        drawn = Markup(svg(part.build(), clean(part.alt), prefix))
        return {"kind": "chart", "svg": drawn, "caption": clean(part.caption)}
    return {"kind": "table", "caption": clean(part.caption), "columns": part.columns, "rows": _rows(part)}


def _rows(table: Table) -> list[dict[str, Any]]:
    bold = table.frame[table.bold].to_list() if table.bold else [False] * table.frame.height
    starts = table.group_starts()
    rows = []
    for index, cells in enumerate(table.cells()):
        begins = table.group_by is not None and starts[index] and index > 0
        classes = [name for name, there in (("group", begins), ("bold", bold[index])) if there]
        rows.append({"cells": cells, "classes": " ".join(classes)})
    return rows


def _own_ids(svg: str, prefix: str) -> str:
    """Names inside a drawing made its own: every chart's clips and gradients are called the same."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    return re.sub(r'href="#', f'href="#{prefix}', svg)
