"""`forecast extrapolate`: what it answers, writes and refuses; on tables and on a warehouse."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer
from analysis.checkpoints.simulated import Cell, World, cells, csv_of
from typer.testing import CliRunner

from forecast.analysis.checkpoints.methods import METHODS
from forecast.analysis.checkpoints.runs_from_run import runs_of
from forecast.cli.checkpoints import extrapolate
from forecast.errors import ConfigError, ForecastError, InputError, NoDataError

app = typer.Typer()
app.command()(extrapolate)

ASKED = ["--proxy", "bits_per_byte", "--target", "accuracy", "--fit-until", "10000"]


def call(folder: Path, rows: Sequence[Cell], *options: str) -> Any:
    path = folder / "run.csv"
    path.write_text(csv_of(rows))
    return CliRunner().invoke(app, ["--table", str(path), *ASKED, *options])


def answer(folder: Path, rows: Sequence[Cell], *options: str) -> dict[str, Any]:
    result = call(folder, rows, "--json", *options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_answer_has_a_row_for_every_run_task_method_and_horizon(tmp_path: Path) -> None:
    rows = [*cells(0, World(n_tasks=2)), *cells(1, World(n_tasks=2), run="b")]
    found = answer(tmp_path, rows, "--members")
    keys = [(r["run"], r["task"], r["method"], r["horizon"]) for r in found["rows"]]
    assert len(keys) == len(set(keys)) == 2 * 3 * len(METHODS) * 4
    for row in found["rows"]:
        if row["horizon"] <= 8:
            assert row["rmse"] is not None
            assert row["error"] == pytest.approx(row["predicted"] - row["actual"])
        else:
            assert row["rmse"] is None
            assert row["predicted"] is not None
            assert "the last checkpoint to compare with is step 80000" in row["reason"]
    assert {line["run"] for line in found["summary"]} == {"a", "b", "all runs"}
    assert len(found["verdicts"]) == 9
    assert len(found["decisions"]["duels"]) == 1
    assert any("web" in warning and "cross_entropy" in warning for warning in found["warnings"])
    plain = answer(tmp_path, rows)
    assert {r["method"] for r in plain["rows"]} == {m.name for m in METHODS if m.kind != "member"}


def test_tables_and_page_are_written(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = call(
        tmp_path, cells(0, World(n_tasks=2, flat=1)), "--html", str(page), "--horizon", "4", "--all"
    )
    assert result.exit_code == 0, result.output
    for word in ("combined", "skill", "best checkpoint so far", "too little"):
        assert word in result.output
    text = page.read_text()
    assert text.count("<svg") >= 1
    assert "too little signal" in text
    assert "<script" not in text


def test_a_run_without_later_checkpoints_is_only_predicted(tmp_path: Path) -> None:
    rows = [row for row in cells(0, World(n_tasks=1)) if row[1] <= 10_000]
    found = answer(tmp_path, rows, "--horizon", "18")
    assert {row["horizon"] for row in found["rows"]} == {18.0}
    assert all(
        row["predicted"] is not None and row["actual"] is None and row["rmse"] is None
        for row in found["rows"]
    )
    assert found["summary"] == []


def test_a_window_beyond_the_run_is_all_of_it_and_says_so(tmp_path: Path) -> None:
    rows = [row for row in cells(0, World(n_tasks=1)) if row[1] <= 10_000]
    here, beyond = answer(tmp_path, rows), answer(tmp_path, rows, "--fit-until", "99999")
    assert [r["predicted"] for r in here["rows"]] == [r["predicted"] for r in beyond["rows"]]
    assert any("ends at step 10000, before --fit-until 99999" in w for w in beyond["warnings"])


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (["--fit-until", "4000"], NoDataError, "4 checkpoints with accuracy up to step 4000.*5 are needed"),
        (["--fit-until", "10"], NoDataError, "0 checkpoints with accuracy"),
        (["--proxy", "bits_per_bytes"], ConfigError, "did you mean 'bits_per_byte'"),
        (["--target", "accuracies"], ConfigError, "did you mean 'accuracy'"),
        (["--cross-entropy", "cross_entropi"], ConfigError, "did you mean 'cross_entropy'"),
        (["--cross-entropy", "cross_entropy:webb"], ConfigError, "did you mean 'web'"),
        (["--chance", "task9=0.25"], ConfigError, "no such task; did you mean 'task0'"),
        (["--chance", "task0"], ConfigError, "expected TASK=P"),
        (["--horizon", "1"], ConfigError, "expected more than 1"),
    ],
)
def test_wrong_questions_are_refused_with_what_to_do(
    tmp_path: Path, options: list[str], kind: type[ForecastError], message: str
) -> None:
    result = call(tmp_path, cells(0, World(n_tasks=1)), *options)
    assert isinstance(result.exception, kind)
    with pytest.raises(kind, match=message):
        raise result.exception


def test_a_task_with_too_few_checkpoints_is_a_null_and_the_exit_code_says_so(tmp_path: Path) -> None:
    rows = [row for row in cells(0, World(n_tasks=2)) if row[3] != "task1" or row[1] > 7000]
    result = call(tmp_path, rows, "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    nulls = [row for row in found["rows"] if row["task"] == "task1"]
    assert nulls
    assert all(row["predicted"] is None and "5 are needed" in row["reason"] for row in nulls)
    assert found["failed"][0]["task"] == "task1"


def test_neither_and_both_sources_are_refused(tmp_path: Path) -> None:
    for arguments in ([], [str(tmp_path / "x.yaml"), "--table", "x.csv"], ["--table", "x.csv"]):
        assert isinstance(CliRunner().invoke(app, arguments).exception, ConfigError)


@pytest.fixture
def warehouse() -> duckdb.DuckDBPyConnection:
    """Six checkpoints of one run, and a candidate that is none."""
    db = duckdb.connect()
    text = (files("forecast.warehouse") / "sql" / "tables.sql").read_text(encoding="utf-8")
    db.execute(text.replace("{proxy_columns}", "cross_entropy__uniform DOUBLE"))
    db.execute("CREATE TABLE task_proxies (candidate_id VARCHAR, task VARCHAR, proxy VARCHAR, value DOUBLE)")
    for k in range(1, 8):
        step = 1000 * k if k < 7 else None
        db.execute(
            "INSERT INTO candidates (place, candidate, candidate_id, family, step, training_tokens, status) "
            "VALUES (?, ?, ?, 'mine', ?, ?, 'complete')",
            [k, f"c{k}", f"id{k}", step, k * 2000],
        )
        db.execute(
            "INSERT INTO task_proxies VALUES (?, 'proofs', 'cross_entropy__uniform', ?)", [f"id{k}", 3.0 / k]
        )
        db.execute(
            "INSERT INTO measured (candidate, task, metric, value) VALUES (?, 'sciq', 'acc', ?)",
            [f"c{k}", 0.1 * k],
        )
    return db


def test_checkpoints_of_a_warehouse_are_a_run(warehouse: duckdb.DuckDBPyConnection) -> None:
    runs, target = runs_of(warehouse)
    assert target == "acc"
    (run,) = runs.runs
    assert (run.name, run.axis) == ("mine", "tokens")
    assert run.of("acc")["sciq"].step.tolist() == [1000.0 * k for k in range(1, 7)]
    assert run.of("cross_entropy__uniform")["proofs"].t.tolist() == [2000.0 * k for k in range(1, 7)]


def test_a_warehouse_that_cannot_serve_says_why(warehouse: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(ConfigError, match="no measured score is a 'accc'; did you mean 'acc'"):
        runs_of(warehouse, "accc")
    warehouse.execute("UPDATE candidates SET step = 1000 WHERE candidate = 'c2'")
    with pytest.raises(InputError, match="c1, c2 are all step 1000 of run 'mine'"):
        runs_of(warehouse)
    warehouse.execute("UPDATE candidates SET step = NULL")
    with pytest.raises(NoDataError, match="no complete candidate has a `step`"):
        runs_of(warehouse)
