"""What the documents show must work: configurations are valid, links and file names lead somewhere."""

import re
from pathlib import Path

import pytest

import forecast
from forecast.api import Run, RunRanking
from forecast.config.loader import load_config
from forecast.inputs.multiple_choice import load_choices
from forecast.inputs.trajectories import load_trajectories

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("configs/**/*.md")),
]


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


def test_the_readme_s_python_names_exist() -> None:
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    compile(block, "README.md", "exec")
    homes = {"forecast": forecast, "run": Run, "ranking": RunRanking}
    named = re.findall(
        r"\b(forecast|run|ranking)\.(\w+)", block + " ".join(re.findall(r"`forecast\.\w+`", text))
    )
    assert len(named) >= 12
    assert not [f"{home}.{name}" for home, name in named if not hasattr(homes[home], name)]


def named_files(page: Path) -> set[Path]:
    """Files and folders that a page links to, or names in backticks from the project's root."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    linked = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text)
    quoted = re.findall(r"`((?:forecast|actors|app|configs|tests|docs|\.ci)/[\w./-]+)`", text)
    return {page.parent / name for name in linked} | {ROOT / name for name in quoted}


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_or_names_exists(page: Path) -> None:
    missing = [str(path) for path in sorted(named_files(page)) if not path.exists()]
    assert not missing, f"{page.relative_to(ROOT)}: {missing}"
    for name, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        target = page.parent / name if name else page
        assert anchor in anchors(target), f"{page.relative_to(ROOT)}: {name}#{anchor}"


def test_every_page_of_the_docs_is_linked_from_the_readme() -> None:
    linked = {path.resolve() for path in named_files(ROOT / "README.md")}
    assert not [str(page) for page in (ROOT / "docs").rglob("*.md") if page not in linked]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250
