"""When a checkpoint without a completion marker counts as complete: nothing in it has changed for a while."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.fs as pafs

from forecast import storage


@dataclass(frozen=True)
class Change:
    """When an entry of a folder last changed, in Unix time; None where its store tells no times.

    `entered`: when this machine's disk wrote that down. It cannot be set, so it corrects a time that was set
    to the future, as unpacking or copying may do.
    """

    path: str
    changed: float | None
    entered: float | None = None

    def known(self, now: float) -> float | None:
        """The time of the change; the one written down by the disk where the other lies ahead."""
        if self.changed is None or self.changed <= now or self.entered is None:
            return self.changed
        return min(self.changed, self.entered)


def changes_in(folder: str) -> tuple[Change, ...]:
    """All entries of a folder, those of its subfolders and itself among them; local or `s3://...`."""
    if not storage.is_remote(folder):
        return tuple(_entries(Path(folder)))
    fs, inner = storage.filesystem(folder)
    entries = fs.get_file_info(pafs.FileSelector(inner, recursive=True))
    times = ((e.base_name, e.mtime_ns) for e in entries if e.type == pafs.FileType.File)
    return tuple(Change(name, None if ns is None else ns / 1e9) for name, ns in times)


def _entries(folder: Path) -> Iterator[Change]:
    for path in [folder, *folder.rglob("*")]:
        stat = path.lstat()
        yield Change(path.name, stat.st_mtime, stat.st_ctime)


def unsettled(changes: tuple[Change, ...], now: float, minutes: float) -> str | None:
    """Why these entries may still change; None where none has for so many minutes."""
    path, newest = "", 0.0
    for change in changes:
        if (at := change.known(now)) is None:
            return (
                f"its store tells no time of {change.path}, so settled_minutes cannot be used; use a marker"
            )
        path, newest = max((path, newest), (change.path, at), key=lambda pair: pair[1])
    age = (now - newest) / 60
    if age >= minutes:
        return None
    if age >= 0:
        return f"{path} changed {age:.0f} minutes ago, settled_minutes is {minutes:g}"
    when = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{path} is dated {when}, {-age:,.0f} minutes ahead of this machine's clock; it counts as complete "
        f"{minutes:g} minutes after that; if the date is wrong, `touch` it"
    )
