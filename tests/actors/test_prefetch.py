"""Reading ahead: whole files, never against the memory of the candidate at work, never an error."""

from pathlib import Path

import pytest

from actors import prefetch
from actors.prefetch import Prefetcher, read_through
from forecast.config.schema import CandidateConfig
from forecast.inputs.models.resolve import Candidate, ModelFiles


def candidate(name: str) -> Candidate:
    settings = CandidateConfig(name=name, source="/models/" + name)
    return Candidate(name, name, settings, "torch", "float32", "raw", f"files of {name}", None)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Paths that were read ahead; every candidate has one file of 10 bytes, except `lost`."""
    seen: list[Path] = []

    def locate(settings: CandidateConfig) -> ModelFiles:
        if settings.name == "lost":
            raise OSError("no such model")
        path = tmp_path / settings.name
        path.write_bytes(b"0123456789")
        return ModelFiles(tmp_path, None, (path,), (), None)

    monkeypatch.setattr(prefetch, "locate_files", locate)
    monkeypatch.setattr(prefetch, "read_through", lambda paths: seen.extend(paths))
    return seen


def test_prefetch_reads_whole_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * (5 << 20))
    (tmp_path / "b").write_bytes(b"yz")
    assert read_through([tmp_path / "a", tmp_path / "b"]) == (5 << 20) + 2


def test_prefetch_reads_each_candidate_once_and_ignores_failures(read: list[Path], tmp_path: Path) -> None:
    ahead = Prefetcher(free_memory=lambda: 1000)
    for name in ("a", "a", "lost", "b"):
        ahead.start(candidate(name))
        ahead.wait()
    assert read == [tmp_path / "a", tmp_path / "b"]


def test_prefetch_skips_files_larger_than_free_memory(read: list[Path]) -> None:
    ahead = Prefetcher(free_memory=lambda: 19)
    ahead.start(candidate("a"))
    ahead.wait()
    assert read == []
    assert prefetch._available() > 1 << 20
