"""A whole run whose inputs and results lie on an object store, over HTTP, against the same run on a disk."""

import json
import os
import time
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.fs as pafs
import pytest
import yaml
from driving import kill_driver, run_forecast, start_forecast

from forecast import storage

pytestmark = pytest.mark.slow  # several runs on Ray

ROWS = [
    {"prompt": f"What is {i} plus {i + 1}?", "solution": f" First add {i} and {i + 1}. It is {2 * i + 1}."}
    for i in range(12)
]
SOLUTIONS = "".join(json.dumps(row) + "\n" for row in ROWS)
SCORES = "candidate,task,metric,value\n" + "".join(f"c{i},sums,acc,{0.2 + i / 10:.1f}\n" for i in range(4))


def write(folder: Path, root: str, name: str = "run", **settings: Any) -> Path:
    """A configuration of four candidates; its inputs and its results lie below `root`."""
    storage.write_bytes(storage.join(root, "solutions.jsonl"), SOLUTIONS.encode())
    storage.write_bytes(storage.join(root, "scores.csv"), SCORES.encode())
    config = {
        "name": name,
        "output": storage.join(root, "out"),
        "engine": {"kind": "fake"},
        "shard_trajectories": 3,
        "candidates": [{"name": f"c{i}", "source": f"fake://{i}"} for i in range(4)],
        "trajectories": [{"task": "sums", "path": storage.join(root, "solutions.jsonl")}],
        "measured_scores": [{"format": "csv", "path": storage.join(root, "scores.csv")}],
        **settings,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def lake_rows(root: str) -> pl.DataFrame:
    """All rows of a lake on a disk or an object store, in one order."""
    frames = [
        pl.read_parquet(storage.read_bytes(path))
        for path in storage.list_files(storage.join(root, "out", "lake"), ".parquet")
    ]
    return pl.concat(frames).sort("candidate_id", "task", "expert", "instance_id", "position")


def changed(root: str) -> dict[str, Any]:
    """When each object below a prefix was written."""
    fs, inner = storage.filesystem(root)
    found = fs.get_file_info(pafs.FileSelector(inner, recursive=True, allow_not_found=True))
    return {e.path: e.mtime_ns for e in found if e.type == pafs.FileType.File}


def rank_of(answer: str) -> Any:
    """The ranking that `run` printed."""
    return json.loads(answer)["rank"]


def test_a_run_on_an_object_store_is_the_run_on_a_disk(bucket: str, tmp_path: Path) -> None:
    code, local, err = run_forecast("run", write(tmp_path, str(tmp_path), "local"), "--json")
    assert code == 0, err
    remote = write(tmp_path, f"{bucket}/team a", "remote")  # a key with a space
    code, out, err = run_forecast("run", remote, "--json")
    assert code == 0, err
    assert rank_of(out) == rank_of(local)
    assert rank_of(out)["targets"], "the measured scores were read"
    rows = lake_rows(f"{bucket}/team a")
    assert rows.equals(lake_rows(str(tmp_path)))
    assert not any("team a" in path.name for path in tmp_path.rglob("*")), (
        "something was kept beside the store"
    )

    # Reading needs nothing but the store; a second run reads only.
    lake = storage.join(bucket, "team a", "out", "lake")
    before = changed(lake)
    assert len(before) == 16
    for command in ("score", "aggregate", "rank"):
        code, out, err = run_forecast(command, remote, "--json")
        assert code == 0, err
    assert changed(lake) == before
    ranked = json.loads(out)
    ranked.pop("held_out")  # what `rank` goes on to ask, and `run` does not
    assert ranked == rank_of(local)

    # Straight from the store with polars, as in a notebook.
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    options = {"aws_endpoint_url": endpoint, "aws_allow_http": "true"}
    read = pl.read_parquet(f"{lake}/**/*.parquet", storage_options=options)
    assert read.sort("candidate_id", "task", "expert", "instance_id", "position").equals(rows)


def test_a_killed_run_goes_on_where_it_stopped(bucket: str, tmp_path: Path) -> None:
    candidates = [{"name": f"c{i}", "source": f"fake://{i}?delay=0.2"} for i in range(4)]
    calm = write(tmp_path, f"{bucket}/calm", "calm", candidates=candidates)
    code, expected, err = run_forecast("run", calm, "--json")
    assert code == 0, err

    hit = write(tmp_path, f"{bucket}/hit", "hit", candidates=candidates)
    lake = f"{bucket}/hit/out/lake"
    driver = start_forecast("run", hit)
    deadline = time.monotonic() + 120
    while len(changed(lake)) < 3:
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.05)
    kill_driver(driver)
    done = changed(lake)
    assert 3 <= len(done) < 16
    code, out, err = run_forecast("run", hit, "--json")
    assert code == 0, err
    assert {path: when for path, when in changed(lake).items() if path in done} == done, "done again"
    assert rank_of(out) == rank_of(expected)
    assert lake_rows(f"{bucket}/hit").equals(lake_rows(f"{bucket}/calm"))
