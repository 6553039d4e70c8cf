"""One description of a report, the same cells from every renderer, and strangers' text shown as text."""

import io
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from rich.cells import cell_len
from rich.console import Console

from forecast.report import html, markdown, terminal
from forecast.report.document import Chart, Column, Document, Paragraph, Section, Table, Warning
from forecast.report.format import COUNT, MISSING, P_VALUE, TEXT, fixed, interval, plus_minus
from forecast.report.records import frame_of, record_of

HOSTILE = "<script>[/x] | $a$ \x1b[31m"
FRAME = pl.DataFrame(
    {
        "name": [HOSTILE, "b", "c"],
        "group": ["g", "g", "h"],
        "rho": [0.934, None, float("nan")],
        "low": [0.8, None, 0.1],
        "high": [1.0, None, None],
        "n": [135_000_000, 7, None],
        "first": [True, False, False],
    }
)
COLUMNS = (
    Column("group", "group"),
    Column("name", "candidate"),
    Column("rho", "rho", fixed(2, signed=True), help="Spearman's rank correlation."),
    Column("low", "95 % interval", interval(2, signed=True), also=("high",)),
    Column("n", "parameters", COUNT, wide_only=True),
)
TABLE = Table(FRAME, COLUMNS, "What it says", group_by="group", bold="first", terminal_rows=2)


def document(*parts: object) -> Document:
    return Document("Title", "", (Section("Heading", tuple(parts)),))  # type: ignore[arg-type]


def on_terminal(wide: bool = False) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(terminal.render(document(Paragraph("words"), Warning("careful"), TABLE), wide))
    found = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(found, str)
    return found


def test_cells_are_dashes_where_values_are_missing() -> None:
    assert TABLE.cells()[0][2:] == ["+0.93", "[+0.80, +1.00]", "135M"]
    assert TABLE.cells()[1][2:] == [MISSING, MISSING, "7"]
    assert TABLE.cells()[2][2:] == [MISSING, MISSING, MISSING]
    assert plus_minus(3)(0.4051, None) == "0.405"
    assert plus_minus(3)(0.4051, 0.035) == "0.405 ± 0.035"
    assert P_VALUE(0.0) == "0.000"
    assert TEXT(None) == MISSING


def test_unknown_column_is_refused() -> None:
    with pytest.raises(ValueError, match="no column rh; it has"):
        Table(FRAME, (Column("rh", "rho"),))


def test_terminal_leaves_out_what_is_wide_only_and_says_how_many_rows() -> None:
    short, wide = on_terminal(), on_terminal(wide=True)
    assert "135M" not in short and "135M" in wide
    assert "and 1 more rows" in short and "more rows" not in wide
    assert "[/x]" in short and "\x1b" not in short
    assert short.count(" g ") == 1, "a group's value stands once"


def short(found: Document, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal.Short(found))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def long_document(rows: int, words: int = 30) -> Document:
    frame = pl.DataFrame(
        {
            "rank": range(rows),
            "name": [f"candidate-{i}-with-a-long-name" for i in range(rows)],
            **{f"figure {k}": [k + i / 8 for i in range(rows)] for k in range(6)},
        }
    )
    columns = [
        Column(name, name if name in ("rank", "name") else f"{name} of something") for name in frame.columns
    ]
    table = Table(frame, tuple(columns), "A caption")
    answer = Section("", (Paragraph("x leads " + "and so on " * words), Paragraph("Next: measure more.")))
    notes = Section("Notes", tuple(Warning(f"note {i}") for i in range(7)))
    return Document("Title", "", (answer, Section("Main", (table,)), Section("More", (table,)), notes))


