"""Folders for temporary files: gone at the end, swept after a kill, refused in one sentence."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from forecast import storage
from forecast.storage.errors import StorageError

_HOLD = """
import sys
from forecast import storage
with storage.scratch() as folder:
    (folder / "large").write_bytes(b"x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def other() -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", _HOLD], stdin=pipe, stdout=pipe, text=True)


def test_folder_is_gone_at_the_end_also_after_an_error(temporary: Path) -> None:
    with pytest.raises(ZeroDivisionError), storage.scratch() as folder:
        (folder / "a").mkdir()
        raise ZeroDivisionError
    assert list(temporary.iterdir()) == []


def test_folders_of_killed_processes_are_swept_and_those_of_living_ones_stay(temporary: Path) -> None:
    with other() as dead, other() as alive:
        assert dead.stdout is not None and alive.stdout is not None and alive.stdin is not None
        left, kept = Path(dead.stdout.readline().strip()), Path(alive.stdout.readline().strip())
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        (temporary / "forecast-of-somebody").mkdir()
        with storage.scratch():
            assert not left.exists()
            assert (kept / "large").exists()
        alive.stdin.close()
    assert [path.name for path in temporary.iterdir()] == ["forecast-of-somebody"]


def test_a_link_in_the_place_of_a_folder_is_not_followed(temporary: Path) -> None:
    mine = temporary / "mine"
    mine.mkdir()
    (mine / "kept").touch()
    (temporary / "forecast-scratch-link").symlink_to(mine)
    with storage.scratch():
        pass
    assert (mine / "kept").exists()


def test_no_folder_for_temporary_files_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(StorageError, match=r"No space left on device; make room, or set TMPDIR"):
        storage.scratch().__enter__()
