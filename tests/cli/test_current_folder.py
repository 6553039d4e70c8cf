"""Python files that lie in the current folder are not run, whatever they are called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import forecast
from forecast.cli import main

ROOT = Path(forecast.__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a configuration and modules that say that they were imported."""
    for name in (
        "json",
        "torch",
        "pyarrow",
        "typer",
        "rich",
        "streamlit",
        "ray",
        "pydantic",
        "actors",
        "app",
    ):
        module = f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\n"
        (tmp_path / f"{name}.py").write_text(module)
    (tmp_path / "solutions.jsonl").write_text('{"prompt": "1 + 1 =", "solution": " It is 2."}\n')
    config = {
        "name": "small",
        "output": "out",
        "engine": {"kind": "fake"},
        "candidates": [{"name": "a", "source": "fake://1"}],
        "trajectories": [{"task": "sums", "path": "solutions.jsonl"}],
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("start", [["-m", "forecast"], ["-c", "from forecast.cli.main import main; main()"]])
def test_scoring_imports_nothing_from_it(folder: Path, start: list[str]) -> None:
    safe = ["-P"] if start[0] == "-c" else []  # as the command `forecast`, which has its own folder first
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *safe, *start, "score", "run.yaml"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1 units" in done.stdout
    assert not (folder / "imported").exists()


def test_the_app_is_started_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, object] = {}
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", "", "/known"]))
    monkeypatch.setattr(subprocess, "call", lambda command, **how: started.update(how, command=command) or 0)
    assert CliRunner().invoke(main.app, ["app", "run.yaml"]).exit_code == 0
    command, environment = started["command"], started["env"]
    assert isinstance(command, list) and isinstance(environment, dict)
    assert command[1:5] == ["-P", "-m", "streamlit", "run"] and command[5] == str(ROOT / "app" / "main.py")
    assert started["cwd"] == ROOT / "app"
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(ROOT), str(folder), "/known"]
    assert environment["FORECAST_OUTPUT"] == str(folder / "out")


def test_another_package_of_the_same_name_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ModuleNotFoundError("No module named 'actors.jobs'", name="actors.jobs")

    monkeypatch.setattr(main, "app", fail)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert "actors.jobs" in said and "environment of its own" in said and said.count("\n") == 1
