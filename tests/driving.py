"""Drives the real command line in processes of its own, as a user would."""

import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil


def start_forecast(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "forecast", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )


def run_forecast(*arguments: str | Path, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    process = start_forecast(*arguments, **environment)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def lake_rows(folder: Path) -> pl.DataFrame:
    """All rows of a lake in one order."""
    return pl.read_parquet(folder / "**" / "*.parquet").sort(
        "candidate_id", "task", "expert", "instance_id", "position"
    )


def wait_for_files(folder: Path, count: int) -> None:
    """Until so many units are in the lake."""
    deadline = time.monotonic() + 240
    while len(list(folder.rglob("*.parquet"))) < count:
        assert time.monotonic() < deadline, f"fewer than {count} units after four minutes"
        time.sleep(0.02)


def kill_driver(driver: subprocess.Popen[str]) -> None:
    """End a driver as hard as it gets, and wait for the Ray processes that it had started."""
    family = psutil.Process(driver.pid).children(recursive=True)
    # Ray's two monitoring agents notice within about a minute; whatever could work or write goes at once.
    workers = [p for p in family if "Agent" not in title(p)]
    driver.kill()
    driver.communicate()
    assert not psutil.wait_procs(workers, timeout=30)[1], "Ray outlived the driver that had started it"


def kill_an_actor(driver: psutil.Process) -> None:
    """End one of a driver's scoring actors as hard as it gets."""
    actors = [p for p in driver.children(recursive=True) if "ScoringActor" in title(p)]
    assert actors, "no scoring actor is running"
    actors[0].kill()


def title(process: psutil.Process) -> str:
    """The command line of a process, empty when it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
