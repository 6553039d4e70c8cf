"""Text of others is shown as text at every edge: terminal, HTML, Markdown, charts, CSV, JSON, logs, chats."""

import io
import json
import re
import time
from dataclasses import replace

import altair as alt
import polars as pl
import pytest
import yaml
from rich.progress import Progress, TextColumn
from rich.text import Text

from forecast.errors import ForecastError
from forecast.report import html, markdown, terminal
from forecast.report.console import SafeConsole
from forecast.report.document import Chart, Column, Document, Paragraph, Section, Table, Warning
from forecast.runs.event_log import log_line
from forecast.safe_text import (
    LONGEST,
    clean,
    json_text,
    printable,
    spreadsheet_cell,
    without_secrets,
    words_shortened,
)

HIDDEN = (
    "\x00\x07\x08\x0b\x0c\x1b\x7f\x85\x9b\xad\u034f\u061c\u115f\u180e\u200b\u200c\u200d\u200e\u202a\u202e\u2028"
    "\u2029\u2060\u2066\u2069\u3164\ufeff\ufff9\ufffe\uffff\ufdd0\ud800\udfff\ue000\U0001fffe\U000e0041\U0010ffff"
)
NAMES = [
    *(f"a{character}b" for character in HIDDEN),
    "\x1b[31mred\x1b]0;title\x07",
    "\x1b]8;;https://evil.example\x1b\\link",
    "[/x] [bold]b[/bold] :bug: [link=https://evil.example]l[/link]",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "</text></svg><script>",
    "\"&amp;'",
    "a|b\n| c `d` [e](javascript:f) ![g](h) https://evil.example a@evil.example @channel *i* __j__ $k$",
    "=HYPERLINK(1)",
    "n" * 300_000,
    "٣٥ 模型 é 👩\u200d🔬",
]
FRAME = pl.DataFrame({"name": [name for name in NAMES if "\ud800" not in name and "\udfff" not in name]})


def seen(shown: str) -> set[str]:
    """The characters of a page that should not stand there."""
    return {character for character in shown if character in HIDDEN}


def document(name: str) -> Document:
    chart = Chart(lambda: drawn([name]), name, name)
    parts = (
        Paragraph(name),
        Warning(name, name),
        Table(FRAME, (Column("name", name, help=name),), name),
        chart,
    )
    return Document(name, name, (Section(name, parts),))


def drawn(names: list[str]) -> alt.Chart:
    rows = [{"x": k, "name": name} for k, name in enumerate(names)]
    return alt.Chart(alt.Data(values=rows)).mark_point().encode(x="x:Q", y="name:N", tooltip="name:N")


@pytest.mark.parametrize("character", HIDDEN)
def test_hidden_characters_are_shown_as_escapes(character: str) -> None:
    shown = printable(f"a{character}b")
    assert shown == f"a{character.encode('unicode_escape').decode()}b"
    assert printable(shown) == shown


def test_lines_tabs_and_joined_letters_stay() -> None:
    assert printable("a\n\tb") == "a\n\tb"
    assert printable("👩\u200d🔬 می\u200cشود") == "👩\u200d🔬 می\u200cشود"


