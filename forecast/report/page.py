"""A report in one HTML file: headings, text, tables and drawn charts; no scripts, nothing is fetched.

Charts are drawn to SVG when the page is written, so that it opens without a server, prints, and goes through
mail filters that refuse scripts.
"""

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from forecast.storage import write_bytes

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2430; background: #fff; margin: 2rem auto;
  padding: 0 1.5rem; max-width: 1100px; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
.subtitle, figcaption, caption { color: #5b6170; font-size: .9rem; text-align: left; }
.warning { border-left: 4px solid #d97706; background: #fff7e8; padding: .5rem .8rem; margin: .6rem 0; }
.scroll { overflow-x: auto; margin: .6rem 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; }
caption { caption-side: bottom; padding-top: .4rem; }
th, td { padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #e5e7ec; text-align: left;
  white-space: nowrap; }
th { border-bottom: 2px solid #c4c8d2; vertical-align: bottom; } td.number, th.number { text-align: right; }
td.words { white-space: normal; min-width: 18rem; }
figure { margin: .8rem 0 1.4rem; } figure svg { max-width: 100%; height: auto; }
"""
_WORDY = 40  # characters from which on a cell may wrap


class Page:
    """A page that is written from top to bottom; all text is escaped."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>"]
        if subtitle:
            self._parts.append(f'<p class="subtitle">{html.escape(subtitle)}</p>')
        self._charts = 0

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def warning(self, text: str) -> None:
        """A paragraph that must not be overlooked."""
        self._parts.append(f'<p class="warning">{html.escape(text)}</p>')

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str | None = None
    ) -> None:
        """A table; numbers stand on the right, None is a dash.

        Raises:
            ValueError: a row has not as many cells as there are columns.
        """
        if any(len(row) != len(columns) for row in rows):
            raise ValueError(f"every row needs {len(columns)} cells: {columns}")
        numeric = [
            any(_is_number(row[k]) for row in rows)
            and all(_is_number(row[k]) or row[k] is None for row in rows)
            for k in range(len(columns))
        ]
        head = "".join(
            f"<th{' class=number' if n else ''}>{html.escape(c)}</th>"
            for c, n in zip(columns, numeric, strict=True)
        )
        body = "".join(
            f"<tr>{''.join(_cell(v, n) for v, n in zip(row, numeric, strict=True))}</tr>\n" for row in rows
        )
        words = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        table = f"<table>{words}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>"
        self._parts.append(f'<div class="scroll">{table}</div>')

    def chart(self, chart: "alt.TopLevelMixin", caption: str, description: str) -> None:
        """A chart of Altair, drawn to SVG.

        Args:
            caption: below the chart.
            description: what it shows, for people who cannot see it.
        """
        import vl_convert

        svg = vl_convert.vegalite_to_svg(chart.to_dict())
        self._charts += 1
        svg = _own_ids(svg, f"c{self._charts}-")
        svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1)
        self._parts.append(f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>")

    def html(self) -> str:
        """The whole file."""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(self._title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            + "\n".join(self._parts)
            + "\n</body>\n</html>\n"
        )

    def write(self, path: str) -> None:
        """Write the file whole or not at all; a local path or `s3://...`."""
        write_bytes(path, self.html().encode())

    save = write  # as of a `Document`

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.html()


def _own_ids(svg: str, prefix: str) -> str:
    """Names inside a drawing made its own: every chart's clips and gradients are called the same."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    return re.sub(r'href="#', f'href="#{prefix}', svg)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object, numeric: bool) -> str:
    text = "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    kind = "number" if numeric else "words" if len(text) > _WORDY else ""
    return f"<td{f' class={kind}' if kind else ''}>{html.escape(text)}</td>"
