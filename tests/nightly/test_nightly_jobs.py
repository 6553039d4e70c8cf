"""Nightly runs as jobs of a cluster: what travels, what must be there, and one job for each night."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_runs import written

from actors.jobs.package import CONFIG_PLACE, Package, pack
from actors.jobs.submit import Settings, entrypoint, submit
from forecast.config import NIGHT_VARIABLE
from forecast.config.loader import load_config
from forecast.errors import ConfigError

NIGHTS = ("2026-03-01", "2026-03-02")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    written(tmp_path / "solutions.jsonl", [{"prompt": "a", "solution": "b"}])
    content = {
        "name": "watching",
        "output": "out",
        "trajectories": [{"task": "sums", "path": "solutions.jsonl"}],
        "nightly": {
            "watch": [
                {"run": "near", "folder": "checkpoints"},
                {"run": "far", "folder": "s3://bucket/run", "final_step": 10},
                {"run": "hub", "hub": "org/model", "pattern": "step{step}", "candidate": {"family": "f"}},
            ],
            "alerts": [{"rule": "nothing_new", "days": 2}],
            "deliver": [{"webhook_env": "HOOK"}],
        },
    }
    path = tmp_path / "nightly.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def packed(config: Path, night: str | None = NIGHTS[0], command: str = "nightly") -> Package:
    there = [str(config.parent / "checkpoints")]
    return pack(load_config(config), "/shared/out", there, command, with_code=False, night=night)


def test_a_watched_folder_is_the_clusters_or_the_run_does_not_travel(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"watched run 'near': .*/checkpoints is a path of this machine"):
        pack(load_config(config), "/shared/out", (), "nightly")


def test_the_copy_watches_what_the_original_watches(config: Path, tmp_path: Path) -> None:
    packed(config).write(tmp_path / "there.zip", "x")
    zipfile.ZipFile(tmp_path / "there.zip").extractall(tmp_path / "there")
    copy, original = load_config(tmp_path / "there" / CONFIG_PLACE), load_config(config)
    assert copy.nightly == original.nightly
    assert copy.output == "/shared/out"


def test_each_night_is_a_job_of_its_own_of_one_and_the_same_run(config: Path) -> None:
    first, again, second = packed(config), packed(config), packed(config, NIGHTS[1])
    assert first.job_id == again.job_id != second.job_id
    assert first.job_id.endswith("-2026-03-01")
    assert first.digest == second.digest, "by which `forecast pull CONFIG` finds the latest night"
    assert packed(config, None, "run").digest != first.digest


class Head:
    """Takes jobs and keeps what it was given."""

    url = "http://head"

    def __init__(self) -> None:
        self.given: list[tuple[Any, ...]] = []

    def jobs(self) -> list[Any]:
        return []

    def job(self, job_id: str) -> str:
        return job_id

    def submit(self, *given: Any) -> None:
        self.given.append(given)


def test_the_night_is_that_of_the_machine_that_submits(config: Path) -> None:
    head, package = Head(), packed(config)
    env = {"env_vars": {"HOOK": "https://secret"}}
    settings = Settings(command="nightly", any_version=True, runtime_env=env)
    submit(head, package, settings)  # type: ignore[arg-type]
    submit(head, replace(package, night=None), settings)  # type: ignore[arg-type]
    (job_id, command, runtime_env, metadata), (_, _, plain, _) = head.given
    manifest = command.split("--manifest ")[1].split()[0]
    assert job_id == package.job_id and command == entrypoint(job_id, package, settings, manifest)
    assert "--command nightly" in command and metadata["forecast_command"] == "nightly"
    assert runtime_env["env_vars"] == {"HOOK": "https://secret", NIGHT_VARIABLE: NIGHTS[0]}
    assert plain["env_vars"] == env["env_vars"]