def test_clean_text_stands_on_one_line_of_bounded_length() -> None:
    assert clean(" a\n\n b\r\n\u2028c ") == "a b c"
    began = time.monotonic()
    assert len(clean("n" * 10_000_000)) == LONGEST and clean("n" * 10_000_000).endswith("…")
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_gets_no_escape_sequence_and_no_markup(name: str) -> None:
    console = SafeConsole(file=io.StringIO(), width=10_000, force_terminal=True, color_system=None)
    console.print(name, style="red", soft_wrap=True)
    console.print(Text(name))
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
        bar.add_task(name[:100])
        console.print(terminal.render(document(name), wide=True))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    own = re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\x1b\[\?25[hl]", "", shown)  # movements of the progress bar
    assert seen(own) <= {"\u200d"}
    if "[/x]" in name:
        assert name in shown


@pytest.mark.parametrize("name", NAMES)
def test_html_and_markdown_hold_no_hidden_character_and_no_markup(name: str) -> None:
    content = document(name)
    content = replace(content, sections=(replace(content.sections[0], parts=content.sections[0].parts[:3]),))
    page, text = html.render(content), markdown.render(content)
    assert seen(page) <= {"\u200d"} and seen(text) <= {"\u200d"}
    assert "<script" not in page and "<img" not in page
    assert len(page.encode()) < 200_000 and len(text.encode()) < 200_000
    assert not re.search(r"(?<!\\)[`<]|(?<!\\)\]\(|https://|(?<!\\)@", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {2}


def test_charts_are_drawn_whatever_their_texts_hold() -> None:
    svg = html.svg(drawn(NAMES).properties(title=NAMES), NAMES[0])
    assert "<script" not in svg and "<img" not in svg and seen(svg) <= {"\u200d"}
    assert "a\\x00b" in svg and "a\\x1bb" in svg


def test_emoji_where_a_text_is_cut_do_not_cost_the_chart() -> None:
    assert html.svg(drawn(["👩" * 150, "👨" * 150]), "d").startswith("<svg ")
    assert "👩" in html.svg(drawn(["👩 a"]), "d")


def test_a_chart_that_cannot_be_drawn_is_a_sentence() -> None:
    shown = html.svg(alt.Chart(alt.Data(values=[{"x": 10**400}])).mark_point().encode(x="x:Q"), "d")
    assert shown.startswith('<p class="warning">not drawn: ') and "\n" not in shown


def test_long_texts_of_a_chart_stay_different() -> None:
    drawable = html.drawable({"values": ["n" * 1000, "n" * 1001, "n" * 200]})
    assert len(set(drawable["values"])) == 3 and max(map(len, drawable["values"])) < 220


def test_json_holds_the_same_value_in_characters_that_all_can_read() -> None:
    for text in (json_text(NAMES), log_line("committed", names=NAMES)):
        assert not seen(text) and "\n" not in text
        text.encode()
    assert json.loads(json_text(NAMES)) == NAMES
    assert json.loads(log_line("a", names=NAMES))["names"] == NAMES
    assert json_text({"é": [1.5, None]}) == '{"é": [1.5, null]}'
    with pytest.raises(ValueError, match="JSON"):
        json_text(float("nan"))


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n1", " =1", "＝1", "－1", "\u3000＠1"]
)
def test_a_spreadsheet_runs_no_cell(text: str) -> None:
    assert spreadsheet_cell(text) == f"'{text}"


def test_ordinary_cells_stay() -> None:
    assert [spreadsheet_cell(text) for text in ("", "a=b", "3-bit", "'x")] == ["", "a=b", "3-bit", "'x"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://KEY:SECRET@bucket/a", "s3://***@bucket/a"),
        ("s3://KEY:SEC/RET+x@bucket/a and s3://b/c", "s3://***@bucket/a and s3://b/c"),
        ("s3://K:p@ss@bucket", "s3://***@bucket"),
        ("HTTPS://user@host:1/x", "HTTPS://***@host:1/x"),
        ("(postgres+psycopg://u:p@h)", "(postgres+psycopg://***@h)"),
        ('{"a": "s3://K:S@b", "c": "d@e"}', '{"a": "s3://***@b", "c": "d@e"}'),
        ("https://h/a?x=1&token=abc&y=2", "https://h/a?x=1&token=***&y=2"),
        (
            "https://h/a?X-Amz-Credential=A%2F&X-Amz-Signature=1f",
            "https://h/a?X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        ("https://h/#access_token=abc", "https://h/#access_token=***"),
        ("https://acc.blob.example/c?sv=1&sig=abc%3D", "https://acc.blob.example/c?sv=1&sig=***"),
        ("my-org/run@step4000, s3://bucket/run@4", "my-org/run@step4000, s3://bucket/run@4"),
        ("http://HEAD:8265; see a@b", "http://HEAD:8265; see a@b"),
    ],
)
def test_secrets_of_urls_are_left_out(text: str, expected: str) -> None:
    assert without_secrets(text) == expected
    assert str(ForecastError(text)) == expected
    assert clean(text) == expected


def test_looking_for_secrets_takes_no_time() -> None:
    began = time.monotonic()
    for part in ("a-", "://", "?token", "s3://a:", "@", "#key"):
        without_secrets("x://" + part * 200_000)
    assert time.monotonic() - began < 5


def test_yaml_reads_back_what_is_printable() -> None:
    assert yaml.safe_load(printable(yaml.safe_dump({"a": "b\n\x1b"}, allow_unicode=True))) == {"a": "b\n\x1b"}


def test_long_names_are_cut_in_the_middle_and_all_other_text_stays() -> None:
    name = "/nowhere/" + "x" * 3000 + "/end.gguf"
    shown = words_shortened(f"candidate 'a': no folder at {name}; correct its\n source")
    assert shown.startswith("candidate 'a': no folder at /nowhere/xx") and len(shown) < 600
    assert shown.endswith("xx/end.gguf; correct its\n source")
    assert words_shortened("word " * 1000) == "word " * 1000
    assert words_shortened("x" * 500) == "x" * 500
