"""What every test of engines needs: no hub, no memory of other tests, one thread."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from forecast.engines import loading


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loading.forget_models()
    yield
    loading.forget_models()
    torch.set_num_threads(threads)
