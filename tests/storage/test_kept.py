"""Kept results: found by content, and nothing but what was written here is believed."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from forecast.config.schema import RankingConfig
from forecast.storage.kept import content_key, kept, kept_or_computed


@dataclass(frozen=True)
class Found:
    figure: float
    names: tuple[str, ...]
    by_task: dict[str, float | None]


FOUND = Found(1 / 3, ("a", "b"), {"x": 0.1, "y": None})


class Desk:
    def __init__(self, folder: Path) -> None:
        self.folder, self.computed, self.notes = folder, 0, list[str]()

    def get(self, *inputs: object) -> Found:
        def compute() -> Found:
            self.computed += 1
            return FOUND

        return kept_or_computed(str(self.folder.parent), "found", Found, inputs, compute, self.notes.append)


def test_second_request_with_equal_inputs_reads_the_first_result(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "kept")
    assert desk.get(np.arange(3.0), {"n": 1}) == desk.get(np.arange(3.0), {"n": 1}) == FOUND
    assert desk.computed == 1 and not desk.notes


@pytest.mark.parametrize(
    "other",
    [
        np.array([0.0, 1, 2, 3]),
        np.array([0.0, 1, 3]),
        np.arange(3),
        np.arange(3.0).reshape(3, 1),
        ["0", "1"],
        ["01"],
        ("01",),
        RankingConfig(seed=1),
        RankingConfig(),
        FOUND,
        None,
        "None",
        0,
        False,
    ],
)
def test_other_inputs_have_another_key(other: object) -> None:
    assert content_key(other) != content_key(np.arange(3.0)) and content_key(other) == content_key(other)


def test_keys_of_all_kinds_of_value_differ() -> None:
    values = [["0", "1"], ["01"], ("01",), RankingConfig(seed=1), RankingConfig(), None, "None", 0, False]
    assert len({content_key(value) for value in values}) == len(values)


def test_value_without_content_has_no_key() -> None:
    with pytest.raises(TypeError):
        content_key(object())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[1]",
        b'{"figure": "much", "names": [], "by_task": {}}',
        b'{"figure": 1, "names": [], "by_task": {}, "other": 1}',
        b"[" * 100_000,
    ],
)
def test_damaged_or_foreign_file_is_noted_and_computed_again(tmp_path: Path, data: bytes) -> None:
    desk = Desk(tmp_path / "kept")
    desk.get(1)
    (file,) = desk.folder.iterdir()
    file.write_bytes(data)
    assert desk.get(1) == FOUND and desk.computed == 2 and len(desk.notes) == 1
    assert desk.get(1) == FOUND and desk.computed == 2, "the file is whole again"


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_not_opened_nor_followed(tmp_path: Path, what: str) -> None:
    desk = Desk(tmp_path / "kept")
    desk.get(1)
    (file,) = desk.folder.iterdir()
    target = tmp_path / "elsewhere.json"
    target.write_bytes(file.read_bytes())
    file.unlink()
    if what == "link":
        file.symlink_to(target)
    elif what == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    before = target.read_bytes()
    assert desk.get(1) == FOUND and desk.computed == 2 and len(desk.notes) == 1
    assert target.read_bytes() == before


def test_linked_folder_is_neither_read_nor_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kept").symlink_to(tmp_path / "elsewhere")
    desk = Desk(tmp_path / "kept")
    assert desk.get(1) == FOUND and not list((tmp_path / "elsewhere").iterdir())


def test_oldest_results_are_swept_and_other_files_stay(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "kept")
    desk.folder.mkdir()
    (desk.folder / "notes.json").write_text("mine")
    for i in range(40):
        desk.get(i)
    assert len(list(desk.folder.iterdir())) == 33 and (desk.folder / "notes.json").read_text() == "mine"


def test_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Desk(tmp_path / "file" / "kept").get(1) == FOUND


def test_reader_that_must_not_write_uses_what_is_kept_and_keeps_nothing(tmp_path: Path) -> None:
    def get() -> Found | None:
        return kept(str(tmp_path), "found", Found, (1,), print)

    assert get() is None and not list(tmp_path.iterdir())
    assert Desk(tmp_path / "kept").get(1) == get()
