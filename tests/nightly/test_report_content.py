"""What a report says: the order of its sections, the numbers of its tables and plots."""

from dataclasses import replace
from typing import Any

from nights import (
    ALERT,
    DAYS,
    FINAL,
    before,
    best_by,
    checkpoint,
    compared,
    full_night,
    night,
    ranking,
    series,
)

from forecast.nightly.answer import answers
from forecast.nightly.records import Broken, Night, Value, WatchedRun
from forecast.nightly.report import document, frames
from forecast.report.document import Chart, Paragraph, Section, Table, Warning
from forecast.report.format import MISSING


def section(heading: str, of: Night, earlier: list[Night] | None = None) -> Section:
    (found,) = [s for s in document(of, earlier or [], ()).sections if s.heading == heading]
    return found


def rows(name: str, of: Night, earlier: list[Night] | None = None) -> list[dict[str, Any]]:
    """One table of the report."""
    return frames(of, earlier[-1] if earlier else None)[name].to_dicts()


def rounded(row: dict[str, Any], *names: str) -> list[float]:
    return [round(row[name], 9) for name in names]


def test_what_needs_somebody_comes_first() -> None:
    found = document(full_night(), before(), [ALERT])
    assert [s.heading for s in found.sections] == [
        "Best so far",
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
    assert found.sections[1].parts == (Warning("olmo: nothing.", "nothing_new"),)
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
    assert all(s.parts == (Paragraph("None."),) for s in found.sections)
    assert found.subtitle.endswith("0 failed otherwise; the first report")


def test_new_waiting_and_broken_checkpoints() -> None:
    assert rows("new", full_night()) == [
        {"run": "olmo", "step": 3000, "candidate": "olmo @ 3000", "source": "/checkpoints/olmo/step_3000"},
        {"run": "hub", "step": 7, "candidate": "hub @ 7", "source": "org/name@step7"},
    ]
    (waiting,) = rows("waiting", full_night())
    assert (waiting["step"], waiting["reason"]) == (4000, "no _SUCCESS in it yet")
    (broken,) = rows("broken", full_night())
    assert (broken["step"], broken["since"]) == (2500, DAYS[1])
    assert broken["error"] == "model.safetensors is cut short."
    first, second = rows("runs", full_night())
    assert (first["checkpoints"], first["newest_step"], first["final_step"]) == (3, 3000, FINAL)
    assert (second["checkpoints"], second["newest_step"], second["final_step"]) == (0, None, None)
    assert second["problem"] == "the hub cannot be reached"


def test_forecasts_stand_beside_those_of_the_report_before() -> None:
    macro, sciq = rows("forecasts", full_night(), before())
    assert rounded(macro, "forecast", "low", "high") == [0.5123, 0.4623, 0.5623]
    assert (macro["step"], macro["fit_until"]) == (FINAL, 3000)
    assert (macro["earlier"], macro["change"]) == (0.56, -0.0477)
    # The last report had none of sciq; the one before it is not the last.
    assert (sciq["earlier"], sciq["change"]) == (None, None)
    assert rows("forecasts", full_night())[0]["earlier"] is None
    assert rows("not_forecast", full_night()) == [{"run": "hub", "task": "macro", "error": "no checkpoints"}]
    forecasts, left_out = section("Forecasts for the end of training", full_night(), before()).parts
    assert isinstance(forecasts, Table) and isinstance(left_out, Table)
    assert forecasts.caption == f"low, high: 90% interval; before: in the report of {DAYS[1]}"
    assert left_out.cells() == [["hub", "macro", "no checkpoints"]]


def test_proxies_and_scores_at_the_newest_checkpoint() -> None:
    found = rows("proxies", full_night())
    assert [(r["metric"], r["step"], r["verdict"]) for r in found] == [
        ("cross_entropy__uniform", 3000, "better"),
        ("entropy__uniform", 3000, None),  # direction unknown
        ("top1_accuracy__uniform", 3000, "no different"),
    ]
    assert [rounded(r, "value", "best_value", "change") for r in found if r["verdict"]] == [
        [2.5, 2.75, -0.25],
        [0.63, 0.62, 0.01],
    ]
    (score,) = rows("scores", full_night())
    assert (score["metric"], score["value"], score["best_value"], score["change"]) == (
        "acc",
        0.375,
        0.3125,
        0.0625,
    )


def test_a_checkpoint_that_gained_on_a_spike_alone_is_worse_than_the_best_so_far() -> None:
    values = series([4.9, 4.36, 5.92, 5.71])
    spike = night(0, values=values, comparisons=compared(values), best_so_far=(best_by(compared(values)),))
    (row,) = rows("proxies", spike)
    assert (row["verdict"], row["best_step"], row["best_value"]) == ("worse", 2000, 4.36)
    (answer,) = answers(
        replace(spike, runs=(WatchedRun("olmo", (1000, 2000, 3000, 4000), None, DAYS[0], None),))
    )
    assert "4,000 (5.71), is worse than" in answer and "step 2,000 (4.36" in answer


def test_the_answer_names_broken_checkpoints_that_are_newer_than_the_newest_scored() -> None:
    broken = (Broken(checkpoint(2500), "x", DAYS[0]), Broken(checkpoint(4000), "x", DAYS[0]))
    first, second = answers(replace(full_night(), broken=broken))
    assert "4,000" in first and "2,500" not in first and "4,000" not in second


def test_the_first_checkpoint_has_no_change_and_no_zero() -> None:
    values = series([2.0])
    (row,) = rows("proxies", night(0, values=values, comparisons=compared(values)))
    assert [row[name] for name in ("best_step", "best_value", "change", "low")] == [None] * 4
    assert row["verdict"] == "the first"


def test_checkpoints_of_one_run_stand_along_their_steps_and_are_not_ranked() -> None:
    only = ranking()
    only["candidates"] = only["candidates"][:1]
    table = section("Run olmo", replace(full_night(), ranking=only)).parts[0]
    assert isinstance(table, Table)
    assert table.frame["step"].to_list() == [1000, 2000, 3000]
    assert table.frame["is_best"].to_list() == [False, False, True]
    assert all(
        isinstance(part, Warning) or part.columns[0].name == "target"
        for part in section("Ranking", replace(full_night(), ranking=only)).parts
    )


def test_the_ranking() -> None:
    assert rows("standings", full_night())[0] == {
        "forecast_rank": 1.0,
        "rank_low": 1.0,
        "rank_high": 2.0,
        "p_above_next": 0.75,
        "candidate": "olmo @ 3000",
        "rank__uniform": 40.49,
        "cross_entropy__uniform": 2.919,
        "measured": 0.405,
        "measured_stderr": 0.034567,
        "measured_rank": 1.0,
    }
    warning, standings, targets = section("Ranking", full_night()).parts
    assert warning == Warning("intervals say nothing about other candidates")
    assert isinstance(standings, Table) and isinstance(targets, Table)
    assert [column.label for column in standings.columns] == [
        "rank",
        "interval",
        "P(above next)",
        "candidate",
        "rank__uniform",
        "cross_entropy__uniform",
        "measured",
        "± se",
        "measured rank",
    ]
    assert standings.cells()[0] == [
        "1",
        "[1, 2]",
        "0.75",
        "olmo @ 3000",
        "40.49",
        "2.919",
        "0.405",
        "0.03457",
        "1",
    ]
    assert standings.cells()[1][6:] == [MISSING] * 3
    assert targets.cells() == [["mean of measured tasks", "3", "0.81", "rank__uniform", "0.98", "0.25"]]


def test_a_long_ranking_and_long_tables_say_that_they_are_cut() -> None:
    many = ranking()
    many["candidates"] = [{**many["candidates"][0], "forecast_rank": float(i)} for i in range(31)]
    table = section("Ranking", night(0, ranking=many)).parts[1]
    assert isinstance(table, Table) and table.frame.height == 20
    assert table.caption == "the first 20 of 31 candidates, by rank__uniform: beats its null"
    failed = tuple({"candidate": str(i), "error": "x"} for i in range(1234))
    assert len(rows("failed", night(0, failed=failed))) == 1234
    table, text = section("Also failed", night(0, failed=failed)).parts
    assert isinstance(table, Table) and table.frame.height == 100
    assert text == Paragraph("The first 100 of 1,234 rows; all in night.json.")


def test_no_ranking_says_why() -> None:
    assert section("Ranking", night(0, ranking_problem="one candidate")).parts == (
        Warning("one candidate", "no ranking"),
    )


def data(chart: dict[str, Any], layer: int) -> list[dict[str, Any]]:
    """Of a layer of the first panel."""
    panel = chart["concat"][0]
    return list((panel.get("data") or panel["layer"][layer]["data"])["values"])


def test_plots_of_a_run() -> None:
    table, *plots = section("Run olmo", full_night(), before()).parts
    assert isinstance(table, Table)
    assert [type(p) for p in plots] == [Chart, Chart, Chart]
    proxies, scores, nights = (p.build().to_dict() for p in plots if isinstance(p, Chart))
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
    assert len(section("Run olmo", full_night()).parts) == 3


def test_many_panels_are_cut_and_it_is_said() -> None:
    values = tuple(Value("olmo", 1, f"task{i:02d}", "acc", 0.5) for i in range(30))
    text, plot = section("Run olmo", night(0, values=values)).parts
    assert text == Paragraph("The first 12 of 30 measured tasks are drawn.")
    assert len(plot.build().to_dict()["concat"]) == 12
