"""What a run of the real command line leaves about itself, also where it was killed."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driving import kill_driver, run_forecast, start_forecast, wait_for_files

from forecast.runs.status_file import read_runs

Make = Callable[..., Path]

pytestmark = pytest.mark.slow  # half a minute


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_killed_run_is_lost_and_the_next_counts_its_units(make_config: Make, tmp_path: Path) -> None:
    candidates = {"a": "fake://1?delay=0.4", "b": "fake://2?delay=0.4", "bad": "fake://3?fail=load"}
    config, output = make_config(candidates, shard_trajectories=2), tmp_path / "out-run"
    driver = start_forecast("score", config)
    wait_for_files(output / "lake", 2)
    kill_driver(driver)
    (killed,) = read_runs(str(output), lambda: time.time() + 61)
    assert (killed["state"], killed["units"], killed["job"]) == ("lost", 18, None)
    assert "run the same command again" in killed["error"]
    before = len(list((output / "lake").rglob("*.parquet")))
    assert 2 <= before < 12

    code, _, err = run_forecast("score", config, "--json", FORECAST_LOG="json")
    assert code == 3, err
    status, lost = read_runs(str(output), lambda: time.time() + 61)
    assert lost["run"] == killed["run"]
    assert (status["state"], status["already_done"], status["committed"]) == ("done", before, 12)
    assert status["tokens_per_second"] > 0 and status["seconds"] > 0
    states = {c["candidate"]: (c["state"], c["committed"], c["error"]) for c in status["candidates"]}
    assert states["a"] == states["b"] == ("done", 6, None)
    assert states["bad"][:2] == ("failed", 0) and "asked to fail while loading" in states["bad"][2]

    # The structured log: the same on standard error, in place of lines for people, and in the file.
    told = lines_of(err)
    assert "tokens/s" not in err
    kept = lines_of((output / "runs" / f"{status['run']}.log.jsonl").read_text())
    assert told == kept
    committed = [line["shard"] for line in kept if line["event"] == "committed"]
    assert len(committed) == len(set(committed)) == 12 - before
    assert {line["candidate"] for line in kept if line["event"] == "committed"} <= {"a", "b"}
    assert sum(line["tokens"] for line in kept if line["event"] == "committed") == status["tokens_read"]
    assert (kept[0]["event"], kept[-1]["event"], kept[-1]["state"]) == ("started", "ended", "done")
    assert sum(line["event"] == "retried" for line in kept) == status["retries"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_has_status_interrupted(
    sent: signal.Signals, code: int, make_config: Make, tmp_path: Path
) -> None:
    driver = start_forecast("score", make_config({"slow": "fake://1?delay=0.4"}))
    wait_for_files(tmp_path / "out-run" / "lake", 1)
    # An impatient user; Ray takes the handler of SIGTERM away for a moment: that one is sent once.
    for _ in range(3 if sent == signal.SIGINT else 1):
        driver.send_signal(sent)
        time.sleep(0.2)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == code and "run the same command again to resume" in err
    assert "***" not in err and "Traceback" not in err
    (status,) = read_runs(str(tmp_path / "out-run"))
    assert (status["state"], status["seconds_left"]) == ("interrupted", None)
    assert status["committed"] < 3
