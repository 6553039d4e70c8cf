"""Fetching results: every byte checked, nothing written elsewhere; the head is made up."""

import errno
import hashlib
import json
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_head import FILES, MadeUpHead, job

from actors.jobs import pull as pull_module
from actors.jobs.pull import pull
from forecast.errors import ForecastError, NoDataError

Usage = namedtuple("Usage", "total used free")


def manifest(files: dict[str, bytes]) -> bytes:
    entries = [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    ]
    return json.dumps({"job": "forecast-x-1", "files": entries}).encode()


def serving(files: dict[str, bytes], listed: dict[str, bytes] | None = None) -> MadeUpHead:
    below = "forecast-results/forecast-x-1"
    served = {f"{below}/{name}": data for name, data in files.items()}
    return MadeUpHead(files={**served, f"{below}/.jobs/forecast-x-1.json": manifest(listed or files)})


def test_pull_verifies_checksums_and_resumes(tmp_path: Path) -> None:
    head: Any = serving(FILES)
    seen: list[tuple[int, int]] = []
    (tmp_path / "ranking.json").write_bytes(b"[]")
    pulled = pull(head, job(), tmp_path, lambda done, total: seen.append((done, total)))
    arrived = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert arrived == FILES
    assert seen[-1] == (62, 62) and len(pulled.fetched) == 3
    head.asked.clear()
    assert pull(head, job(), tmp_path).fetched == ()
    assert len(head.asked) == 1, "only the list was asked for"


def test_pull_refuses_a_file_with_another_checksum(tmp_path: Path) -> None:
    head: Any = serving({**FILES, "ranking.json": b"cut o"}, FILES)
    (tmp_path / "ranking.json").write_bytes(b"old")
    with pytest.raises(ForecastError, match=r"ranking.json is not what forecast-x-1 wrote"):
        pull(head, job(), tmp_path)
    assert (tmp_path / "ranking.json").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["ranking.json"]


@pytest.mark.parametrize(
    "name",
    [
        "../out.json",
        "/etc/out.json",
        "reports/../../out.json",
        "reports/./out.json",
        "reports//out.json",
        "reports/",
        "reports\\..\\out.json",
        "a\0.json",
        "reports/a\0b",
        "reports/\x1b[2J.html",
        "reports/a\nb.html",
        "reports/\ud800.html",
        ".bashrc",
        ".ssh/authorized_keys",
        "reports/.git/hooks/post-checkout",
        "lake/x.parquet",
        "setup.py",
        "",
        ".",
        "..",
    ],
)
def test_pull_refuses_names_outside_the_results_folder(tmp_path: Path, name: str) -> None:
    head: Any = serving({name: b"x"})
    with pytest.raises(ForecastError, match="outside its folder or no result"):
        pull(head, job(), tmp_path / "to")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (b"<html>", "list of results"),
        (b"[1]", "list of results"),
        (b'{"files": 3}', "list of results"),
        (b'{"files": [{"name": 3, "bytes": 1, "sha256": ""}]}', "no result"),
        (b'{"files": [{"name": "a.json", "bytes": -1, "sha256": ""}]}', "a size is -1"),
        (b'{"files": [{"name": "a.json", "bytes": 1e9, "sha256": ""}]}', "a size is 1000000000.0"),
        (b'{"files": [{"name": "a.json", "sha256": ""}]}', "KeyError"),
        (b'{"files": [{"name": "a.json", "bytes": 30000000000, "sha256": ""}]}', "30 GB; at most 20 GB"),
        (b"[" * 100_000, "list of results"),
    ],
)
def test_pull_refuses_a_malformed_list_of_results(tmp_path: Path, listed: bytes, said: str) -> None:
    head: Any = MadeUpHead()
    head.files["forecast-results/forecast-x-1/.jobs/forecast-x-1.json"] = listed
    head.served_file = lambda node, name, lines=-1: [head.files[name]]
    with pytest.raises(ForecastError, match=said):
        pull(head, job(), tmp_path / "to")
    assert not list(tmp_path.iterdir())


def test_pull_stops_reading_a_file_longer_than_listed(tmp_path: Path) -> None:
    read = 0

    def endless(node: str, name: str, lines: int = -1) -> Iterator[bytes]:
        nonlocal read
        if name.endswith("forecast-x-1.json"):
            yield manifest({"ranking.json": b"{}"})
        while True:
            read += 1
            yield b"0" * 100

    head: Any = MadeUpHead()
    head.served_file = endless
    with pytest.raises(ForecastError, match="list of results"):
        pull(head, job(), tmp_path)
    assert 100 * read < 17_000_000
    read = 0
    head.served_file = lambda node, name, lines=-1: (
        [manifest({"ranking.json": b"{}"})] if "/.jobs/" in name else endless(node, name)
    )
    with pytest.raises(ForecastError, match="is not what forecast-x-1 wrote"):
        pull(head, job(), tmp_path)
    assert read == 1 and not list(tmp_path.iterdir())


def test_pull_does_not_follow_links_in_the_results_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to/reports").symlink_to(tmp_path / "elsewhere")
    head: Any = serving({"reports/day.html": b"x"})
    with pytest.raises(ForecastError, match="is a link out of"):
        pull(head, job(), tmp_path / "to")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_pull_refuses_conflicting_results(tmp_path: Path) -> None:
    head: Any = serving({"reports/a": b"x", "reports/a/b": b"y"})
    with pytest.raises(ForecastError, match="cannot be written to"):
        pull(head, job(), tmp_path / "to")


def test_pull_of_a_job_without_results_is_an_error(tmp_path: Path) -> None:
    nothing: Any = MadeUpHead()
    with pytest.raises(NoDataError, match="still runs"):
        pull(nothing, job("RUNNING"), tmp_path)
    with pytest.raises(NoDataError, match="left no list of results"):
        pull(nothing, job("STOPPED"), tmp_path)
    gone: Any = serving({}, FILES)
    with pytest.raises(NoDataError, match=r"ranking.json of forecast-x-1 is no longer"):
        pull(gone, job(), tmp_path)


def test_pull_to_a_full_disk_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head: Any = serving(FILES)
    with monkeypatch.context() as patch:
        patch.setattr(pull_module.shutil, "disk_usage", lambda path: Usage(100, 90, 10))
        with pytest.raises(ForecastError, match="disk of this machine is full: the results need"):
            pull(head, job(), tmp_path)
    assert not list(tmp_path.iterdir())

    # It fills up meanwhile.
    def full(*_: object) -> Iterator[bytes]:
        yield b"{"
        raise OSError(errno.ENOSPC, "No space left on device")

    def read(name: str) -> Any:
        return [manifest(FILES)] if ".jobs" in name else full()

    with monkeypatch.context() as patch:
        patch.setattr(pull_module, "_source", lambda *_: ("head", read))
        with pytest.raises(ForecastError, match="disk of this machine is full"):
            pull(head, job(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_pull_reads_a_shared_folder_in_place(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / ".jobs").mkdir(parents=True)
    (shared / "ranking.json").write_bytes(b"{}")
    (shared / ".jobs" / "forecast-x-1.json").write_bytes(manifest({"ranking.json": b"{}"}))
    nothing: Any = MadeUpHead()
    pulled = pull(nothing, job(forecast_output=str(shared)), tmp_path / "to")
    assert pulled.source == str(shared) and (tmp_path / "to" / "ranking.json").read_bytes() == b"{}"
    with pytest.raises(NoDataError):
        pull(nothing, job(forecast_output=str(shared)), tmp_path / "to", through_head=True)
