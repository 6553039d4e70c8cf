"""Fetching a finished job's results: rankings, reports and the warehouse; the lake stays on the cluster.

Where they come from: an object store is read directly, with this machine's own credentials; a folder that
this machine shares with the cluster is read as it is; anything else comes from the head (see `start`), which
needs nothing but its address and token. Every file is checked against the SHA-256 that the job wrote down.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from actors.jobs.client import Head, Job
from actors.jobs.entrypoint import SERVED_BELOW
from actors.jobs.package import file_sha256
from forecast import storage
from forecast.errors import ForecastError, NoDataError, shortened

MOST_BYTES = 20_000_000_000  # of all results; a warehouse of a hundred candidates has some hundred MB
_MANIFEST_BYTES = 16_000_000

Read = Callable[[str], Iterable[bytes]]


@dataclass(frozen=True)
class Result:
    """One file: its name below the output, its size and SHA-256 when the job ended."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Pulled:
    """What is on this machine now; `fetched` leaves out what had been there."""

    folder: Path
    source: str
    results: tuple[Result, ...]
    fetched: tuple[str, ...]


def pull(
    head: Head,
    job: Job,
    folder: Path,
    on_bytes: Callable[[int, int], None] = lambda done, total: None,
    through_head: bool = False,
) -> Pulled:
    """Bring the results of a job into a folder.

    Args:
        on_bytes: called with bytes done and bytes of all files.
        through_head: do not look whether this machine shares the folder of results.

    Raises:
        NoDataError: the job has no results (yet).
        ForecastError: the disk is full, or what arrives is not what the job wrote.
    """
    if job.running:
        raise NoDataError(
            f"{job.job_id} still runs; results are there when it has ended: forecast logs --follow"
        )
    source, read = _source(head, job, through_head)
    results = _manifest(job, read)
    total, done = sum(result.bytes for result in results), 0
    with _room(folder, total):
        folder.mkdir(parents=True, exist_ok=True)
        missing = [r for r in results if not _is_there(folder / r.name, r)]
        needed = sum(result.bytes for result in missing)
        if (free := shutil.disk_usage(folder).free) < needed:
            raise _full(folder, needed, free)
        done = total - needed
        for result in missing:
            _fetch(job, result, read(result.name) if result.bytes else (), folder)
            done += result.bytes
            on_bytes(done, total)
    return Pulled(folder, source, results, tuple(result.name for result in missing))


def _source(head: Head, job: Job, through_head: bool) -> tuple[str, Read]:
    output = job.metadata.get("forecast_output", "")
    if storage.is_remote(output):
        return output, lambda name: _remote_chunks(storage.join(output, name))
    if not through_head and Path(output, ".jobs", f"{job.job_id}.json").is_file():
        return output, lambda name: _chunks(Path(output, name))
    node = job.node_id
    if node is None:
        raise NoDataError(
            f"{job.job_id} never started ({job.status}: {job.message[:300]}), so it has no results"
        )
    return head.url, lambda name: head.served_file(node, f"{SERVED_BELOW}/{job.job_id}/{name}")


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            yield chunk


def _remote_chunks(path: str) -> Iterator[bytes]:
    fs, inner = storage.filesystem(path)
    with fs.open_input_stream(inner) as stream:
        while chunk := stream.read(1 << 20):
            yield chunk


def _manifest(job: Job, read: Read) -> tuple[Result, ...]:
    try:
        text = b"".join(_at_most(read(f".jobs/{job.job_id}.json"), _MANIFEST_BYTES))
    except FileNotFoundError:
        raise NoDataError(
            f"{job.job_id} ({job.status}) left no list of results: it did not come to its end, see "
            f"forecast logs {job.job_id}; submit it again, finished units are not done again"
        ) from None
    try:
        files = json.loads(text)["files"]
        results = tuple(Result(_safe(f["name"]), _size(f["bytes"]), str(f["sha256"])) for f in files)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        said = error if isinstance(error, ValueError) else type(error).__name__
        raise ForecastError(
            f"the list of results of {job.job_id} is not one that forecast writes ({said}); nothing fetched"
        ) from None
    if not results:
        raise NoDataError(f"{job.job_id} ({job.status}) has no results; see forecast logs {job.job_id}")
    if (total := sum(result.bytes for result in results)) > MOST_BYTES:
        raise ForecastError(
            f"the results of {job.job_id} are {total / 1e9:,.0f} GB; at most {MOST_BYTES / 1e9:,.0f} GB are "
            "fetched: copy them from the cluster by other means"
        )
    return results


def _safe(name: object) -> str:
    """A name as jobs list them; the head that serves the list may be anybody's.

    Raises:
        ValueError: a file of that name would be none of a job's results, or lie outside the folder.
    """
    place = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
    plain = isinstance(name, str) and str(place) == name and name.isprintable() and "\\" not in name
    inside = not place.is_absolute() and not any(part.startswith(".") for part in place.parts)
    ours = place.parts[:1] in (("reports",), ("runs",)) or (
        len(place.parts) == 1 and place.suffix in (".json", ".html", ".md", ".duckdb")
    )
    if plain and inside and ours:
        return str(name)
    raise ValueError(f"it names {shortened(name)}, which is outside its folder or no result")


def _size(n_bytes: object) -> int:
    if isinstance(n_bytes, int) and n_bytes >= 0:
        return n_bytes
    raise ValueError(f"a size is {shortened(n_bytes)}")


def _at_most(chunks: Iterable[bytes], n_bytes: int) -> Iterator[bytes]:
    """The chunks, but no more than one beyond so many bytes."""
    for chunk in chunks:
        yield chunk
        n_bytes -= len(chunk)
        if n_bytes < 0:
            return


def _is_there(path: Path, result: Result) -> bool:
    return path.is_file() and path.stat().st_size == result.bytes and file_sha256(path) == result.sha256


def _fetch(job: Job, result: Result, chunks: Iterable[bytes], folder: Path) -> None:
    """Written aside and renamed: a pull that breaks off leaves the old file or none."""
    target = folder / result.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise ForecastError(
            f"{target.parent} is a link out of {folder}; remove it, or pull elsewhere with --to"
        )
    aside = storage.temporary_beside(target)
    digest = hashlib.sha256()
    try:
        try:
            with aside.open("wb") as stream:
                for chunk in _at_most(chunks, result.bytes):
                    digest.update(chunk)
                    stream.write(chunk)
        except FileNotFoundError:
            raise NoDataError(
                f"{result.name} of {job.job_id} is no longer on the cluster; submit it again"
            ) from None
        if digest.hexdigest() != result.sha256:
            raise ForecastError(
                f"{result.name} is not what {job.job_id} wrote: the connection broke off, or a later job "
                "with the same output wrote it anew; pull again, or pull that job (forecast jobs lists them)"
            )
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _room(folder: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise ForecastError(
                f"the results cannot be written to {folder}: {error}; pull to another folder with --to"
            ) from None
        raise _full(folder, needed, shutil.disk_usage(folder).free) from None


def _full(folder: Path, needed: int, free: int) -> ForecastError:
    return ForecastError(
        f"the disk of this machine is full: the results need {needed / 1e6:,.1f} MB in {folder}, "
        f"{free / 1e6:,.1f} MB are free; make room or pull to another folder with --to"
    )
