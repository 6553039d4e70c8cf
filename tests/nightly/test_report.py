"""The files of a report: whole or not at all, the same bytes anywhere, safe with any name."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from nights import (
    ALERT,
    DAYS,
    EVIL,
    before,
    best_by,
    checkpoint,
    compared,
    end,
    full_night,
    night,
    series,
)

from forecast import storage
from forecast.nightly.records import Broken, Night, Value, WatchedRun, read_report
from forecast.nightly.report import document, report_folder, write_report
from forecast.report import markdown
from forecast.report.document import Column, Document, Section, Table
from forecast.report.markdown import escaped
from forecast.safe_text import printable


def plotted(day: int = 2) -> Night:
    """A night with one plot; drawing takes most of the time of a report."""
    return replace(full_night(day), values=())


def test_the_files_of_a_report(tmp_path: Path) -> None:
    folder = report_folder(str(tmp_path), DAYS[2])
    assert folder == str(tmp_path / "reports" / DAYS[2])
    written = write_report(folder, plotted(), before(), [ALERT])
    assert [Path(path).name for path in written] == ["report.md", "report.html", "night.json"]
    assert sorted(p.name for p in Path(folder).iterdir()) == ["night.json", "report.html", "report.md"]
    assert read_report(written[-1]) == (plotted(), (ALERT,))
    # Again, and with nights that are not earlier: the same bytes.
    later = [*before(), full_night(), night(5, forecasts=(end(0.9, 3000),))]
    for path in write_report(str(tmp_path / "again"), plotted(), later, [ALERT]):
        assert Path(path).read_bytes() == Path(folder, Path(path).name).read_bytes(), path


def test_a_report_on_an_object_store(bucket: str) -> None:
    folder = report_folder(bucket + "/runs", DAYS[2])
    written = write_report(folder, plotted(), before(), [ALERT])
    assert written[-1] == f"{bucket}/runs/reports/{DAYS[2]}/night.json"
    assert read_report(written[-1]) == (plotted(), (ALERT,))
    assert b"<svg" in storage.read_bytes(written[1])


def test_a_report_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_report(str(tmp_path / "x"), night(0, values=series([float("inf")])), (), ())
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    first = write_report(str(tmp_path / "1"), full_night(), before(), [ALERT])
    code = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
        "from test_report import *\n"
        f"write_report({str(tmp_path / '2')!r}, full_night(), before(), [ALERT])"
    )
    surroundings = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code], check=True, env=surroundings)
    for path in first:
        assert Path(path).read_bytes() == (tmp_path / "2" / Path(path).name).read_bytes(), path


def tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark", {"linkify": False}).enable("table").parse(text)


def inline(text: str) -> list[Token]:
    return [child for token in tokens(text) for child in token.children or []]


@pytest.mark.parametrize(
    "text",
    [
        EVIL,
        "cross_entropy__uniform",
        "_SUCCESS",
        "__init__",
        "a_ _b",
        "1. x",
        "2) x",
        "# x",
        "- x",
        "+ x",
        "> x",
        "=====",
        "---",
        "~~~",
        "***",
        "&amp; &#35;",
        "<https://example.org>",
        "a  \nb",
        "\\",
        "x\\",
        "!<b>!",
        "    code",
        "[x]: y",
        "$x$",
        "ends in |",
    ],
)
def test_any_text_shows_as_it_is(text: str) -> None:
    shown = printable(" ".join(text.split()))
    table = Table(pl.DataFrame({text: [text]}), (Column(text, text),))
    in_table = markdown.render(Document("", "", (Section("", (table,)),))).removeprefix("# \n\n")
    for made in (escaped(text), f"- {escaped(text)}", in_table):
        found = inline(made)
        assert {token.type for token in found} <= {"text", "text_special", "html_inline"} - {"html_inline"}
        contents = [
            "".join(child.content for child in token.children or [])
            for token in tokens(made)
            if token.type == "inline"
        ]
        assert set(contents) == {shown}


def test_nobody_is_called_and_nothing_is_linked() -> None:
    """What GitHub does beyond CommonMark."""
    assert escaped("see https://x.org www.y.org @team a@b.org") == (
        "see https\\://x.org www\\.y.org \\@team a\\@b.org"
    )


def test_the_markdown_of_a_night_with_evil_names() -> None:
    evil_values = (
        Value(EVIL, 1, EVIL, "cross_entropy__uniform", 1.0),
        Value(EVIL, 1, EVIL, EVIL, 1.0),
    )
    evil = night(
        0,
        new=(checkpoint(1, EVIL),),
        broken=(Broken(checkpoint(2, EVIL), EVIL, DAYS[0]),),
        runs=(WatchedRun(EVIL, (1,), DAYS[0], DAYS[0], None, EVIL),),
        values=evil_values,
        comparisons=compared(evil_values),
        best_so_far=(best_by(compared(evil_values), EVIL),),
        forecasts=(end(0.5, 1, run=EVIL, task=EVIL, metric=EVIL),),
        not_forecast=({"run": EVIL, "task": EVIL, "error": EVIL},),
        failed=({EVIL: EVIL, "error": EVIL},),
    )
    made = markdown.render(document(evil, (), [replace(ALERT, text=EVIL, rule=EVIL)]), "report.html")
    found = tokens(made)
    assert {t.type for t in found} <= {
        *("heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline"),
        *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
        *("table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close"),
        *("tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close"),
    }
    kinds = {t.type for t in inline(made)}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close", "link_open", "link_close"}
    links = [t.attrs["href"] for t in inline(made) if t.type == "link_open"]
    assert links == ["report.html"]
    # Headings are ours alone: the title, and one for each section that is not only plots.
    assert sum(t.type == "heading_open" for t in found) == 1 + 11
    # Every row of a table has as many cells as its head.
    widths: list[int] = []
    for token in found:
        if token.type == "tr_open":
            widths.append(0)
        elif token.type in ("td_open", "th_open"):
            widths[-1] += 1
    assert widths and set(widths) == {4, 5, 6, 12, 11, 3, 8, 2}


def test_numbers_of_the_markdown_are_those_of_the_tables() -> None:
    made = markdown.render(document(full_night(), before(), ()), "report.html")
    assert (
        "| olmo | macro | acc | 100,000 | 3,000 | 0.5123 | 0.4623 | 0.5623 | 0.56 | -0.0477 | combined | – |"
        in made
    )
    assert "| olmo | sciq | acc | 100,000 | 3,000 | 0.61 | 0.56 | 0.66 | – | – | combined | – |" in made
    values = "3,000 | 2.5 | 2,000 | 2.75 | -0.25 | -0.2777 | -0.2223 | better |"
    assert f"| olmo | gsm8k | cross_entropy__uniform | {values}" in made
    assert "| – | another | 80.98 | 3.919 | – | – | – |" in made
    assert "nan" not in made.lower() and "None" not in made.replace("None.", "")


# HTML


def test_the_page_holds_the_same_and_no_markup_of_others(tmp_path: Path) -> None:
    evil = replace(
        full_night(),
        config=EVIL,
        values=(*full_night().values, Value("olmo", 9000, EVIL, "acc", 0.1)),
        failed=({"task": EVIL, "error": EVIL},),
    )
    write_report(str(tmp_path), evil, before(), [replace(ALERT, text=EVIL)])
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "\x00" not in page and "\x1b" not in page and "\u202e" not in page
    assert page.count("<svg") == 3
    assert (
        '<td class="number">0.5123</td><td class="number">0.4623</td><td class="number">0.5623</td>' in page
    )
    assert page.index("nothing_new: a|b") < page.index("New checkpoints")
    for words in ("no _SUCCESS in it yet", "model.safetensors is cut short", "the hub cannot be reached"):
        assert words in page
