"""Runs of the real command line over a real Ray on this machine, with made-up candidates."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration of fake candidates and 12 trajectories, four to a unit."""

    def write(candidates: dict[str, str], name: str = "run", **settings: Any) -> Path:
        rows = [
            {
                "prompt": f"What is {i} plus {i + 1}?",
                "solution": f" First add {i} and {i + 1}. The answer is {2 * i + 1}.",
            }
            for i in range(12)
        ]
        (tmp_path / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = {
            "name": name,
            "output": f"out-{name}",
            "engine": {"kind": "fake"},
            "shard_trajectories": 4,
            "candidates": [{"name": key, "source": source} for key, source in candidates.items()],
            "trajectories": [{"task": "sums", "path": "solutions.jsonl"}],
            **settings,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write
