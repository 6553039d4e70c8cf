"""What a job does on the cluster before and after the command: its checks, its list of results."""

import hashlib
import json
import os
import signal
import sys
from collections import namedtuple
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from made_up_head import FILES, run_status

from actors.jobs import entrypoint
from forecast import storage

Usage = namedtuple("Usage", "total used free")


def said(capsys: pytest.CaptureFixture[str], call: Callable[[], Any]) -> str:
    with pytest.raises(SystemExit) as left:
        call()
    assert left.value.code == 1
    return capsys.readouterr().err


def test_entrypoint_refuses_other_versions(capsys: pytest.CaptureFixture[str]) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    ray, forecast = entrypoint._version("ray"), entrypoint._version("proxy-forecast")
    assert ray is not None
    entrypoint._check_versions(here, ray, forecast)
    entrypoint._check_versions(here, ray, None)
    text = said(capsys, lambda: entrypoint._check_versions("3.9", "2.9.0", "0.0.1"))
    assert f"Python is 3.9 there and {here} here" in text
    assert f"ray is 2.9.0 there and {ray} here" in text
    assert f"proxy-forecast is 0.0.1 there and {forecast} here" in text


def test_entrypoint_checks_free_disk_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entrypoint._check_output(str(tmp_path / "new" / "folder"), [])
    assert (tmp_path / "new" / "folder").is_dir()
    entrypoint._check_output("s3://bucket/x", [])
    monkeypatch.setattr(entrypoint.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1_000_000))
    text = said(capsys, lambda: entrypoint._check_output(str(tmp_path), []))
    assert f"the cluster's disk is full: 1 MB are free for {tmp_path}" in text
    entrypoint._say_if_full(str(tmp_path))
    assert "the cluster's disk is full" in capsys.readouterr().err
    entrypoint._say_if_full("s3://bucket/x")
    assert capsys.readouterr().err == ""


def test_entrypoint_refuses_an_unwritable_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    text = said(capsys, lambda: entrypoint._check_output(str(tmp_path / "file" / "out"), []))
    assert "cannot be written on the cluster" in text


def test_entrypoint_refuses_a_folder_that_nodes_do_not_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def see(nodes: Sequence[str], path: str) -> list[bool]:
        assert Path(path).exists()
        return [node != "b" for node in nodes]

    nodes = {"a": "10.0.0.1", "b": "10.0.0.2"}
    assert entrypoint.nodes_without(str(tmp_path / "out"), nodes, see) == ["10.0.0.2"]
    assert not list((tmp_path / "out").iterdir()), "the probe was left"
    text = said(capsys, lambda: entrypoint._check_output(str(tmp_path / "out"), ["10.0.0.2"]))
    assert "is not shared by all nodes of the cluster: 10.0.0.2 do not see" in text


def test_list_of_results_leaves_out_the_lake(tmp_path: Path) -> None:
    for name in (*FILES, "warehouse.duckdb", "lake/c/u.parquet", "lake/x.json", ".hidden.json", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(FILES.get(name, b"data"))
    listed = {entry["name"]: entry for entry in entrypoint._local_results(str(tmp_path))}
    assert set(listed) == {*FILES, "warehouse.duckdb"}
    assert listed["ranking.json"]["sha256"] == hashlib.sha256(b"{}").hexdigest()


def test_list_of_results_is_equal_on_an_object_store(bucket: str) -> None:
    output = f"{bucket}/out"
    for name in (*FILES, "lake/c/u.parquet", "lake/x.json", ".hidden.json", "notes.txt"):
        storage.write_bytes(storage.join(output, name), FILES.get(name, b"data"))
    listed = {entry["name"]: entry["bytes"] for entry in entrypoint._remote_results(output)}
    assert listed == {name: len(data) for name, data in FILES.items()}


def test_job_publishes_only_its_own_runs(tmp_path: Path) -> None:
    runs = {"1": ("me", "done"), "2": ("other", "done"), "3": ("me", "running"), "4": (None, "done")}
    for run, (of, state) in runs.items():
        now = datetime.now(UTC).isoformat()
        record = run_status(run=run, job=of, state=state, updated_at=now)
        storage.write_bytes(str(tmp_path / "runs" / f"{run}.json"), json.dumps(record).encode())
    storage.write_bytes(str(tmp_path / "runs" / "5.json"), b"damaged")
    (entry,) = entrypoint._own_runs("me", str(tmp_path))
    assert entry["name"] == "runs/1.json"
    assert entry["sha256"] == hashlib.sha256((tmp_path / "runs" / "1.json").read_bytes()).hexdigest()
    assert entrypoint._own_runs("me", str(tmp_path / "none")) == []


def test_stopped_job_waits_for_its_command_and_returns_its_exit_code() -> None:
    command = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
os.kill(os.getppid(), signal.SIGTERM)
time.sleep(30)
"""
    assert entrypoint._call([sys.executable, "-c", command], dict(os.environ)) == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
