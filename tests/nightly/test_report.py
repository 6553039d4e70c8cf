import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from nights import DAYS, FINAL, checkpoint, end, full_night, night, ranking, series

from forecast import storage
from forecast.config_nightly import DEFAULT_ALERTS
from forecast.errors import InputError
from forecast.nightly.records import Alert, Broken, Night, Value, WatchedRun
from forecast.nightly.report import report_folder, write_report
from forecast.nightly.report_content import document
from forecast.nightly.report_markdown import escaped, markdown
from forecast.nightly.report_parts import Grid, Plot, Section, Text, Warn
from forecast.nightly.report_record import (
    night_bytes,
    night_from_record,
    night_record,
    read_night,
    read_report,
)
from forecast.nightly.rules import judge

EVIL = (
    "a|b `x` <script>alert(1)</script>\n## h\r\n- *i* __j__ [k](javascript:1) ![](x) \\| &lt; "
    "\x00\x1b[31m\u202eend"
)
ALERT = Alert("nothing_new", "nothing_new/olmo/x", "olmo", "olmo: nothing.", {"days": 3, "problem": None})


def before() -> list[Night]:
    return [
        night(0, forecasts=(end(0.50, 1000), end(0.6, 1000, task="sciq"))),
        night(1, forecasts=(end(0.56, 2000, half=0.03),)),
    ]


def section(heading: str, of: Night, earlier: list[Night] | None = None) -> Section:
    (found,) = [s for s in document(of, earlier or [], ()).sections if s.heading == heading]
    return found


def rows(heading: str, of: Night, earlier: list[Night] | None = None) -> list[dict[str, Any]]:
    """The first table of a section."""
    grid = next(part for part in section(heading, of, earlier).parts if isinstance(part, Grid))
    return [dict(zip(grid.columns, row, strict=True)) for row in grid.rows]


# night.json


def test_a_night_comes_back_from_its_record_exactly(tmp_path: Path) -> None:
    alerts = judge(full_night(), before(), DEFAULT_ALERTS)
    assert len(alerts) == 2
    path = tmp_path / "night.json"
    path.write_bytes(night_bytes(full_night(), alerts))
    again, alerts_again = read_report(str(path))
    assert again == full_night() == read_night(str(path))
    assert alerts_again == alerts
    assert night_bytes(again, alerts_again) == path.read_bytes()


def test_an_empty_night_and_odd_numbers_come_back() -> None:
    odd = (0.1 + 0.2, 1e-300, -0.0, 5e-324, 1.7976931348623157e308)
    for given in (
        night(0),
        night(0, values=series(list(odd))),
        night(0, config_=None) if False else night(1),
    ):
        again, alerts = night_from_record(json.loads(night_bytes(given, ())))
        assert again == given and alerts == ()
        assert [v.value.hex() for v in again.values] == [v.value.hex() for v in given.values]


