"""What every test of engines needs: no hub, no memory of other tests, one thread."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import llama, save_model

from forecast.engines import hf_loading


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    hf_loading.forget_models()
    yield
    hf_loading.forget_models()
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plain Llama."""
    path = tmp_path / "model"
    save_model(path, llama())
    return path
