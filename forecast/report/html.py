"""A document as one HTML file: no scripts, nothing is fetched; a fragment of it for notebooks.

Charts are drawn to SVG when the page is written, so that it opens without a server, prints, and goes through
mail filters that refuse scripts. All text is escaped by the template.
"""

import hashlib
import html
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from forecast.report.document import Document
from forecast.safe_text import clean, printable, without_secrets

_LONGEST_DRAWN = 200  # characters of a text in a chart

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt
    import jinja2


def render(document: Document, fragment: bool = False) -> str:
    """The whole page, or with `fragment` what stands in its body."""
    return _template().render(document=document, fragment=fragment)


def svg(chart: "alt.TopLevelMixin", description: str, prefix: str = "") -> str:
    """A chart drawn to SVG, described for people who cannot see it; `prefix` keeps its ids apart."""
    import vl_convert

    drawn = _own_ids(vl_convert.vegalite_to_svg(drawable(chart.to_dict())), prefix)
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{html.escape(clean(description))}" ', 1)


def drawable(specification: Any) -> Any:
    """The same chart with texts that can be drawn: some characters end the process of the renderer, and long
    texts take it minutes. What is shortened stays different from what is not the same.
    """
    if isinstance(specification, dict):
        return {key: drawable(value) for key, value in specification.items()}
    if isinstance(specification, list):
        return [drawable(value) for value in specification]
    if not isinstance(specification, str):
        return specification
    text = without_secrets(printable(specification))
    if len(text) <= _LONGEST_DRAWN:
        return text
    digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    return f"{text[:_LONGEST_DRAWN]}… {digest}"


@cache
def _template() -> "jinja2.Template":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("forecast.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"clean": clean, "printable": printable}
    environment.globals["svg"] = svg
    return environment.get_template("document.html")


def _own_ids(svg: str, prefix: str) -> str:
    """Names inside a drawing made its own: every chart's clips and gradients are called the same."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    return re.sub(r'href="#', f'href="#{prefix}', svg)
