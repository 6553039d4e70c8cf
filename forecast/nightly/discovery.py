"""Looks for checkpoints of watched training runs: subfolders on a disk or in an object store, hub revisions.

A checkpoint is taken when its completion marker is there or, where none is written, when nothing in it has
changed for a while. Anything else that is seen waits, with the reason.
A place that cannot be looked at is that run's problem and no other's, a name that cannot be a checkpoint's
that folder's.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from forecast import storage
from forecast.config.candidates import CandidateConfig
from forecast.config.nightly import WatchConfig
from forecast.config.sources import LARGEST
from forecast.errors import fault_of, shortened
from forecast.inputs.models.fingerprint import digest_of
from forecast.nightly.records import Checkpoint, Unmatched, Waiting
from forecast.nightly.settled import changes_in, unsettled
from forecast.plan import Failure

Refs = Mapping[str, str]  # of a hub repository: branch or tag -> commit
_MOST_NAMES = 6  # of what lies there otherwise
# What training leaves beside its checkpoints, or before the first of them.
_BOOKKEEPING = {"runs", "logs", "wandb", "mlruns", "tensorboard", "tb", "lightning_logs", "main"}
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
    unmatched: Unmatched | None = None  # where no name is that of a checkpoint, and something lies there


def look(
    watch: WatchConfig,
    refs: Callable[[str], Refs] | None = None,
    clock: Callable[[], float] = time.time,
) -> Sight:
    """Look for the checkpoints of one run.

    Args:
        refs: gives the branches and tags of a hub repository; default: asks the hub.
        clock: Unix time; for runs that are watched without a completion marker.
    """
    seen: list[Found | Waiting | Failure]
    try:
        if watch.folder is None:
            assert watch.hub is not None
            revisions = (refs or hub_refs)(watch.hub)
            names = sorted(revisions)
            seen = list(_revisions(watch, revisions))
        else:
            names = _names(watch.folder)
            seen = list(_folders(watch, names, clock))
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
    unmatched = None if seen else _unmatched(watch, names)
    return Sight(watch.run, tuple(found.values()), tuple(waiting), unusable=unusable, unmatched=unmatched)


def _unmatched(watch: WatchConfig, names: Sequence[str]) -> Unmatched | None:
    """What lies there otherwise; None where it is nothing but files, and folders that all trainings have."""
    others = [name for name in names if not name.startswith(".") and name.lower() not in _BOOKKEEPING]
    if watch.folder is not None and not storage.is_remote(watch.folder):
        others = [name for name in others if (Path(watch.folder) / name).is_dir()]
    if not others:
        return None
    others.sort(key=lambda name: [int(x) if x.isdigit() else x for x in re.split(r"([0-9]{1,18})", name)])
    steps = [step for name in others if (step := _step_in(watch, name)) is not None]
    if watch.every is not None and steps and max(steps) < watch.every:
        return None  # the first multiple is still to come
    shown = tuple(name.encode(errors="backslashreplace").decode() for name in others[:_MOST_NAMES])
    return Unmatched(shown, len(others), watch.pattern, watch.every if steps else None)


def _step_in(watch: WatchConfig, name: str) -> int | None:
    try:
        return watch.step_in(name)
    except ValueError:  # int() refuses thousands of digits
        return None


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


def _revisions(watch: WatchConfig, refs: Refs) -> Iterator[Found | Failure]:
    for name, commit in sorted(refs.items()):
        checkpoint = _checkpoint(watch, name)
        if isinstance(checkpoint, Checkpoint):
            yield Found(checkpoint, _stamp(watch, commit))
        elif checkpoint is not None:
            yield checkpoint


def _folders(
    watch: WatchConfig, names: Sequence[str], clock: Callable[[], float]
) -> Iterator[Found | Waiting | Failure]:
    assert watch.folder is not None
    for name in names:
        checkpoint = _checkpoint(watch, name)
        if not isinstance(checkpoint, Checkpoint):
            if checkpoint is not None:
                yield checkpoint
            continue
        try:
            files = _files(watch.folder, checkpoint.source)
            if isinstance(files, dict):
                wait = _not_whole(watch, checkpoint.source, files, clock)
        except BaseException as error:
            yield Waiting(checkpoint, fault_of(error, "it"))
            continue
        if isinstance(files, str):
            yield Waiting(checkpoint, files)
        elif files is not None and wait is not None:
            yield Waiting(checkpoint, wait)
        elif files is not None:
            yield Found(checkpoint, _stamp(watch, digest_of(sorted(files.items()))))


def _not_whole(watch: WatchConfig, source: str, files: _Stamps, clock: Callable[[], float]) -> str | None:
    """Why a checkpoint of these files may still be written; None where it is whole."""
    if watch.settled_minutes is not None:
        if not files:
            return "it holds no files yet"
        return unsettled(changes_in(source), clock(), watch.settled_minutes)
    marker = watch.completion_marker
    if marker in files:
        return None
    without = "" if watch.marker is not None else "; if training writes none, set settled_minutes"
    return f"its completion marker {marker} is missing{without}"


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
