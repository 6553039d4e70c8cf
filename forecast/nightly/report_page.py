"""A report as one HTML file, with its plots."""

from forecast.nightly.report_parts import Document, Grid, Plot, Text, Warn, clean
from forecast.report.page import Page


def report_page(document: Document) -> Page:
    """The whole report."""
    page = Page(clean(document.title), clean(document.subtitle))
    for section in document.sections:
        page.heading(clean(section.heading))
        for part in section.parts:
            if isinstance(part, Text):
                page.text(clean(part.text))
            elif isinstance(part, Warn):
                page.warning((f"{part.label}: " if part.label else "") + clean(part.text))
            elif isinstance(part, Grid):
                page.table(part.columns, part.rows, part.caption)
            elif isinstance(part, Plot):
                page.chart(part.draw(), part.caption, clean(part.description))
    return page