@pytest.mark.parametrize("rows", [0, 1, 10, 200])
def test_short_report_ends_with_the_answer_within_25_lines(rows: int) -> None:
    lines = short(long_document(rows))
    assert len(lines) <= terminal.LINES
    assert lines[-2].rstrip() == "Next: measure more."
    assert lines[-1].startswith("(7 notes and 2 sections with --all")
    shown = [line for line in lines if "candidate-" in line]
    assert len(shown) == min(rows, len(shown)) and (len(shown) >= 3 or rows < 3)
    if rows > len(shown):
        assert any(f"and {rows - len(shown)} more rows (--all)" in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_columns_without_room_are_left_out_and_named_never_cut(width: int) -> None:
    lines = short(long_document(4), width)
    text = "\n".join(lines)
    assert "candidate-3-with-a-long-name" in text and "…" not in text
    assert all(len(line.rstrip()) <= width for line in lines)
    assert ("no room for:" in text) == (width < 160)


def test_wide_letters_and_long_headings_are_counted_as_they_are_seen() -> None:
    frame = pl.DataFrame({"rank": [1], "a": ["模型" * 7], "b": ["模型" * 7], "c": [0.5]})
    columns = (Column("rank", "rank"), Column("a", "candidates"), Column("b", "b"), Column("c", "c"))
    found = Document("t", "", (Section("", (Paragraph("x"),)), Section("T", (Table(frame, columns),))))
    for width in (40, 60, 100):
        lines = short(found, width)
        assert all(cell_len(line.rstrip()) <= width for line in lines)
        assert "candidates" in "\n".join(lines)


def test_html_escapes_and_explains() -> None:
    page = html.render(document(Paragraph(HOSTILE), Warning("careful", "label"), TABLE))
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert 'title="Spearman&#39;s rank correlation."' in page
    assert "label: careful" in page
    assert page.count('<tr class="bold">') == 1 and page.count('<tr class="group">') == 1
    assert "<html" not in html.render(document(TABLE), fragment=True)
    assert document(TABLE)._repr_html_() == html.render(document(TABLE), fragment=True)


def test_markdown_has_every_column_and_active_characters_escaped() -> None:
    text = markdown.render(document(TABLE, Warning("careful")))
    assert "| group | candidate | rho | 95 % interval | parameters |" in text
    assert "\\<script\\>" in text and "\\| \\$a\\$" in text
    assert "- careful" in text


class PageReader(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)

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


def test_page_with_charts_is_whole_and_fetches_nothing() -> None:
    import altair as alt

    evil = "<script>alert('x')</script>\" onload=\"x"

    def build() -> alt.Chart:
        return (
            alt.Chart(pl.DataFrame({"x": [1, 2]}))
            .mark_line(clip=True)
            .encode(x="x", y="x")
            .properties(title=evil)
        )

    frame = pl.DataFrame({evil: [evil]})
    section = Section(
        evil,
        (
            Paragraph(evil),
            Warning(evil, evil),
            Table(frame, (Column(evil, evil, help=evil),), evil),
            Chart(build, "below", 'says "it"'),
            Chart(build, evil, evil),
        ),
    )
    page = html.render(Document(evil, evil, (section,)))
    read = PageReader(page)
    assert read.open == []
    assert read.words.count("<script>") >= 11, "shown as text"
    assert "script" not in {tag for tag, _ in read.tags}
    assert all("onload" not in attributes for _, attributes in read.tags)
    assert 'aria-label="says &quot;it&quot;"' in page
    # Nothing comes from elsewhere, and the names inside the two drawings do not meet.
    urls = [at[name] for _, at in read.tags for name in ("src", "href", "xlink:href") if name in at]
    assert all(url is None or url.startswith("#") for url in urls)
    assert not re.search(r"@import|url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    used = re.findall(r"url\(#([^)]+)\)", page)
    assert ids and len(ids) == len(set(ids))
    assert used and set(used) <= set(ids)


@dataclass(frozen=True)
class OneRow:
    name: str
    n: int | None
    rho: float | None
    chosen: tuple[str, ...] = ()


def test_frame_has_its_types_also_without_rows() -> None:
    empty = frame_of([], OneRow)
    assert empty.schema["n"] == pl.Int64 and empty.schema["rho"] == pl.Float64
    frame = frame_of([OneRow("a", None, float("nan"), ("x",)), OneRow("b", 3, 0.5)], OneRow)
    assert frame["rho"].to_list() == [None, 0.5] and frame["n"].to_list() == [None, 3]
    assert record_of(OneRow("a", 1, float("nan"))) == {"name": "a", "n": 1, "rho": None, "chosen": []}


@pytest.mark.parametrize("ending", [".html", ".md"])
def test_save_goes_by_the_ending(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"report{ending}"
    document(TABLE).save(str(path))
    assert "Title" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"\.html or \.md"):
        document(TABLE).save(f"{tmp_path}/report.pdf")
