"""Looks for checkpoints of watched training runs: subfolders on a disk or in an object store, hub revisions.

A checkpoint is taken when its completion marker is there. Anything else that is seen waits, with the reason.
A place that cannot be looked at is that run's problem and no other's, a name that cannot be a checkpoint's
that folder's.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from forecast import storage
from forecast.config.candidates import CandidateConfig
from forecast.config.nightly import WatchConfig
from forecast.config.sources import LARGEST
from forecast.errors import fault_of, shortened
from forecast.inputs.models.fingerprint import digest_of
from forecast.nightly.records import Checkpoint, Waiting
from forecast.plan import Failure

Refs = Mapping[str, str]  # of a hub repository: branch or tag -> commit
_Stamps = dict[str, tuple[int, int]]  # file -> bytes, time of the last change in nanoseconds


@dataclass(frozen=True)
class Found:
    """A checkpoint that is whole; `stamp` changes whenever its files do, without reading them."""

    checkpoint: Checkpoint
    stamp: str


@dataclass(frozen=True)
class Sight:
    """What was seen of one run, in order of steps; `problem`: why it could not be looked at."""

    run: str
    found: tuple[Found, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    problem: str | None = None
    unusable: tuple[Failure, ...] = ()  # folders and revisions whose names no result can hold


def look(watch: WatchConfig, refs: Callable[[str], Refs] | None = None) -> Sight:
    """Look for the checkpoints of one run.

    Args:
        refs: gives the branches and tags of a hub repository; default: asks the hub.
    """
    try:
        seen = list(_revisions(watch, refs or hub_refs) if watch.folder is None else _folders(watch))
    except FileNotFoundError:
        return Sight(watch.run, problem=f"{watch.place} cannot be looked at: there is no such folder")
    except Exception as error:  # disks, object stores and hubs each fail in ways of their own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return Sight(watch.run, problem=f"{watch.place} cannot be looked at: {reason}")
    unusable = tuple(one for one in seen if isinstance(one, Failure))
    named = [one for one in seen if not isinstance(one, Failure)]
    named.sort(key=lambda one: (one.checkpoint.step, one.checkpoint.source))
    found: dict[int, Found] = {}
    waiting: list[Waiting] = []
    for one in named:
        if isinstance(one, Waiting):
            waiting.append(one)
            continue
        first = found.setdefault(one.checkpoint.step, one)
        if first.stamp != one.stamp or (watch.folder is not None and first is not one):
            waiting.append(
                Waiting(one.checkpoint, f"{_label(first.checkpoint)} is the same step; remove one")
            )
    return Sight(watch.run, tuple(found.values()), tuple(waiting), unusable=unusable)


def candidate_of_checkpoint(watch: WatchConfig, checkpoint: Checkpoint, stamp: str) -> CandidateConfig:
    """A checkpoint as a candidate; a hub revision is pinned to the commit that it is now."""
    settings = watch.candidate.model_dump()
    settings["family"] = watch.candidate.family or watch.run
    per_step = watch.tokens_per_step
    return CandidateConfig(
        name=checkpoint.name,
        source=checkpoint.source,
        revision=None if checkpoint.revision is None else stamp.partition("+")[0],
        step=checkpoint.step,
        training_tokens=None if per_step is None else per_step * checkpoint.step,
        **settings,
    )


def hub_refs(repository: str) -> Refs:
    """Branches and tags of a hub repository, with the commits that they are now."""
    import huggingface_hub

    refs = huggingface_hub.HfApi().list_repo_refs(repository)
    return {ref.name: ref.target_commit for ref in [*refs.branches, *refs.tags]}


def _label(checkpoint: Checkpoint) -> str:
    return checkpoint.revision or checkpoint.source


def _revisions(watch: WatchConfig, refs: Callable[[str], Refs]) -> Iterator[Found | Failure]:
    assert watch.hub is not None
    for name, commit in sorted(refs(watch.hub).items()):
        checkpoint = _checkpoint(watch, name)
        if isinstance(checkpoint, Checkpoint):
            yield Found(checkpoint, _stamp(watch, commit))
        elif checkpoint is not None:
            yield checkpoint


def _folders(watch: WatchConfig) -> Iterator[Found | Waiting | Failure]:
    assert watch.folder is not None
    marker = watch.completion_marker
    for name in _names(watch.folder):
        checkpoint = _checkpoint(watch, name)
        if not isinstance(checkpoint, Checkpoint):
            if checkpoint is not None:
                yield checkpoint
            continue
        try:
            files = _files(watch.folder, checkpoint.source)
        except BaseException as error:
            yield Waiting(checkpoint, fault_of(error, "it"))
            continue
        if isinstance(files, str):
            yield Waiting(checkpoint, files)
        elif files is not None and marker not in files:
            yield Waiting(checkpoint, f"its completion marker {marker} is missing")
        elif files is not None:
            yield Found(checkpoint, _stamp(watch, digest_of(sorted(files.items()))))


def _checkpoint(watch: WatchConfig, name: str) -> Checkpoint | Failure | None:
    """What a folder or revision of this name is: a checkpoint, one that no result can hold, or neither."""
    readable = name.encode(errors="backslashreplace").decode()
    source = watch.hub if watch.folder is None else storage.join(watch.folder, readable)
    assert source is not None
    try:
        if (step := watch.step_of(name)) is None:
            return None
        if step * (watch.tokens_per_step or 1) > LARGEST:
            raise ValueError(f"step {shortened(step, str)} or its training tokens are more than {LARGEST}")
        if readable != name:
            raise ValueError("its name is no UTF-8")
    except ValueError as error:  # int() refuses thousands of digits
        where = source if watch.folder is not None else f"{source}@{readable}"
        fault = f"run {watch.run!r}: {where} cannot be a checkpoint: {error}; rename or remove it"
        return Failure("candidate", where, fault)
    revision = name if watch.folder is None else None
    return Checkpoint(watch.run, step, f"{watch.run} @ {step}", source, revision)


def _stamp(watch: WatchConfig, files: str) -> str:
    """Which files are read depends on what is allowed, so that is part of it."""
    allowed = watch.candidate
    return files + "+code" * allowed.allow_remote_code + "+pickle" * allowed.allow_pickle


def _names(folder: str) -> list[str]:
    """Of what lies in a watched folder; on a disk files are among them."""
    if not storage.is_remote(folder):
        return sorted(path.name for path in Path(folder).iterdir())
    fs, inner = storage.filesystem(folder)
    entries = fs.get_file_info(pafs.FileSelector(inner.rstrip("/")))
    return sorted(e.base_name for e in entries if e.type == pafs.FileType.Directory)


def _files(folder: str, checkpoint: str) -> _Stamps | str | None:
    """The files directly in a checkpoint's folder, or why none of it is touched; None: it is no folder."""
    if storage.is_remote(checkpoint):
        fs, inner = storage.filesystem(checkpoint)
        entries = fs.get_file_info(pafs.FileSelector(inner))
        return {e.base_name: (e.size, e.mtime_ns) for e in entries if e.type == pafs.FileType.File}
    if not Path(checkpoint).is_dir():
        return None
    root = Path(folder).resolve()
    files: _Stamps = {}
    for path in [Path(checkpoint), *sorted(Path(checkpoint).iterdir())]:
        if not path.resolve().is_relative_to(root):
            return f"{path} is a link that leads out of the watched folder; move or copy what it points at"
        if path.is_file():
            stat = path.stat()
            files[path.name] = (stat.st_size, stat.st_mtime_ns)
    return files
