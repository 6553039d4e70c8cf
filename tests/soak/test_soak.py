"""The soak script in short, with made-up candidates; and whether it would notice what it looks for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from soak.disturbed import KILLED, KINDS
from soak.run import differences
from soak.surroundings import possible

ROWS = pl.DataFrame(
    {
        "candidate_id": ["a"] * 3 + ["b"] * 3,
        "task": ["t"] * 6,
        "expert": ["human"] * 6,
        "instance_id": ["0", "0", "1"] * 2,
        "position": [0, 1, 0] * 2,
        "logprob": [-0.5, -1.5, -2.5, -0.25, -1.25, None],
    }
)
NONE = {"rows": 6, "rows_lost": 0, "rows_doubled": 0, "rows_foreign": 0, "rows_changed": 0}


def test_equal_rows_in_any_order_differ_in_nothing() -> None:
    assert differences(ROWS, ROWS) == NONE
    assert differences(ROWS, ROWS.sample(fraction=1, shuffle=True, seed=0)) == NONE


def test_every_kind_of_difference_is_counted() -> None:
    assert differences(ROWS, ROWS[1:]) == NONE | {"rows_lost": 1}
    assert differences(ROWS, pl.concat([ROWS, ROWS[2:4]])) == NONE | {"rows_doubled": 2}
    foreign = ROWS[:1].with_columns(pl.lit("c").alias("candidate_id"))
    assert differences(ROWS, pl.concat([ROWS, foreign])) == NONE | {"rows_foreign": 1}
    nearly = ROWS.with_columns(pl.col("logprob") - pl.Series([0.0, 0.0, 1e-12, 0.0, 0.0, 0.0]))
    assert differences(ROWS, nearly) == NONE | {"rows_changed": 1}
    # A row of which there are two that say different things is doubled, and one of them may pass as right.
    assert differences(ROWS, pl.concat([ROWS, nearly[2:3]]))["rows_doubled"] == 1


def recorded(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The record of the script over made-up candidates, whose tables must be the undisturbed ones."""
    out = tmp_path / "record.json"
    script = Path(__file__).with_name("run.py")
    command = [sys.executable, str(script), "--made-up", "--seed", "1", "--out", str(out), *arguments]
    ran = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=700)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    record: dict[str, Any] = json.loads(out.read_text())
    assert record["equal"] and record["ranking_equal"]
    assert record["compared"]["lake"] == NONE | {"rows": record["compared"]["lake"]["rows"]}
    assert record["compared"]["lake"]["rows"] > 0
    return record


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_six_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    record = recorded(tmp_path, "--faults", "6")
    assert record["faults_in_all"] == 6 and record["faults"].keys() == set(KILLED)
    # A driver or a head that is killed takes the command with it.
    assert record["commands_issued_again"]["driver killed"] == record["faults"]["driver"]
    assert record["commands_issued_again"]["head killed"] == record["faults"]["head"]
    assert not record["given_up"]
    # What was lost in flight was handed out again, and nothing that was done.
    assert record["tokens_handed_out"] > record["tokens_undisturbed"]


@pytest.mark.slow
@pytest.mark.timeout(800)
@pytest.mark.skipif(not possible(), reason="namespaces of one's own need Linux, unshare and ip")
def test_seven_other_faults_change_nothing(tmp_path: Path) -> None:
    record = recorded(tmp_path, "--faults", "7", "--kinds", "other")
    assert record["faults_in_all"] == 7 and record["faults"].keys() == set(KINDS) - set(KILLED)
