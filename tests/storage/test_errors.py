"""A wrong bucket, endpoint or key, a disk that does not take files: each says what to check."""

import os
import pickle
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from driving import run_forecast

from forecast import storage
from forecast.storage.errors import StorageError, explanation


@pytest.fixture
def locked(bucket: str) -> Iterator[str]:
    """A bucket of a store that from now on asks who is there, and knows nobody."""

    def ask_after(requests: bytes) -> None:
        url = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
        request = urllib.request.Request(url, data=requests, headers={"Content-Type": "text/plain"})
        urllib.request.urlopen(request, timeout=10).close()

    ask_after(b"0")
    yield bucket
    ask_after(b"inf")


@pytest.fixture
def silent(bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket at an address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    return bucket


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    missing = f"{bucket}-not"
    said = f"there is no bucket '{missing.removeprefix('s3://')}' at {os.environ['AWS_ENDPOINT_URL']}"
    with pytest.raises(StorageError, match=said):
        storage.write_bytes(f"{missing}/a/b", b"x")
    with pytest.raises(StorageError, match=said):
        storage.list_files(f"{missing}/a", ".parquet")
    assert storage.list_files(bucket, ".parquet") == {}, "an empty bucket is one"
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{missing}/a/b")


def test_keys_that_the_store_does_not_know(locked: str) -> None:
    for attempt in (
        lambda: storage.write_bytes(f"{locked}/a", b"x"),
        lambda: storage.read_bytes(f"{locked}/a"),
        lambda: storage.list_files(f"{locked}/a", ".parquet"),
    ):
        with pytest.raises(StorageError, match=r"refuses these credentials .* check AWS_ACCESS_KEY_ID"):
            attempt()


@pytest.mark.slow  # the client tries again for a while
def test_nobody_at_the_endpoint(silent: str) -> None:
    with pytest.raises(
        StorageError, match=r"at http://127.0.0.1:\d+ does not answer; check AWS_ENDPOINT_URL"
    ):
        storage.list_files(f"{silent}/a", ".parquet")


def test_a_disk_that_takes_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=f"{tmp_path}/file/x: .*correct the path"):
        storage.write_bytes(str(tmp_path / "file" / "x"), b"")


def test_it_travels_between_processes() -> None:
    error = StorageError(explanation("s3://b/k", OSError("AWS Error SLOW_DOWN during PutObject: busy")))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is StorageError and str(again) == str(error)
    assert "s3://b/k" in str(error) and "SLOW_DOWN" in str(error)


def test_a_run_says_so_before_anything_is_scored(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "solutions.jsonl").write_text('{"prompt": "1 + 1?", "solution": " 2."}\n')
    config = {
        "name": "run",
        "output": f"{bucket}-not/out",
        "engine": {"kind": "fake"},
        "candidates": [{"name": "a", "source": "fake://1"}],
        "trajectories": [{"task": "sums", "path": "solutions.jsonl"}],
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    code, out, err = run_forecast("score", tmp_path / "run.yaml", "--json")
    assert (code, out) == (1, "")
    assert err.startswith("error: s3://") and "there is no bucket" in err
    assert "Traceback" not in err and "units" not in err
