"""Storage: whole writes, listings and odd names, on a disk and on an object store."""

import gzip
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from forecast import storage
from forecast.storage.errors import StorageError


@pytest.fixture(params=["disk", "object store"])
def root(request: pytest.FixtureRequest) -> str:
    if request.param == "disk":
        return str(request.getfixturevalue("tmp_path"))
    return str(request.getfixturevalue("bucket"))


def test_a_written_file_is_read_back_and_replaced_whole(root: str) -> None:
    path = storage.join(root, "a", "b.bin")
    assert not storage.exists(path)
    storage.write_bytes(path, b"first, and longer")
    storage.write_bytes(path, b"second")
    assert storage.exists(path)
    assert storage.read_bytes(path) == b"second"


def test_a_missing_file_is_file_not_found(root: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(root, "nothing"))


def test_folders_exist_once_something_is_in_them(root: str) -> None:
    storage.write_bytes(storage.join(root, "folder", "x"), b"")
    assert storage.exists(storage.join(root, "folder"))
    assert not storage.exists(storage.join(root, "other"))


def test_listing_gives_sizes_of_all_files_below_but_no_hidden_ones_and_no_other_suffix(root: str) -> None:
    for name in ("z.parquet", "deep/er/a.parquet", "deep/.b.parquet", "c.txt"):
        storage.write_bytes(storage.join(root, "lake", name), b"12345")
    storage.write_bytes(storage.join(root, "d.parquet"), b"beside the folder")
    lake = storage.join(root, "lake")
    assert storage.list_files(lake, ".parquet") == {
        storage.join(lake, "deep", "er", "a.parquet"): 5,
        storage.join(lake, "z.parquet"): 5,
    }
    assert storage.list_files(storage.join(root, "nowhere"), ".parquet") == {}


@pytest.mark.parametrize("name", ["with space.txt", "a#b.txt", "50%25.txt", "what?.txt", "größe=1.txt"])
def test_names_that_mean_something_in_a_uri_are_plain_names(root: str, name: str) -> None:
    path = storage.join(root, name)
    storage.write_bytes(path, name.encode())
    assert storage.read_bytes(path) == name.encode()
    assert list(storage.list_files(root, ".txt")) == [path]


def test_pyarrow_opens_what_was_written(root: str) -> None:
    path = storage.join(root, "x")
    storage.write_bytes(path, b"content")
    fs, inner = storage.filesystem(path)
    with fs.open_input_file(inner) as stream:
        assert stream.read() == b"content"


def test_one_client_serves_a_bucket_until_the_endpoint_changes(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = storage.filesystem(f"{bucket}/a")
    other, _ = storage.filesystem(f"{bucket}/b")
    assert one is other
    monkeypatch.setenv("AWS_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"] + "/")
    assert storage.filesystem(f"{bucket}/a")[0] is not one


def test_a_failed_write_leaves_the_old_content_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    storage.write_bytes(str(target), b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        storage.write_bytes(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_sweeping_removes_what_dead_writers_of_this_host_left(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    alive = storage.temporary_beside(tmp_path / "sub" / "unit.parquet")
    dead = alive.with_name(alive.name.replace(f"@{os.getpid()}@", f"@{gone.pid}@"))
    elsewhere = dead.with_name(dead.name.replace(socket.gethostname(), "another-host"))
    foreign = alive.with_name(".somebody-elses.tmp")
    finished = alive.with_name("unit.parquet")
    alive.parent.mkdir()
    for path in (alive, dead, elsewhere, foreign, finished):
        path.write_bytes(b"")
    assert storage.sweep_temporaries(str(tmp_path)) == 1
    assert set(alive.parent.iterdir()) == {alive, elsewhere, foreign, finished}
    assert storage.sweep_temporaries(str(tmp_path / "nowhere")) == 0


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/x.csv", "/base/data/x.csv"),
        ("../x.csv", "/x.csv"),
        ("/data/x.csv", "/data/x.csv"),
        ("~/x.csv", "/home/me/x.csv"),
        ("s3://bucket/x.csv", "s3://bucket/x.csv"),
        ("package://dist/x.csv", "package://dist/x.csv"),
    ],
)
def test_paths_are_taken_from_the_base(path: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert storage.resolve(path, "/base") == expected


def test_joining_leaves_one_slash() -> None:
    assert storage.join("s3://bucket/a/", "b", "c") == "s3://bucket/a/b/c"
    assert storage.join("/a/", "b", "c") == "/a/b/c"


def test_bytes_are_kept_as_they_are_whatever_the_name(root: str) -> None:
    """An object store's client would pack and unpack by the name's ending."""
    packed = gzip.compress(b"text")
    for name in ("a.gz", "b.zst", "c.bz2"):
        path = storage.join(root, name)
        storage.write_bytes(path, packed)
        assert storage.read_bytes(path) == packed
        assert storage.list_files(root, name) == {path: len(packed)}


@pytest.mark.parametrize(
    "path",
    [
        "s3://KEY:SECRET@bucket/a",
        "s3://KEY:SEC/RET@bucket/a",
        "s3://bucket?secret_key=SECRET/a",
        "s3://bucket?endpoint_override=evil.example",
        "s3://bucket#x/a",
        "s3://b%40c/a",
        "s3:///a",
        "s3://",
    ],
)
def test_keys_in_a_path_are_refused_and_not_repeated(path: str) -> None:
    for use in (storage.exists, storage.read_bytes, lambda p: storage.write_bytes(p, b""), storage.remove):
        with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY") as caught:
            use(path)
        assert "SECRET@" not in str(caught.value) and "RET@" not in str(caught.value)
        assert "=SECRET" not in str(caught.value)
