"""Checkpoints without a marker: complete when nothing in them has changed for a while."""

import os
import time
from pathlib import Path

import pytest

from forecast import storage
from forecast.config.nightly import WatchConfig
from forecast.nightly.discovery import look
from forecast.nightly.settled import Change, unsettled

NOW = 1_000_000.0


def test_the_newest_change_counts() -> None:
    old, new = Change("a", NOW - 3600), Change("b", NOW - 300)
    assert unsettled((old,), NOW, 30) is None
    assert "b changed 5 minutes ago" in (unsettled((old, new), NOW, 30) or "")
    assert unsettled((old, new), NOW, 5) is None, "for exactly as long"


def test_a_store_without_times_waits_and_says_so() -> None:
    assert "use a marker" in (unsettled((Change("a", None),), NOW, 30) or "")


def test_a_time_that_was_set_ahead_is_that_of_its_entry_on_this_disk() -> None:
    year = 365 * 86_400
    assert unsettled((Change("a", NOW + year, entered=NOW - 3600),), NOW, 30) is None
    assert "5 minutes ago" in (unsettled((Change("a", NOW + year, entered=NOW - 300),), NOW, 30) or "")


def test_a_disk_whose_clock_is_ahead_waits_by_that_much_longer() -> None:
    ahead = Change("a", NOW + 600, entered=NOW + 600)
    assert "10 minutes ahead" in (unsettled((ahead,), NOW, 30) or "")
    assert unsettled((ahead,), NOW + 2400, 30) is None


@pytest.fixture(params=["disk", "object store"])
def root(request: pytest.FixtureRequest) -> str:
    if request.param == "disk":
        return str(request.getfixturevalue("tmp_path") / "run")
    return str(request.getfixturevalue("bucket")) + "/run"


def test_a_folder_is_taken_when_nothing_in_it_changed_for_settled_minutes(root: str) -> None:
    for name in ("config.json", "model.safetensors", "global_step20/rank0.pt"):
        storage.write_bytes(storage.join(root, "checkpoint-20", name), b"x")
    watch = WatchConfig(run="r", folder=root, settled_minutes=30)
    now = time.time()
    fresh = look(watch, clock=lambda: now + 29 * 60)
    assert not fresh.found and "settled_minutes" in fresh.waiting[0].reason
    later = look(watch, clock=lambda: now + 32 * 60)
    assert [one.checkpoint.step for one in later.found] == [20] and not later.waiting


def test_files_in_subfolders_count_and_an_empty_folder_waits(tmp_path: Path) -> None:
    inner = tmp_path / "checkpoint-20" / "global_step20"
    inner.mkdir(parents=True)
    (tmp_path / "checkpoint-40").mkdir()
    (inner.parent / "model.safetensors").touch()
    (inner / "rank0.pt").touch()
    old = time.time() - 7200
    for path in (tmp_path / "checkpoint-40", inner.parent / "model.safetensors", inner, inner.parent):
        os.utime(path, (old, old))
    watch = WatchConfig(run="r", folder=str(tmp_path), settled_minutes=30)
    first, empty = look(watch).waiting
    assert first.checkpoint.step == 20 and "rank0.pt" in first.reason
    assert empty.checkpoint.step == 40 and "no files" in empty.reason
    os.utime(inner / "rank0.pt", (old, old))
    assert [one.checkpoint.step for one in look(watch).found] == [20]
