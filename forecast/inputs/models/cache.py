"""Model files from an object store, copied to this machine once and kept while nothing changes there.

A copy is addressed by the URI and by name, size and time of every file that is read, so a model saved anew
under its old name is copied anew. It is made aside and renamed: what is in the cache is whole. Every node
that loads a candidate makes its own copy, below `FORECAST_CACHE` or `~/.cache/proxy-forecast/models`. With
`FORECAST_CACHE_GB` set, copies that were not used for longest are removed once there is more than that.
"""

import contextlib
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from forecast import storage
from forecast.config.candidates import CandidateConfig
from forecast.errors import CandidateError, ConfigError, ForecastError
from forecast.inputs.models.fingerprint import digest_of
from forecast.inputs.models.layout import layout_of

_PARALLEL = 8  # files at a time: one connection of an object store is slower than a network card
_CHUNK = 1 << 22
_HEADROOM = 1 << 28  # bytes of disk that are left to others
# What was used this recently may be about to be loaded, whatever the bound says.
_IN_USE_SECONDS = 3600.0
_ASIDE = re.compile(r"^\.(?P<host>.+)@(?P<pid>\d+)@[0-9a-f]{32}\.tmp$")  # see `_aside`


@dataclass(frozen=True)
class _Remote:
    """A candidate's files in an object store."""

    settings: CandidateConfig
    uri: str
    fs: pafs.FileSystem
    inner: str

    @property
    def is_file(self) -> bool:
        return self.uri.endswith(".gguf")

    def stamps(self) -> dict[str, tuple[int, int]]:
        """The files that are read, as they are now: name -> bytes, time of the last change in nanoseconds."""
        if self.is_file:
            info = self.fs.get_file_info(self.inner)
            if info.type != pafs.FileType.File:
                raise CandidateError(f"candidate {self.settings.name!r}: no GGUF file at {self.uri}")
            return {info.base_name: (info.size, info.mtime_ns)}
        listed = self.fs.get_file_info(pafs.FileSelector(self.inner, allow_not_found=True))
        present = {e.base_name: (e.size, e.mtime_ns) for e in listed if e.type == pafs.FileType.File}
        if not present:
            raise CandidateError(f"candidate {self.settings.name!r}: no model folder at {self.uri}")

        sizes = {name: size for name, (size, _) in present.items()}
        layout = layout_of(
            self.uri, sizes, lambda name: storage.read_bytes(f"{self.uri}/{name}"), self.settings
        )
        return {name: present[name] for name in (*layout.weights, *layout.others)}

    def copy_to(self, folder: Path, stamps: Mapping[str, tuple[int, int]]) -> None:
        """Copy these files, several at a time."""
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(lambda name: self._copy_one(name, folder / name), stamps))
        if self.stamps() != stamps or any((folder / n).stat().st_size != s for n, (s, _) in stamps.items()):
            raise CandidateError(
                f"candidate {self.settings.name!r}: {self.uri} changed while it was copied; run the same "
                "command once it is whole"
            )

    def _copy_one(self, name: str, target: Path) -> None:
        source = self.inner if self.is_file else f"{self.inner}/{name}"
        with self.fs.open_input_stream(source, compression=None) as stream, target.open("wb") as out:
            while block := stream.read(_CHUNK):
                out.write(block)


def fetched(settings: CandidateConfig) -> Path:
    """The local copy of a candidate's model folder or GGUF file at `s3://...`.

    Raises:
        CandidateError: nothing there, files missing, or changed while they were copied; names the candidate.
        ForecastError: the store cannot be reached, or this disk has no room.
    """
    uri = settings.source.rstrip("/")
    try:
        remote = _Remote(settings, uri, *storage.filesystem(uri))
        stamps = remote.stamps()
        copy = cache_folder() / digest_of(uri, sorted(stamps.items()))
        if not copy.is_dir():
            _make_copy(remote, stamps, copy)
        os.utime(copy)
        keep_within_bound(copy.parent, spare=copy)
    except OSError as error:
        # Pyarrow's errors of a store are all OSErrors. Another try may well succeed.
        raise ForecastError(
            f"candidate {settings.name!r}: {uri} could not be copied to {cache_folder()}: {error}; check the "
            "address, the credentials (AWS_* variables) and the disk, then run the same command again"
        ) from error
    return copy / remote.inner.rpartition("/")[2] if remote.is_file else copy


def cache_folder() -> Path:
    """Where copies are kept."""
    if said := os.environ.get("FORECAST_CACHE"):
        return Path(said)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proxy-forecast" / "models"


def _make_copy(remote: _Remote, stamps: Mapping[str, tuple[int, int]], copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    _sweep(copy.parent)
    needed = sum(size for size, _ in stamps.values())
    keep_within_bound(copy.parent, needed)
    free = shutil.disk_usage(copy.parent).free
    if needed + _HEADROOM > free:
        raise ForecastError(
            f"candidate {remote.settings.name!r}: {remote.uri} needs {needed / 1e9:.1f} GB, and the disk of "
            f"{copy.parent} has {free / 1e9:.1f} GB free; make room, or name another folder by FORECAST_CACHE"
        )
    aside = _aside(copy)
    try:
        aside.mkdir()
        remote.copy_to(aside, stamps)
        try:
            aside.rename(copy)
        except OSError:
            if not copy.is_dir():
                raise
            # Another process was faster: its copy is as good.
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def keep_within_bound(folder: Path, needed: int = 0, spare: Path | None = None) -> None:
    """Remove copies, those first that were not used for longest, until the rest and `needed` bytes fit.

    Args:
        spare: a copy that stays in any case, as do those used within the last hour.

    Raises:
        ConfigError: `FORECAST_CACHE_GB` is no number.
    """
    if (bound := _bound()) is None:
        return
    copies = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    sizes = {p: sum(f.stat().st_size for f in p.iterdir()) for p in copies}
    used = {p: p.stat().st_mtime for p in copies}
    total = sum(sizes.values()) + needed
    for copy in sorted(copies, key=lambda p: used[p]):
        if total <= bound:
            return
        if copy != spare and time.time() - used[copy] > _IN_USE_SECONDS:
            # Renamed first: a reader finds the whole copy or none.
            going = _aside(copy)
            with contextlib.suppress(OSError):
                copy.rename(going)
                shutil.rmtree(going)
                total -= sizes[copy]


def _bound() -> float | None:
    if not (text := os.environ.get("FORECAST_CACHE_GB")):
        return None
    try:
        bound = float(text) * 1e9
    except ValueError:
        bound = -1.0
    if not bound >= 0:
        raise ConfigError(f"FORECAST_CACHE_GB={text}: expected a number of gigabytes, e.g. 200")
    return bound


def _aside(copy: Path) -> Path:
    return copy.with_name(f".{socket.gethostname()}@{os.getpid()}@{uuid.uuid4().hex}.tmp")


def _sweep(folder: Path) -> None:
    """Remove what processes of this host left behind when they were killed."""
    for path in folder.glob(".*.tmp"):
        match = _ASIDE.match(path.name)
        if match and match["host"] == socket.gethostname() and not storage.is_alive(int(match["pid"])):
            shutil.rmtree(path, ignore_errors=True)
