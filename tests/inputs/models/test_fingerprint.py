"""Content hashes: the same content is the same model, another content never is."""

import os
import time
from pathlib import Path

import pytest

from forecast.inputs.models import fingerprint
from forecast.inputs.models.fingerprint import content_hash, digest_of, files_digest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "forecast" / "files"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember files at once instead of two seconds after their last change."""
    monkeypatch.setattr(fingerprint, "_SETTLED_SECONDS", -1.0)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def wait_for_the_clock(folder: Path, earlier: Path) -> None:
    """Until a new file has a later change time than `earlier`: file systems count time in ticks."""
    probe, then = folder / "probe", earlier.stat().st_ctime_ns
    while write(probe, b"").stat().st_ctime_ns <= then:
        time.sleep(0.002)


def test_the_hash_is_of_the_content_alone(tmp_path: Path) -> None:
    one, same = write(tmp_path / "a", b"content"), write(tmp_path / "x" / "b", b"content")
    other = write(tmp_path / "c", b"Content")
    assert content_hash(one) == content_hash(same) != content_hash(other)


def test_a_hash_is_remembered_between_calls(
    tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "weights", b"content")
    expected = content_hash(path)

    def must_not_read(path: Path) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr(fingerprint, "_hash_of_content", must_not_read)
    assert content_hash(path) == expected
    link = tmp_path / "link"
    link.symlink_to(path)
    assert content_hash(link) == expected


def test_overwriting_in_place_with_size_and_mtime_kept_gives_a_new_hash(
    tmp_path: Path, settled: None
) -> None:
    path = write(tmp_path / "weights", b"content")
    before, old = path.stat(), content_hash(path)
    wait_for_the_clock(tmp_path, path)
    with path.open("r+b") as stream:
        stream.write(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )
    assert content_hash(path) != old


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    content_hash(write(tmp_path / "weights", b"content"))
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"identity": 1}', b"\xff"])
def test_a_damaged_memory_is_ignored(damage: bytes, tmp_path: Path, cache: Path, settled: None) -> None:
    path = write(tmp_path / "weights", b"content")
    expected = content_hash(path)
    (memory,) = cache.iterdir()
    memory.write_bytes(damage)
    assert content_hash(path) == expected


def test_a_home_that_cannot_be_written_costs_only_the_memory(
    tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "weights", b"content")
    expected = content_hash(path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(write(tmp_path / "file", b"")))
    assert content_hash(path) == expected


def test_a_digest_depends_on_names_and_contents_but_not_on_order_or_folder(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", b"1"), write(tmp_path / "b", b"2")
    moved = write(tmp_path / "moved" / "z", b"1")
    digest = files_digest({"a": a, "b": b})
    assert files_digest({"b": b, "a": moved}) == digest
    assert files_digest({"a": b, "b": a}) != digest
    assert files_digest({"a": a}) != digest


def test_digests_of_values() -> None:
    assert digest_of("a", {"x": 1, "y": 2}) == digest_of("a", {"y": 2, "x": 1})
    assert (
        len({digest_of("ab"), digest_of("a", "b"), digest_of(["a", "b"]), digest_of(None), digest_of()}) == 5
    )
    with pytest.raises(TypeError):
        digest_of(object())