def test_names_of_all_kinds_come_back() -> None:
    given = night(
        0, broken=(Broken(checkpoint(1, EVIL), EVIL, DAYS[0]),), failed=({"task": EVIL, "error": "ü"},)
    )
    assert night_from_record(json.loads(night_bytes(given, ())))[0] == given


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        night_bytes(night(0, values=series([float("nan")])), ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "its schema is 2, this version reads 1"),
        ({"schema": None}, "its schema is None"),
        ({"surprise": 1}, "Night: missing or unknown: surprise"),
        ({"new": [{"run": "olmo"}]}, "Checkpoint: missing or unknown: name"),
        ({"values": None}, "not iterable"),
        ({"runs": [1]}, "not a mapping"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "night.json"
    path.write_text(json.dumps({**night_record(full_night(), ()), **change}))
    with pytest.raises(InputError, match=re.escape(str(path))) as error:
        read_night(str(path))
    assert words in str(error.value) and "remove its folder" in str(error.value)


def test_a_cut_record_is_named_and_a_missing_one_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "night.json"
    path.write_bytes(night_bytes(full_night(), ())[:-100])
    with pytest.raises(InputError, match="cannot be read as the record of a night"):
        read_night(str(path))
    path.write_text("[]")
    with pytest.raises(InputError, match="expected keys with values"):
        read_night(str(path))
    with pytest.raises(FileNotFoundError):
        read_night(str(tmp_path / "none.json"))


# Writing


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


# What it says


def test_what_needs_somebody_comes_first() -> None:
    found = document(full_night(), before(), [ALERT])
    assert [s.heading for s in found.sections] == [
        "Alerts",
        "New checkpoints",
        "Waiting",
        "Broken",
        "Watched runs",
        "Forecasts for the end of training",
        "Run olmo",
        "Proxies at the newest checkpoint",
        "Measured scores at the newest checkpoint",
        "Ranking",
        "Also failed",
    ]
    assert found.sections[0].parts == (Warn("olmo: nothing.", "nothing_new"),)
    assert found.subtitle == (
        "1 alert, 2 new checkpoints, 1 waiting, 1 broken, 1 failed otherwise; the report before is of "
        f"{DAYS[1]}; nights without a report: {DAYS[1]}"
    )


def test_a_night_without_anything_says_so() -> None:
    found = document(night(0), (), ())
    assert [s.heading for s in found.sections] == [
        "Alerts",
        "New checkpoints",
        "Forecasts for the end of training",
        "Ranking",
    ]
    assert all(s.parts == (Text("None."),) for s in found.sections)
    assert found.subtitle.endswith("0 failed otherwise; the first report")


def test_new_waiting_and_broken_checkpoints() -> None:
    assert rows("New checkpoints", full_night()) == [
        {"run": "olmo", "step": 3000, "candidate": "olmo @ 3000", "source": "/checkpoints/olmo/step_3000"},
        {"run": "hub", "step": 7, "candidate": "hub @ 7", "source": "org/name@step7"},
    ]
    (waiting,) = rows("Waiting", full_night())
    assert (waiting["step"], waiting["why"]) == (4000, "no _SUCCESS in it yet")
    (broken,) = rows("Broken", full_night())
    assert (broken["step"], broken["since"]) == (2500, DAYS[1])
    assert broken["error"] == "model.safetensors is cut short."
    first, second = rows("Watched runs", full_night())
    assert (first["checkpoints"], first["newest step"], first["final step"]) == (3, 3000, FINAL)
    assert (second["checkpoints"], second["newest step"], second["final step"]) == (0, None, None)
    assert second["problem tonight"] == "the hub cannot be reached"


def test_forecasts_stand_beside_those_of_the_report_before() -> None:
    macro, sciq = rows("Forecasts for the end of training", full_night(), before())
    assert (macro["forecast"], macro["low"], macro["high"]) == (0.5123, 0.4623, 0.5623)
    assert (macro["at step"], macro["seen up to"]) == (FINAL, 3000)
    assert (macro["before"], macro["change"]) == (0.56, -0.0477)
    # The last report had none of sciq; the one before it is not the last.
    assert (sciq["before"], sciq["change"]) == (None, None)
    assert rows("Forecasts for the end of training", full_night())[0]["before"] is None
    (_, left_out) = [
        p for p in section("Forecasts for the end of training", full_night()).parts if isinstance(p, Grid)
    ]
    assert left_out.rows == (("hub", "macro", "no checkpoints"),)


def test_proxies_and_scores_at_the_newest_checkpoint() -> None:
    entropy = rows("Proxies at the newest checkpoint", full_night())
    assert [
        (r["proxy"], r["step"], r["value"], r["value before"], r["change"], r["now it is"]) for r in entropy
    ] == [
        ("cross_entropy__uniform", 3000, 2.5, 2.75, -0.25, "better"),
        ("top1_accuracy__uniform", 3000, 0.63, 0.62, 0.01, "better"),
        ("entropy__uniform", 3000, 0.4, 0.5, -0.1, None),  # nobody knows which direction is good
    ]
    (score,) = rows("Measured scores at the newest checkpoint", full_night())
    assert (score["metric"], score["value"], score["value before"], score["change"]) == (
        "acc",
        0.375,
        0.3125,
        0.0625,
    )
    worse = night(0, values=series([2.0, 2.5]))
    assert rows("Proxies at the newest checkpoint", worse)[0]["now it is"] == "worse"
    same = night(0, values=series([2.0, 2.0]))
    assert rows("Proxies at the newest checkpoint", same)[0]["now it is"] == "the same"


def test_a_single_checkpoint_has_no_change_and_no_zero() -> None:
    (row,) = rows("Proxies at the newest checkpoint", night(0, values=series([2.0])))
    assert (row["step before"], row["value before"], row["change"], row["now it is"]) == (None,) * 4


def test_the_ranking() -> None:
    first, second = rows("Ranking", full_night())
    assert first == {
        "rank": 1.0,
        "candidate": "olmo @ 3000",
        "rank__uniform": 40.49,
        "cross_entropy__uniform": 2.919,
        "measured": 0.405,
        "± se": 0.03457,
        "measured rank": 1.0,
    }
    assert (second["measured"], second["± se"], second["measured rank"]) == (None, None, None)
    parts = section("Ranking", full_night()).parts
    assert parts[0] == Warn("intervals say nothing about other candidates")
    assert parts[2].rows == (("mean of measured tasks", 3, 0.81, "rank__uniform", 0.98, 0.25),)


def test_a_long_ranking_and_long_tables_say_that_they_are_cut() -> None:
    many = ranking()
    many["candidates"] = [{**many["candidates"][0], "forecast_rank": float(i)} for i in range(31)]
    grid = section("Ranking", night(0, ranking=many)).parts[1]
    assert len(grid.rows) == 20
    assert grid.caption == "the first 20 of 31 candidates, by rank__uniform"
    failed = tuple({"candidate": str(i), "error": "x"} for i in range(1234))
    grid, text = section("Also failed", night(0, failed=failed)).parts
    assert len(grid.rows) == 100 and text == Text("The first 100 of 1,234 rows; all are in night.json.")


def test_no_ranking_says_why() -> None:
    assert section("Ranking", night(0, ranking_problem="one candidate")).parts == (
        Warn("one candidate", "no ranking"),
    )


def data(chart: dict[str, Any], layer: int) -> list[dict[str, Any]]:
    """Of a layer of the first panel."""
    panel = chart["concat"][0]
    return list((panel.get("data") or panel["layer"][layer]["data"])["values"])


def test_plots_of_a_run() -> None:
    plots = section("Run olmo", full_night(), before()).parts
    assert [type(p) for p in plots] == [Plot, Plot, Plot]
    proxies, scores, nights = (p.draw().to_dict() for p in plots)
    assert [panel["title"]["text"] for panel in proxies["concat"]] == [
        "cross_entropy__uniform",
        "top1_accuracy__uniform",
        "entropy__uniform",
    ]
    assert [row["value"] for row in data(proxies, 0)] == [3.25, 2.75, 2.5]
    assert [row["value"] for row in data(scores, 0)] == [0.25, 0.3125, 0.375]
    (at_end,) = data(scores, 3)
    assert at_end == {"step": FINAL, "value": 0.61, "low": 0.61 - 0.05, "high": 0.61 + 0.05}
    macro = data(nights, 0)
    assert [row["value"] for row in macro] == [0.5, 0.56, 0.5123]
    assert [row["night"] / 86_400_000 % 1 for row in macro] == [0, 0, 0]
    # One night is no course of nights.
    assert len(section("Run olmo", full_night()).parts) == 2


def test_many_panels_are_cut_and_it_is_said() -> None:
    values = tuple(Value("olmo", 1, f"task{i:02d}", "acc", 0.5) for i in range(30))
    text, plot = section("Run olmo", night(0, values=values)).parts
    assert text == Text("The first 12 of 30 measured tasks are drawn.")
    assert len(plot.draw().to_dict()["concat"]) == 12


# Markdown


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
    shown = re.sub(r"[\x00\x1b\u202e]", "", " ".join(text.split()))
    for made in (escaped(text), f"- {escaped(text)}", f"| {escaped(text)} |\n| --- |\n| {escaped(text)} |"):
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
    evil = night(
        0,
        new=(checkpoint(1, EVIL),),
        broken=(Broken(checkpoint(2, EVIL), EVIL, DAYS[0]),),
        runs=(WatchedRun(EVIL, (1,), DAYS[0], DAYS[0], None, EVIL),),
        values=(Value(EVIL, 1, EVIL, "cross_entropy__uniform", 1.0), Value(EVIL, 1, EVIL, EVIL, 1.0)),
        forecasts=(end(0.5, 1, run=EVIL, task=EVIL, metric=EVIL),),
        not_forecast=({"run": EVIL, "task": EVIL, "error": EVIL},),
        failed=({EVIL: EVIL, "error": EVIL},),
    )
    made = markdown(document(evil, (), [replace(ALERT, text=EVIL, rule=EVIL)]), "report.html")
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
    assert sum(t.type == "heading_open" for t in found) == 1 + 9
    # Every row of a table has as many cells as its head.
    widths: list[int] = []
    for token in found:
        if token.type == "tr_open":
            widths.append(0)
        elif token.type in ("td_open", "th_open"):
            widths[-1] += 1
    assert widths and set(widths) == {4, 5, 6, 11, 3, 9, 8, 2}


def test_numbers_of_the_markdown_are_those_of_the_tables() -> None:
    made = markdown(document(full_night(), before(), ()), "report.html")
    assert (
        "| olmo | macro | acc | 100000 | 3000 | 0.5123 | 0.4623 | 0.5623 | 0.56 | -0.0477 | combined |"
        in made
    )
    assert "| olmo | sciq | acc | 100000 | 3000 | 0.61 | 0.56 | 0.66 | – | – | combined |" in made
    assert "| olmo | gsm8k | cross_entropy__uniform | 3000 | 2.5 | 2000 | 2.75 | -0.25 | better |" in made
    assert "| 2 | olmo @ 2000 | 80.98 | 3.919 | – | – | – |" in made
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
    assert "<td class=number>0.5123</td><td class=number>0.4623</td><td class=number>0.5623</td>" in page
    assert page.index("nothing_new: a|b") < page.index("New checkpoints")
    for words in ("no _SUCCESS in it yet", "model.safetensors is cut short", "the hub cannot be reached"):
        assert words in page
