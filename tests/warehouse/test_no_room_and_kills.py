"""`forecast aggregate` without room, and killed at any moment: one sentence, and the next one does it all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from lakes import config_of, fill, solutions

from forecast import storage
from forecast.plan import make_plan
from forecast.storage.errors import StorageError
from forecast.warehouse.connect import FILE_NAME, open_warehouse
from forecast.warehouse.schema import known_tables


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A configuration whose lake is filled; its output is the folder `out` beside it."""
    tasks = {"t": solutions(*map(str, range(40)), text=" It is certainly {}.")}
    plan = make_plan(config_of(tmp_path, tasks, {"a": "fake://1", "b": "fake://2"}))
    fill(plan)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(plan.config.model_dump(mode="json", exclude_defaults=True)))
    return path


def aggregate(run: Path, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, after a statement such as one that sets a limit."""
    script = (
        f"import os, resource, sys; {before or 'pass'}\nsys.argv = ['forecast', 'aggregate', {str(run)!r}]\n"
    )
    script += "from forecast.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def tables(run: Path) -> dict[str, list[Any]]:
    """Every table but for when it was built."""
    with open_warehouse(str(run.parent / "out")) as db:
        names = sorted(known_tables().keys() - {"run"})
        return {name: db.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in names}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("limit", [20_000, 300_000])
def test_full_disk_is_one_sentence_and_the_old_file_stays(run: Path, limit: int, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    assert aggregate(run).returncode == 0
    before, listed = tables(run), files(run.parent / "out")
    done = aggregate(
        run,
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))",
        TMPDIR=str(tmp_path / "scratch"),
    )
    assert done.returncode == 1, done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith("error: ") and "make room" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert (tables(run), files(run.parent / "out")) == (before, listed)
    assert files(tmp_path / "scratch") == []


@pytest.mark.slow
def test_aggregate_killed_at_any_moment_leaves_the_old_file_and_the_next_one_sweeps(
    run: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    begun = time.monotonic()
    assert aggregate(run, TMPDIR=str(scratch)).returncode == 0
    whole = time.monotonic() - begun
    expected, listed = tables(run), files(run.parent / "out")
    left = 0
    for tenth in (4, 6, 7, 8, 9, 10):
        process = subprocess.Popen(
            [sys.executable, "-m", "forecast", "aggregate", str(run)],
            env={**os.environ, "TMPDIR": str(scratch)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(whole * tenth / 10)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left += len(list(scratch.iterdir()))
        assert tables(run) == expected
    assert aggregate(run, TMPDIR=str(scratch)).returncode == 0
    assert tables(run) == expected
    assert files(run.parent / "out") == listed
    assert list(scratch.iterdir()) == [], f"{left} folders were left by the killed ones"


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "forecast.warehouse.build.create_tables",
        "forecast.warehouse.build._compute",
        "forecast.warehouse.build.create_means",
        "forecast.warehouse.connect._remove",
        "forecast.storage.files.Path.replace",
        "os.fsync",
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_killed_before_and_after_each_step(run: Path, tmp_path: Path, moment: str, after: bool) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert aggregate(run).returncode == 0
    expected, listed = tables(run), files(run.parent / "out")
    (run.parent / "out" / f"{FILE_NAME}.wal").write_bytes(b"of another program")
    place, _, name = moment.rpartition(".")
    code = f"""
import importlib, os, signal
parts, owner = {place!r}.split("."), None
for end in range(len(parts), 0, -1):
    try:
        owner = importlib.import_module(".".join(parts[:end]))
        break
    except ImportError:
        pass
for part in parts[end:]:
    owner = getattr(owner, part)
whole = getattr(owner, {name!r})
def stop(*given, **named):
    if {after}:
        whole(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, {name!r}, stop)
"""
    done = aggregate(run, f"exec({code!r})", TMPDIR=str(scratch))
    assert done.returncode == -signal.SIGKILL
    assert tables(run) == expected
    assert aggregate(run, TMPDIR=str(scratch)).returncode == 0
    assert tables(run) == expected
    assert files(run.parent / "out") == listed and list(scratch.iterdir()) == []
    duckdb.connect(str(run.parent / "out" / FILE_NAME), read_only=True).close()


def test_output_is_tried_before_anything_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.try_out(str(tmp_path / "new" / "out"))
    assert files(tmp_path) == []
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, os.strerror(28))))
    with pytest.raises(StorageError, match=f"^{tmp_path}/new/out: No space left on device; make room there"):
        storage.try_out(str(tmp_path / "new" / "out"))
    assert files(tmp_path) == []


def test_full_standard_output_is_one_sentence(run: Path) -> None:
    with Path("/dev/full").open("w") as full:
        for words in (["aggregate", str(run)], ["rank", str(run), "--json"], ["--version"]):
            command = [sys.executable, "-m", "forecast", *words]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
            assert done.returncode == 1
            assert done.stderr.startswith("error: standard output: No space left on device"), words
            assert len(done.stderr.strip().splitlines()) == 1
