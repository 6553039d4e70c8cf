"""Scoring over Ray: failures of candidates stay theirs, killed processes lose and double nothing."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from driving import kill_an_actor, kill_driver, lake_rows, run_forecast, start_forecast, wait_for_files

Make = Callable[..., Path]


@pytest.mark.slow
def test_failing_candidates_leave_others_complete(make_config: Make, tmp_path: Path) -> None:
    config = make_config(
        {
            "good": "fake://3",
            "fair": "fake://2",
            "unloadable": "fake://1?fail=load",
            "damaged": "fake://1?fail=nan",
            "deadly": "fake://1?fail=crash",
        }
    )
    code, out, err = run_forecast("score", config, "--json")
    record = json.loads(out)
    assert code == 3, err
    done = {c["candidate"]: (c["done"], c["units"]) for c in record["candidates"]}
    assert done == {"good": (3, 3), "fair": (3, 3), "unloadable": (0, 3), "damaged": (0, 3), "deadly": (0, 3)}
    errors = {entry["candidate"]: entry["error"] for entry in record["failed"]}
    assert errors.keys() == {"unloadable", "damaged", "deadly"}
    assert "asked to fail while loading" in errors["unloadable"]
    assert "NaN" in errors["damaged"] and "task 'sums'" in errors["damaged"]
    assert "given up after 3 attempts" in errors["deadly"] and "died" in errors["deadly"]
    rows = lake_rows(tmp_path / "out-run" / "lake")
    assert record["rows"] == rows.height > 0
    assert rows["candidate_id"].n_unique() == 2

    # The ranking shows the complete ones and goes on naming the failed ones.
    assert run_forecast("aggregate", config)[0] == 3
    code, out, _ = run_forecast("rank", config, "--json")
    ranked = json.loads(out)
    assert code == 3
    assert [c["candidate"] for c in ranked["candidates"]] == ["good", "fair"]
    assert {entry["candidate"] for entry in ranked["failed"]} == {"unloadable", "damaged", "deadly"}


def test_failing_candidate_is_quarantined_until_its_retry(make_config: Make, tmp_path: Path) -> None:
    config = make_config({"good": "fake://3", "damaged": "fake://1?fail=nan"}, cluster={"attempts": 2})
    assert run_forecast("score", config)[0] == 3
    (held,) = (tmp_path / "out-run" / "quarantine").iterdir()
    assert json.loads(held.read_text())["tries"] == 1, "the same again would give the same error"
    # Nothing is left to do, so Ray is not even started.
    code, out, err = run_forecast("score", config, "--json", "--address", "127.0.0.1:1")
    assert code == 3, err
    (failure,) = json.loads(out)["failed"]
    assert failure["candidate"] == "damaged" and "in quarantine since" in failure["error"]
    code, _, err = run_forecast("score", config, "--retry", "--address", "127.0.0.1:1")
    assert code == 1 and "1 released from quarantine" in err and "no Ray cluster answers" in err
    assert not held.exists()


@pytest.mark.slow
def test_experts_with_shared_prompts_have_separate_files(make_config: Make, tmp_path: Path) -> None:
    sources = [{"task": "sums", "path": "solutions.jsonl", "expert": expert} for expert in ("human", "other")]
    config = make_config({"a": "fake://2"}, trajectories=sources)
    code, out, err = run_forecast("score", config, "--json")
    assert code == 0, err
    rows = lake_rows(tmp_path / "out-run" / "lake")
    own, others = (rows.filter(rows["expert"] == expert).drop("expert") for expert in ("human", "other"))
    assert own.height > 0 and own.sort(own.columns).equals(others.sort(own.columns))
    (done,) = json.loads(out)["candidates"]
    assert done["done"] == done["units"] == len(list((tmp_path / "out-run" / "lake").rglob("*.parquet"))) == 6


@pytest.mark.slow
def test_killed_driver_and_actors_neither_lose_nor_double_rows(make_config: Make, tmp_path: Path) -> None:
    candidates = {name: f"fake://{i}?delay=0.1" for i, name in enumerate(("a", "b", "c", "d"))}
    calm, hit = make_config(candidates, "calm"), make_config(candidates, "hit")
    assert run_forecast("run", calm)[0] == 0

    # First the driver dies, as hard as it gets, in the middle of its work.
    lake = tmp_path / "out-hit" / "lake"
    driver = start_forecast("score", hit)
    wait_for_files(lake, 2)
    kill_driver(driver)
    written = {path: path.stat().st_mtime_ns for path in lake.rglob("*.parquet")}
    assert 0 < len(written) < 12

    # Then, in the re-issued command, an actor.
    driver = start_forecast("run", hit, "--json")
    wait_for_files(lake, len(written) + 1)
    kill_an_actor(psutil.Process(driver.pid))
    out, err = driver.communicate(timeout=240)
    assert driver.returncode == 0, err
    record = json.loads(out)
    assert record["score"]["done"] == record["score"]["units"] == 12
    for path, changed in written.items():
        assert path.stat().st_mtime_ns == changed, "a finished unit was done again"
    assert not list(lake.rglob(".*")), "something half-written was left"

    assert lake_rows(lake).equals(lake_rows(tmp_path / "out-calm" / "lake"))
    ranking_of_calm = json.loads(run_forecast("rank", calm, "--json")[1])
    ranking_of_calm.pop("held_out")  # what `rank` goes on to ask, and `run` does not
    assert record["rank"] == ranking_of_calm

    # And a third time there is nothing left to do.
    started = {path: path.stat().st_mtime_ns for path in lake.rglob("*.parquet")}
    code, out, _ = run_forecast("score", hit, "--json")
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in lake.rglob("*.parquet")} == started


@pytest.mark.slow
def test_interruption_prints_how_to_resume(make_config: Make, tmp_path: Path) -> None:
    config = make_config({"slow": "fake://1?delay=0.2"})
    driver = start_forecast("score", config)
    wait_for_files(tmp_path / "out-run" / "lake", 1)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "run the same command again to resume" in err
    assert run_forecast("score", config)[0] == 0


def test_address_without_a_cluster_is_one_error(make_config: Make) -> None:
    code, out, err = run_forecast("score", make_config({"a": "fake://1"}), "--address", "127.0.0.1:1")
    assert code == 1
    assert out == ""
    assert "no Ray cluster answers at 127.0.0.1:1" in err


def test_too_many_actors_are_refused_before_the_start(make_config: Make, tmp_path: Path) -> None:
    config = make_config({"a": "fake://1"}, cluster={"actors": 3, "gpus_per_actor": 1})
    code, _, err = run_forecast("score", config, HOME=str(tmp_path), RAY_AUTH_MODE="token")
    assert code == 1
    assert not (tmp_path / ".ray").exists(), "Ray left a token, for which every later head would ask"
    assert "need 3 scoring processes of 1 CPU and 1 GPU, cluster has 0 GPUs" in err
    assert not (tmp_path / "out-run" / "lake").exists()
