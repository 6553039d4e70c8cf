"""Drives the real command line in processes of its own, as a user would."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl


def start_forecast(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "forecast.cli", *map(str, arguments)]
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
