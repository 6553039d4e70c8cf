"""What the documents show must work: the shipped configurations and the README's example are valid."""

import re
from pathlib import Path

import pytest

from forecast.config.loader import load_config
from forecast.inputs.multiple_choice import load_choices
from forecast.inputs.trajectories import load_trajectories

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_load_with_their_data(path: Path) -> None:
    config = load_config(path)
    for source in config.trajectories:
        assert len(load_trajectories(source)) == source.limit
    for choices in config.direct_evaluation:
        if choices.path is not None and not choices.path.startswith("package://"):
            assert len(load_choices(choices)) == choices.limit


def test_the_readme_s_configuration_is_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    path = tmp_path / "my.yaml"
    path.write_text(block)
    config = load_config(path)
    assert [candidate.name for candidate in config.candidates] == ["base", "step 4000", "q4", "3-bit"]
    assert config.candidates[1].source == "my-org/my-run@step4000"


def test_the_readme_s_files_exist() -> None:
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`((?:forecast|actors|app|configs|tests)/[\w./-]+)`", text))
    named |= set(re.findall(r"\]\((?!https?://)([\w./-]+)\)", text))
    assert len(named) >= 4
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]
