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


def test_pulling_checks_every_byte_and_goes_on(tmp_path: Path) -> None:
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


def test_pulling_what_is_not_what_was_written(tmp_path: Path) -> None:
    head: Any = serving({**FILES, "ranking.json": b"cut o"}, FILES)
    (tmp_path / "ranking.json").write_bytes(b"old")
    with pytest.raises(ForecastError, match=r"ranking.json is not what forecast-x-1 wrote"):
        pull(head, job(), tmp_path)
    assert (tmp_path / "ranking.json").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["ranking.json"]


@pytest.mark.parametrize("name", ["../out.json", "/etc/out.json", "reports/../../out.json"])
def test_pulling_writes_nowhere_else(tmp_path: Path, name: str) -> None:
    head: Any = serving({name: b"x"})
    with pytest.raises(ForecastError, match="outside its folder"):
        pull(head, job(), tmp_path / "to")
    assert not list(tmp_path.iterdir())


def test_nothing_to_pull(tmp_path: Path) -> None:
    nothing: Any = MadeUpHead()
    with pytest.raises(NoDataError, match="still runs"):
        pull(nothing, job("RUNNING"), tmp_path)
    with pytest.raises(NoDataError, match="left no list of results"):
        pull(nothing, job("STOPPED"), tmp_path)
    gone: Any = serving({}, FILES)
    with pytest.raises(NoDataError, match=r"ranking.json of forecast-x-1 is no longer"):
        pull(gone, job(), tmp_path)


def test_pulling_to_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_folder_that_both_share_is_read_there(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / ".jobs").mkdir(parents=True)
    (shared / "ranking.json").write_bytes(b"{}")
    (shared / ".jobs" / "forecast-x-1.json").write_bytes(manifest({"ranking.json": b"{}"}))
    nothing: Any = MadeUpHead()
    pulled = pull(nothing, job(forecast_output=str(shared)), tmp_path / "to")
    assert pulled.source == str(shared) and (tmp_path / "to" / "ranking.json").read_bytes() == b"{}"
    with pytest.raises(NoDataError):
        pull(nothing, job(forecast_output=str(shared)), tmp_path / "to", through_head=True)
