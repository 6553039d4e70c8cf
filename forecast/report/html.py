"""A document as one HTML file: no scripts, nothing is fetched; a fragment of it for notebooks.

Charts are drawn to SVG when the page is written, so that it opens without a server, prints, and goes through
mail filters that refuse scripts. All text is escaped by the template.
"""

import hashlib
import html
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from forecast.report.document import Document, Warning
from forecast.safe_text import clean, printable, without_secrets

_BEYOND_BASIC = re.compile("[\U00010000-\U0010ffff]")
_LONGEST_DRAWN = 200  # characters of a text in a chart

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt
    import jinja2


def render(document: Document, fragment: bool = False) -> str:
    """The whole page, or with `fragment` what stands in its body."""
    return _template().render(document=document, fragment=fragment)


def svg(chart: "alt.TopLevelMixin", description: str, prefix: str = "") -> str:
    """A chart drawn to SVG, described for people who cannot see it; `prefix` keeps its ids apart.

    A sentence in its place where it cannot be drawn: the report is worth more than one chart.
    """
    import vl_convert

    specification = drawable(chart.to_dict())
    try:
        try:
            drawn = vl_convert.vegalite_to_svg(specification)
        except ValueError:  # among others where it cuts a long text in the middle of an emoji
            drawn = vl_convert.vegalite_to_svg(drawable(specification, only_basic=True))
    except ValueError as error:
        return f'<p class="warning">not drawn: {html.escape(clean(str(error)))}</p>'
    drawn = _own_ids(drawn, prefix)
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{html.escape(clean(description))}" ', 1)


def drawable(specification: Any, only_basic: bool = False) -> Any:
    """The same chart with texts that can be drawn: some characters end the process of the renderer, and long
    texts take it minutes. What is shortened stays different from what is not the same.

    Args:
        only_basic: write characters beyond the first 65,536 as escapes, too.
    """
    if isinstance(specification, dict):
        return {key: drawable(value, only_basic) for key, value in specification.items()}
    if isinstance(specification, list):
        return [drawable(value, only_basic) for value in specification]
    if not isinstance(specification, str):
        return specification
    text = without_secrets(printable(specification))
    if only_basic:
        text = _BEYOND_BASIC.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
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
    environment.tests["warning"] = lambda part: isinstance(part, Warning)
    environment.globals["svg"] = svg
    return environment.get_template("document.html")


def _own_ids(svg: str, prefix: str) -> str:
    """Names inside a drawing made its own: every chart's clips and gradients are called the same."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    return re.sub(r'href="#', f'href="#{prefix}', svg)
