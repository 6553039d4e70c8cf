"""What pyproject.toml installs."""

import tomllib
from pathlib import Path

import pytest

from forecast.config import loader
from forecast.errors import ConfigError

ROOT = Path(__file__).parents[1]


def test_a_wheel_carries_every_example_configuration_in_its_folder() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    carried = {
        Path(folder, path.name)
        for folder, patterns in tools["data-files"].items()
        for pattern in patterns
        for path in ROOT.glob(pattern)
        if path.is_file()
    }
    files = [path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*") if path.is_file()]
    assert files and carried == {Path("share/proxy-forecast", path) for path in files}


def test_a_missing_configuration_names_the_folder_of_the_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "EXAMPLES", tmp_path)
    with pytest.raises(ConfigError, match=f"copy the examples from {tmp_path}"):
        loader.load_config(tmp_path / "configs/demo.yaml")
