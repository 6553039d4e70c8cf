"""The folder that loaders see."""

from pathlib import Path

import pytest

from forecast.inputs.models.resolve import ModelFiles
from forecast.inputs.models.view import view_of


def files_in(folder: Path, *names: str, weights: tuple[str, ...], gguf: str | None = None) -> ModelFiles:
    folder.mkdir()
    for name in (*weights, *names, "stray.bin"):
        (folder / name).write_text(name)
    return ModelFiles(
        folder=folder,
        gguf=folder / gguf if gguf else None,
        weights=tuple(folder / name for name in weights),
        others=tuple(folder / name for name in names),
        parameters=None,
    )


def contents(files: ModelFiles) -> dict[str, str]:
    assert all(path.parent == files.folder for path in files.weights)
    return {path.name: path.read_text() for path in files.folder.iterdir()}


def test_only_what_was_located_is_shown_and_only_within_the_block(tmp_path: Path) -> None:
    shards = ("a.safetensors", "b.safetensors")
    files = files_in(tmp_path / "m", "config.json", "model.safetensors.index.json", weights=shards)
    with view_of(files) as view:
        shown = contents(view)
        assert view.folder.name == "m"
        assert view.digest() == files.digest()
    assert sorted(shown) == ["a.safetensors", "b.safetensors", "config.json", "model.safetensors.index.json"]
    assert all(name == text for name, text in shown.items())
    assert not view.folder.exists()
    assert len(list((tmp_path / "m").iterdir())) == 5


def test_an_index_beside_weights_in_one_file_is_not_shown(tmp_path: Path) -> None:
    files = files_in(tmp_path / "m", "model.safetensors.index.json", weights=("model.safetensors",))
    with view_of(files) as view:
        assert list(contents(view)) == ["model.safetensors"]


def test_an_index_of_one_shard_is_shown(tmp_path: Path) -> None:
    files = files_in(tmp_path / "m", "model.safetensors.index.json", weights=("a.safetensors",))
    with view_of(files) as view:
        assert len(contents(view)) == 2


def test_a_gguf_file_stands_alone_under_its_name(tmp_path: Path) -> None:
    with view_of(files_in(tmp_path / "m", weights=("q4.gguf",), gguf="q4.gguf")) as view:
        assert contents(view) == {"q4.gguf": "q4.gguf"}
        assert view.gguf == view.folder / "q4.gguf"


def test_relative_folders_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files_in(tmp_path / "m", weights=("a",))
    monkeypatch.chdir(tmp_path / "m")
    with view_of(ModelFiles(Path(), None, (Path("a"),), (), None)) as view:
        assert contents(view) == {"a": "a"}
