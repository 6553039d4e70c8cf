"""Everything that watches a run, together: how a run ends is in its file, whatever the end was."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from watched import plan_of, receipt

from forecast.api.subscribers import watched
from forecast.cli.scoring import print_event, progress_bars
from forecast.errors import ConfigError, ForecastError
from forecast.plan import Failure, Plan
from forecast.runs.status import RunStatus
from forecast.runs.status_file import log_path, read_runs


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of(tmp_path, {"a": 5, "b": 5})


def told_of(plan: Plan, then: BaseException | None = None) -> dict[str, Any]:
    """What the file says of a run of one unit that ends in this way."""
    status = RunStatus(plan, ())
    expected = [] if then is None else [type(then)]
    with contextlib.suppress(*expected), watched(status, print_event, progress_bars()) as subscriber:
        subscriber.started(plan.units, 1)
        subscriber.handed_out(plan.units[:2], 0)
        subscriber.committed(plan.units[0], receipt(8))
        subscriber.gave_up(Failure("candidate", "b", "no weights"))
        subscriber.beat()
        if then is not None:
            raise then
    (record,) = read_runs(plan.config.output)
    assert record["run"] == status.run and record["committed"] == 1
    return record


@pytest.mark.parametrize(
    ("then", "state", "error"),
    [
        (None, "done", None),
        (KeyboardInterrupt(), "interrupted", "interrupted; run the same command again to resume"),
        (ForecastError("no machine"), "failed", "no machine"),
        (MemoryError(), "failed", "MemoryError"),
        (SystemExit(3), "failed", "3"),
    ],
)
def test_how_a_run_ended(plan: Plan, then: BaseException | None, state: str, error: str | None) -> None:
    record = told_of(plan, then)
    assert (record["state"], record["error"]) == (state, error)
    lines = Path(log_path(plan.config.output, record["run"])).read_text().splitlines()
    last = json.loads(lines[-1])
    assert (last["event"], last["state"], last["error"]) == ("ended", state, error)


def test_one_more_place_for_the_status(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORECAST_STATUS_FILE", str(tmp_path / "served" / "status.json"))
    monkeypatch.setenv("FORECAST_LOG", "json")
    record = told_of(plan)
    assert json.loads((tmp_path / "served" / "status.json").read_bytes()) == record
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["started", "handed_out", "committed", "gave_up", "ended"]


def test_an_unknown_form_of_log(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORECAST_LOG", "xml")
    with (
        pytest.raises(ConfigError, match="FORECAST_LOG is 'xml'; expected json"),
        watched(RunStatus(plan, ()), print_event, progress_bars()),
    ):
        pytest.fail("it began")
    assert read_runs(plan.config.output) == ()


def test_a_full_disk_ends_no_run(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(plan.config.output)
    folder.mkdir()
    (folder / "runs").write_text("in the way")
    with watched(RunStatus(plan, ()), print_event, progress_bars()) as subscriber:
        subscriber.started(plan.units, 1)
        subscriber.committed(plan.units[0], receipt(8))
    said = capsys.readouterr().err
    assert said.count("cannot be written") == 2, "the status and the log, once each"
    assert "1/8 units" in said
