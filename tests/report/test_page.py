import re
from html.parser import HTMLParser

import altair as alt
import pytest

from forecast.report.page import Page


class Reader(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not match."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page.html())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def chart() -> alt.Chart:
    values = [{"x": 1, "y": 2.0}, {"x": 2, "y": 1.0}]
    return alt.Chart(alt.Data(values=values)).mark_line(clip=True).encode(x="x:Q", y="y:Q")


def test_page_holds_everything_and_nothing_from_elsewhere():
    page = Page("Ranking", "18 candidates")
    page.heading("Rows")
    page.text("Words")
    page.warning("Few candidates")
    page.table(["name", "rho"], [["a", 0.5], ["b", None]], "n = 18")
    page.chart(chart(), "below", "a falling line")
    read = Reader(page)
    assert read.open == []
    for words in ("Ranking", "18 candidates", "Rows", "Words", "Few candidates", "n = 18", "below"):
        assert words in read.words
    assert "svg" in {tag for tag, _ in read.tags} and "script" not in {tag for tag, _ in read.tags}
    urls = [
        value for _, at in read.tags for name, value in at.items() if name in ("src", "href", "xlink:href")
    ]
    assert all(url is None or url.startswith("#") for url in urls)
    assert not re.search(r"@import|url\((?!#)", page.html())


def test_text_is_escaped_everywhere():
    evil = "<script>alert('x')</script>\" onload=\"x"
    page = Page(evil, evil)
    page.heading(evil)
    page.text(evil)
    page.warning(evil)
    page.table([evil], [[evil]], evil)
    page.chart(chart().properties(title=evil), evil, evil)
    read = Reader(page)
    assert "script" not in {tag for tag, _ in read.tags}
    assert all("onload" not in at for _, at in read.tags)


def test_cells_show_missing_numbers_as_missing():
    page = Page("t")
    page.table(["n", "rho", "word"], [[18, 0.123456, "a"], [None, None, None], [0, 0.0, "b"]])
    rows = re.findall(r"<tr>(.*?)</tr>", page.html())[1:]
    cells = [re.findall(r"<td(?: class=(\w+))?>(.*?)</td>", row) for row in rows]
    assert cells == [
        [("number", "18"), ("number", "0.1235"), ("", "a")],
        [("number", "–"), ("number", "–"), ("", "–")],
        [("number", "0"), ("number", "0"), ("", "b")],
    ]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError):
        Page("t").table(["a", "b"], [[1]])


def test_names_inside_two_charts_do_not_meet():
    page = Page("t")
    page.chart(chart(), "", "one")
    page.chart(chart(), "", "two")
    ids = re.findall(r'\bid="([^"]+)"', page.html())
    used = re.findall(r"url\(#([^)]+)\)", page.html())
    assert ids and len(ids) == len(set(ids))
    assert used and set(used) <= set(ids)


def test_file_is_written_whole(tmp_path):
    page = Page("t")
    page.write(str(tmp_path / "new" / "report.html"))
    assert (tmp_path / "new" / "report.html").read_text() == page.html()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report.html"]
