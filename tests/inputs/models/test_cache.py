"""Candidates in an object store: what is copied, when it is copied again, what is said where it cannot be."""

import json
import os
import shutil
import threading
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import pytest
from safetensors.numpy import save_file
from training_runs import MARKER, stub_checkpoint, truncate

from forecast import storage
from forecast.config.schema import CandidateConfig, Config
from forecast.errors import CandidateError, ConfigError, ForecastError
from forecast.inputs.models import cache as fetched_module
from forecast.inputs.models.cache import keep_within_bound
from forecast.inputs.models.resolve import locate_files, resolve_candidate


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORECAST_CACHE", str(tmp_path / "models"))
    monkeypatch.delenv("FORECAST_CACHE_GB", raising=False)
    return tmp_path / "models"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stub_checkpoint(tmp_path / "model")


def upload(folder: Path, uri: str) -> str:
    for path in folder.iterdir():
        storage.write_bytes(f"{uri}/{path.name}", path.read_bytes())
    return uri


def settings(source: str, **others: Any) -> CandidateConfig:
    return CandidateConfig(name="far", source=source, **others)


def copies(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.exists() else []


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are copied."""
    found: list[str] = []
    copy = fetched_module._Remote._copy_one

    def noted(self: Any, name: str, target: Path) -> None:
        found.append(name)
        copy(self, name, target)

    monkeypatch.setattr(fetched_module._Remote, "_copy_one", noted)
    return found


def test_it_is_the_candidate_that_it_is_on_a_disk(bucket: str, model: Path) -> None:
    uri = upload(model, f"{bucket}/a folder/model#1")
    run = {"name": "run", "output": "out", "trajectories": [{"task": "t", "path": "t.jsonl"}]}

    def resolved(source: str) -> Any:
        config = Config.model_validate({**run, "candidates": [{"name": "far", "source": source}]})
        return resolve_candidate(config.candidates[0], config)

    far, near = resolved(uri + "/"), resolved(str(model))
    assert (far.candidate_id, far.files_digest, far.parameters) == (near.candidate_id, near.files_digest, 12)


def test_only_what_is_read_is_copied_and_only_once(
    bucket: str, model: Path, cache: Path, opened: list[str]
) -> None:
    for name in ("optimizer.pt", "README.md", "trainer_state.json", "adapter.safetensors", "model.py"):
        (model / name).write_bytes(b"not read")
    uri = upload(model, f"{bucket}/model")
    storage.write_bytes(f"{uri}/onnx/config.json", b"{}")
    first = locate_files(settings(uri))
    assert sorted(opened) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert first.weights[0].read_bytes() == (model / "model.safetensors").read_bytes()
    assert locate_files(settings(uri)) == first and len(opened) == 3
    assert copies(cache) == [first.folder]
    # What is allowed decides what is read, so that is another copy.
    locate_files(settings(uri, allow_remote_code=True))
    assert opened.count("model.py") == 1 and len(copies(cache)) == 2


def test_shards_are_those_of_the_index(bucket: str, model: Path, opened: list[str]) -> None:
    (model / "model.safetensors").unlink()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name in names:
        save_file({name: np.zeros(3, np.float32)}, model / name)
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", names, strict=True))})
    )
    (model / "consolidated.safetensors").write_bytes(b"another copy")
    uri = upload(model, f"{bucket}/model")
    assert [p.name for p in locate_files(settings(uri)).weights] == names
    assert "consolidated.safetensors" not in opened
    storage.remove(f"{uri}/{names[1]}")
    with pytest.raises(CandidateError, match=rf"'far'.*index\.json names {names[1]}, not in the folder"):
        locate_files(settings(uri))


def test_other_files_under_the_old_name_are_copied_anew(bucket: str, model: Path, cache: Path) -> None:
    uri = upload(model, f"{bucket}/model")
    first = locate_files(settings(uri)).digest()
    shutil.rmtree(model)
    time.sleep(1.1)  # the server counts in seconds
    upload(stub_checkpoint(model, seed=5), uri)
    assert locate_files(settings(uri)).digest() != first
    assert len(copies(cache)) == 2


def test_a_gguf_file(bucket: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(f"{bucket}/models/m.gguf", b"GGUF and more")
    monkeypatch.setattr("forecast.inputs.models.resolve.gguf_parameters", lambda path, name: 3)
    files = locate_files(settings(f"{bucket}/models/m.gguf"))
    assert files.gguf is not None and files.gguf.name == "m.gguf"
    assert files.gguf.read_bytes() == b"GGUF and more" and files.gguf.parent.parent == cache
    with pytest.raises(CandidateError, match=r"no GGUF file at s3://.*/none\.gguf"):
        locate_files(settings(f"{bucket}/models/none.gguf"))


def test_what_is_missing_or_damaged_is_said(bucket: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(CandidateError, match="'far': no model folder at s3://"):
        locate_files(settings(f"{bucket}/nothing"))
    storage.write_bytes(f"{bucket}/bare/model.safetensors", b"")
    with pytest.raises(CandidateError, match=r"s3://.*/bare has no config\.json"):
        locate_files(settings(f"{bucket}/bare"))
    storage.write_bytes(f"{bucket}/pickled/config.json", b"{}")
    storage.write_bytes(f"{bucket}/pickled/pytorch_model.bin", b"pickle")
    with pytest.raises(CandidateError, match="pickled and can run code"):
        locate_files(settings(f"{bucket}/pickled"))
    truncate(model)
    with pytest.raises(CandidateError, match="damaged"):
        locate_files(settings(upload(model, f"{bucket}/cut")))


def test_a_model_that_changes_while_it_is_copied_leaves_nothing(
    bucket: str, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = upload(model, f"{bucket}/model")
    copy = fetched_module._Remote._copy_one

    def meanwhile(self: Any, name: str, target: Path) -> None:
        copy(self, name, target)
        storage.write_bytes(f"{uri}/tokenizer.json", b'{"longer": true}')

    monkeypatch.setattr(fetched_module._Remote, "_copy_one", meanwhile)
    with pytest.raises(CandidateError, match="changed while it was copied"):
        locate_files(settings(uri))
    assert copies(cache) == []


def test_a_store_or_disk_that_fails_is_not_the_candidates_fault(
    bucket: str, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = upload(model, f"{bucket}/model")

    def broken(*_: Any) -> None:
        raise OSError("When reading: NETWORK_CONNECTION")

    with monkeypatch.context() as patch:
        patch.setattr(fetched_module._Remote, "_copy_one", broken)
        with pytest.raises(ForecastError, match=r"could not be copied.*NETWORK.*AWS_\*") as caught:
            locate_files(settings(uri))
        assert not isinstance(caught.value, CandidateError)
    assert copies(cache) == []
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 100_000_000))
    with pytest.raises(ForecastError, match=r"needs 0\.0 GB.*0\.1 GB free; make room, or .* FORECAST_CACHE"):
        locate_files(settings(uri))
    assert copies(cache) == []


def test_several_at_once_share_one_copy(bucket: str, model: Path, cache: Path) -> None:
    uri = upload(model, f"{bucket}/model")
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(locate_files(settings(uri)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(set(map(str, found))) == 1
    assert copies(cache) == [found[0].folder]


def test_what_a_killed_process_left_is_swept_and_a_living_ones_is_not(
    bucket: str, model: Path, cache: Path
) -> None:
    uri = upload(model, f"{bucket}/model")
    host = os.uname().nodename
    dead, alive = (cache / f".{host}@{pid}@{'0' * 32}.tmp" for pid in (2**22 + 1, os.getpid()))
    for folder in (dead, alive):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    locate_files(settings(uri))
    assert not dead.exists() and alive.exists()


def test_beyond_the_bound_what_was_not_used_for_longest_goes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = {"a": 5, "b": 9, "c": 7, "d": 0.1}
    for name, ago in hours.items():
        (cache / name).mkdir(parents=True)
        (cache / name / "weights").write_bytes(bytes(1000))
        when = time.time() - ago * 3600
        os.utime(cache / name, (when, when))
    keep_within_bound(cache)
    assert len(copies(cache)) == 4, "no bound, nothing goes"
    monkeypatch.setenv("FORECAST_CACHE_GB", "0.000003")
    keep_within_bound(cache)
    assert [p.name for p in copies(cache)] == ["a", "c", "d"]
    keep_within_bound(cache, needed=1500)
    assert [p.name for p in copies(cache)] == ["d"]
    monkeypatch.setenv("FORECAST_CACHE_GB", "0")
    keep_within_bound(cache)
    assert [p.name for p in copies(cache)] == ["d"], "used within the last hour"
    monkeypatch.setenv("FORECAST_CACHE_GB", "much")
    with pytest.raises(ConfigError, match="FORECAST_CACHE_GB=much: expected a number"):
        keep_within_bound(cache)


def test_the_marker_of_a_checkpoint_is_not_a_file_of_the_model(bucket: str, model: Path) -> None:
    uri = upload(model, f"{bucket}/model")
    assert (model / MARKER).exists()
    assert MARKER not in {p.name for p in locate_files(settings(uri)).folder.iterdir()}
    fs = pyarrow.fs.FileSystem.from_uri(uri)[0]
    assert fs.get_file_info(f"{uri.removeprefix('s3://')}/{MARKER}").size == 0
