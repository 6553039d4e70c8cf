"""The generated pages say what the code says."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def generate(*arguments: str, width: str = "80") -> subprocess.CompletedProcess[str]:
    """Run docs/generate.py, in a terminal of this width."""
    return subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "", "COLUMNS": width},
    )


def test_generated_pages_are_not_stale() -> None:
    checked = generate("--check", width="40")
    assert checked.returncode == 0, (
        f"{checked.stderr}regenerate with `.venv/bin/python docs/generate.py`, then commit docs/"
    )


def test_check_names_stale_pages(tmp_path: Path) -> None:
    script = (ROOT / "docs" / "generate.py").read_text()
    (tmp_path / "docs").mkdir()
    copy = tmp_path / "docs" / "generate.py"
    copy.write_text(script.replace("DOCS.parent)", f"{str(ROOT)!r})"))
    (copy.parent / "cli.md").write_text("of yesterday\n")
    checked = subprocess.run([sys.executable, str(copy), "--check"], capture_output=True, text=True)
    assert checked.returncode == 1
    assert "docs/cli.md is stale" in checked.stderr
    assert (copy.parent / "cli.md").read_text() == "of yesterday\n"
