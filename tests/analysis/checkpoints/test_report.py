"""The report: frames, the cells of the document and what a terminal leaves out."""

import io

import polars as pl
import pytest
from analysis.checkpoints.simulated import World, cells, row_of
from rich.console import Console

from forecast.analysis.checkpoints.forecast import CheckpointsResult, forecast_checkpoints
from forecast.analysis.checkpoints.forecast_run import CheckpointsOptions
from forecast.analysis.checkpoints.report import document, record
from forecast.analysis.checkpoints.training_runs import build_runs
from forecast.report import html, terminal
from forecast.report.document import Document, Paragraph, Table, Warning


@pytest.fixture(scope="module")
def result() -> CheckpointsResult:
    """Two runs of two tasks and one at chance; a further task of the first begins after the window."""
    rows = [*cells(0, World(n_tasks=2, flat=1)), *cells(1, World(n_tasks=2, flat=1), run="b")]
    rows += [
        ("a", r[1], r[2], "late", *r[4:]) for r in rows if r[:1] + r[3:4] == ("a", "task0") and r[1] > 10_000
    ]
    read = [row_of(row) for row in rows]
    options = CheckpointsOptions("accuracy", ("bits_per_byte",), 10_000, horizons=(2.0, 4.0))
    return forecast_checkpoints(build_runs(read), options)


def tables(document: Document, heading: str) -> list[Table]:
    (section,) = (section for section in document.sections if section.heading == heading)
    return [part for part in section.parts if isinstance(part, Table)]


def test_frames_hold_every_row_of_the_result(result: CheckpointsResult) -> None:
    frames = result.frames()
    assert frames["forecasts"].height == len(result.rows)
    assert frames["summary"].height == len(result.summary)
    assert frames["duels"]["first"].to_list() == ["a"]
    assert frames["failed"]["task"].to_list() == ["late"]
    weights = frames["weights"].group_by("run").agg(pl.col("weight").sum())
    assert weights["weight"].to_list() == pytest.approx([1.0, 1.0])


def test_report_begins_with_the_answer_and_ends_with_notes(result: CheckpointsResult) -> None:
    sections = document(result, "x.csv").sections
    stop = result.decisions.stops[0]
    row = next(
        r for r in result.rows if (r.run, r.task, r.method, r.horizon) == ("a", stop.what, "combined", 4)
    )
    assert row.lower is not None and row.upper is not None
    answers = [part for part in sections[0].parts if isinstance(part, Paragraph)]
    assert len(answers) == 2
    for shown in (f"{row.predicted:.4f}", f"[{row.lower:.4f}, {row.upper:.4f}]", f"{stop.gain:+.4f}"):
        assert shown in answers[0].text
    assert sections[1].heading == "Decisions"
    assert sections[-1].heading == "Notes"
    warnings = [part.text for part in sections[-1].parts if isinstance(part, Warning)]
    assert warnings == list(result.warnings) != []
    assert not any(isinstance(part, Warning) for section in sections[:-1] for part in section.parts)


def test_errors_are_shown_per_horizon_with_members_on_request(result: CheckpointsResult) -> None:
    heading = "Error against horizon: run a"
    short, every = tables(document(result, "x.csv"), heading)
    assert [column.label for column in short.columns[:5]] == ["method", "kind", "2x", "4x", "8x"]
    combined = [row for row in result.summary if row.run == "a" and row.method == "combined"]
    cells = dict(zip((c.label for c in short.columns), short.cells()[-1], strict=True))
    assert [cells[f"{horizon}x"] for horizon in (2, 4, 8)] == [f"{row.rmse:.4f}" for row in combined]
    assert cells["|error| at horizon"] == f"{combined[-1].error_at_horizon:.4f}"
    assert every.wide_only and set(every.frame["kind"]) == {"baseline", "proxy", "reference", "combined"}
    assert "member" in set(tables(document(result, "x.csv", members=True), heading)[0].frame["kind"])


def test_tasks_without_signal_or_forecast_are_marked(result: CheckpointsResult) -> None:
    short, every, weights = tables(document(result, "x.csv"), "Run a")
    by_task = {cells[0]: cells for cells in short.cells()}
    row = next(
        r for r in result.rows if (r.run, r.task, r.method, r.horizon) == ("a", "task0", "combined", 2)
    )
    assert row.lower is not None and row.upper is not None and row.actual is not None
    shown = f"{row.predicted:.3f} {row.lower:.3f}..{row.upper:.3f} ({row.actual:.3f})"
    assert by_task["task0"][2] == shown
    assert by_task["late *"][1:] == ["–"] * 4
    notes = dict(zip(every.frame["task"], every.frame["note"], strict=True))
    assert notes["task0"] is None
    assert str(notes["flat0"]).startswith("too little signal")
    assert "5 are needed" in str(notes["late"])
    assert weights.frame["weight"].is_sorted(descending=True)


def test_charts_and_long_tables_are_only_in_the_page(result: CheckpointsResult) -> None:
    made = document(result, "x.csv", members=True)
    console = Console(file=io.StringIO(), width=160)
    console.print(terminal.render(made))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "P(first above)" in shown and "best checkpoint so far" in shown
    assert "every horizon" not in shown and "Not forecast" not in shown and "Methods" not in shown
    page = html.render(made)
    assert page.count("<svg") == 5
    assert "every horizon" in page and "Not forecast" in page and "Methods" in page


def test_record_hides_members_unless_asked(result: CheckpointsResult) -> None:
    kinds = {
        members: {r["kind"] for r in record(result, "x.csv", members)["rows"]} for members in (False, True)
    }
    assert kinds[True] - kinds[False] == {"member"}
