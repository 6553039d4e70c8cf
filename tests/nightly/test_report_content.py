"""What a report says: the order of its sections, the numbers of its tables and plots."""

from typing import Any

from nights import ALERT, DAYS, FINAL, before, full_night, night, ranking, series

from forecast.nightly.records import Night, Value
from forecast.nightly.report_content import document
from forecast.nightly.report_parts import Grid, Plot, Section, Text, Warn


def section(heading: str, of: Night, earlier: list[Night] | None = None) -> Section:
    (found,) = [s for s in document(of, earlier or [], ()).sections if s.heading == heading]
    return found


def rows(heading: str, of: Night, earlier: list[Night] | None = None) -> list[dict[str, Any]]:
    """The first table of a section."""
    grid = next(part for part in section(heading, of, earlier).parts if isinstance(part, Grid))
    return [dict(zip(grid.columns, row, strict=True)) for row in grid.rows]


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
