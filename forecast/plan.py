"""The plan of a run: pure, hashable units of work, addressed by what shapes their numbers.

A unit is one candidate on one shard of trajectories. Its address covers the candidate (files, variant, dtype,
prompt form), the texts, the window, what is done with texts that are too long, and the versions of engine and
statistics; neither the candidate's name nor the batch size nor the machine. A unit whose file exists is done,
so issuing a command again resumes it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from forecast import storage
from forecast.config.candidates import CandidateConfig
from forecast.config.schema import Config
from forecast.engines.base import ENGINE_VERSION
from forecast.errors import InputError, did_you_mean, fault_of
from forecast.inputs.frontier_solutions import Solutions, frontier_solutions
from forecast.inputs.measured_scores import MeasuredScore, load_scores
from forecast.inputs.models.fingerprint import digest_of
from forecast.inputs.models.resolve import Candidate, resolve_candidate
from forecast.inputs.multiple_choice import ChoiceItem, load_choices
from forecast.inputs.seams import seam_notes
from forecast.inputs.trajectories import Trajectory, load_trajectories, merge_sources
from forecast.tokenstats.version import STATISTICS_VERSION

Kind = Literal["trajectories", "choices"]


@dataclass(frozen=True)
class Failure:
    """Something of the run that could not be done: its subject is a candidate, a task or a file."""

    subject: Literal["candidate", "task", "measured_scores"]
    name: str
    error: str
    task: str | None = None
    instance_id: str | None = None

    def as_record(self) -> dict[str, str]:
        """For JSON: only the fields that are set."""
        where = {"task": self.task, "instance_id": self.instance_id}
        given = {key: value for key, value in where.items() if value is not None}
        return {**given, self.subject: self.name, "error": self.error}


@dataclass(frozen=True)
class Shard:
    """Trajectories of one task and expert (or options of one task) that are scored together.

    `block` counts blocks of the task's prompts: shards of several experts with the same block share prompts.
    """

    kind: Kind
    task: str
    trajectories: tuple[Trajectory, ...]
    block: int = 0

    @cached_property
    def n_bytes(self) -> int:
        """UTF-8 bytes of prompts and solutions."""
        return sum(len(t.prompt.encode()) + len(t.solution.encode()) for t in self.trajectories)


@dataclass(frozen=True)
class Unit:
    """One candidate on one shard."""

    candidate: Candidate
    shard: Shard
    address: str

    @property
    def relative_path(self) -> str:
        """Where the unit's file lies below the folder of its kind."""
        return f"{self.candidate.candidate_id}/{self.address}.parquet"


@dataclass(frozen=True)
class Plan:
    """All units of a run, and what could not be planned."""

    config: Config
    candidates: tuple[Candidate, ...]
    trajectories: dict[str, tuple[Trajectory, ...]]  # by task
    choices: dict[str, tuple[ChoiceItem, ...]]  # by task
    units: tuple[Unit, ...]
    failures: tuple[Failure, ...] = field(default=())
    scores: tuple[MeasuredScore, ...] = ()  # imported, of all files that can be used
    notes_on_scores: tuple[str, ...] = ()
    frontier: dict[str, Solutions] = field(default_factory=dict, compare=False, repr=False)  # by task

    def folder(self, kind: Kind) -> str:
        """Where files of this kind lie: `OUTPUT/lake` for trajectories, `OUTPUT/choices` for options."""
        return storage.join(self.config.output, "lake" if kind == "trajectories" else "choices")

    def path(self, unit: Unit) -> str:
        """The file of a unit."""
        return storage.join(self.folder(unit.shard.kind), unit.relative_path)

    def done(self) -> frozenset[str]:
        """Addresses of the units whose file exists."""
        return frozenset(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Bytes of the units' files, by address, where they exist; by one listing per folder."""
        folders = {kind: self.folder(kind) for kind in get_args(Kind)}
        present: dict[str, int] = {}
        for folder in folders.values():
            present |= storage.list_files(folder, ".parquet")
        # As `self.path`, without taking the folder's path apart for each of perhaps a million units.
        paths = ((unit.address, f"{folders[unit.shard.kind]}/{unit.relative_path}") for unit in self.units)
        return {address: present[path] for address, path in paths if path in present} if present else {}

    def notes(self) -> list[str]:
        """What a user should know of inputs that can be used."""
        found = []
        if any(candidate.prompt_form == "raw" for candidate in self.candidates):
            for task, own in self.trajectories.items():
                found += seam_notes(task, own, _fix_of_seam(self.config, task))
        for task, items in self.choices.items():
            options = [option for item in items for option in item.trajectories()]
            found += seam_notes(task, options, 'set choice_prefix: " "')
        present = dict.fromkeys(t.expert for own in self.trajectories.values() for t in own)
        found += [
            f"experts: no solution is of {name!r}; {did_you_mean(name, present)}"
            for name in self.config.experts
            if name not in present and not self.failures
        ]
        return [*found, *self.notes_on_scores]

    def select(self, kind: Kind) -> Iterator[Unit]:
        """Units of one kind."""
        return (u for u in self.units if u.shard.kind == kind)


def make_plan(
    config: Config, resolve: Callable[[CandidateConfig, Config], Candidate] = resolve_candidate
) -> Plan:
    """Load the inputs and lay out the work; a task or candidate at fault is reported, the others go on.

    Args:
        resolve: finds and fingerprints a candidate's files.
    """
    failures: list[Failure] = []
    digests: list[tuple[Shard, str]] = []
    trajectories: dict[str, tuple[Trajectory, ...]] = {}
    for task in dict.fromkeys(source.task for source in config.trajectories):
        sources = [source for source in config.trajectories if source.task == task]
        try:
            loaded = merge_sources((source.label, load_trajectories(source)) for source in sources)
            shards = _shards(task, loaded, config.shard_trajectories)
            found = [(shard, _shard_digest(shard)) for shard in shards]
        except BaseException as error:
            files = ", ".join(source.label for source in sources)
            failures.append(Failure("task", task, fault_of(error, f"task {task!r}: {files}")))
            continue
        trajectories[task] = tuple(loaded)
        digests += found
    choices: dict[str, tuple[ChoiceItem, ...]] = {}
    for choice_source in config.direct_evaluation:
        task = choice_source.task
        try:
            items = load_choices(choice_source)
            shards = _choice_shards(task, items, config.shard_trajectories)
            found = [(shard, _shard_digest(shard)) for shard in shards]
        except BaseException as error:
            failures.append(Failure("task", task, fault_of(error, f"task {task!r}: {choice_source.label}")))
            continue
        choices[task] = tuple(items)
        digests += found
    candidates: list[Candidate] = []
    for settings in config.candidates:
        try:
            candidates.append(resolve(settings, config))
        except BaseException as error:
            what = f"candidate {settings.name!r}: {settings.source}"
            failures.append(Failure("candidate", settings.name, fault_of(error, what)))
    units: dict[str, Unit] = {}
    for candidate in candidates:
        for shard, digest in digests:
            unit = Unit(candidate, shard, _address(candidate, digest, shard.kind, config))
            units.setdefault(unit.address, unit)  # two names for one model share their work
    scores, unusable, notes = imported_scores(config)
    failures += unusable
    if not unusable:
        notes = (*notes, *_unmeasured_targets(config, scores))
    frontier, faults = frontier_solutions(config.trajectories, trajectories)
    failures += [Failure("task", task, f"rBridge of {task}: {fault}") for task, fault in faults.items()]
    planned = (tuple(candidates), trajectories, choices, tuple(units.values()))
    return Plan(config, *planned, tuple(failures), scores, notes, frontier)


def _fix_of_seam(config: Config, task: str) -> str:
    source = next(source for source in config.trajectories if source.task == task)
    template = source.solution_template or f"{{{source.columns.solution}}}"
    return f'set solution_template: " {template}", or let the prompt end in a new line'


def imported_scores(
    config: Config,
) -> tuple[tuple[MeasuredScore, ...], tuple[Failure, ...], tuple[str, ...]]:
    """Scores from the configuration's files, the files that cannot be used, and notes on the others."""
    scores: dict[tuple[str, str, str], MeasuredScore] = {}
    places: dict[tuple[str, str, str], str] = {}
    failures: list[Failure] = []
    notes: list[str] = []
    for source in config.measured_scores:
        try:
            loaded = load_scores(source, config.candidates)
            own = {(s.candidate, s.task, s.metric): s for s in loaded.scores}
            if twice := sorted(own.keys() & scores.keys()):
                first = twice[0]
                raise InputError(f"{source.path}: {' / '.join(first)} is also in {places[first]}; remove one")
        except BaseException as error:
            failures.append(Failure("measured_scores", source.path, fault_of(error, source.path)))
        else:
            scores |= own
            places |= dict.fromkeys(own, source.path)
            notes += loaded.notes
    return tuple(scores.values()), tuple(failures), tuple(notes)


def _unmeasured_targets(config: Config, scores: Iterable[MeasuredScore]) -> list[str]:
    """Keys of `ranking.targets` that no score is of, so that they would be without effect."""
    measured = dict.fromkeys(
        [*(s.task for s in scores), *(source.task for source in config.direct_evaluation)]
    )
    return [
        f"ranking.targets: no score of a task {task!r}; {did_you_mean(task, measured)}"
        for task in config.ranking.targets
        if measured and task not in measured
    ]


def estimated_tokens(shard: Shard) -> int:
    """Tokens to read, estimated before any tokenizer is loaded: four bytes of text a token."""
    return max(1, shard.n_bytes // 4)


def estimated_flops(unit: Unit) -> int | None:
    """Forward pass: two operations per parameter and token; None where the parameter count is unknown."""
    parameters = unit.candidate.settings.active_parameters or unit.candidate.parameters
    return None if parameters is None else 2 * parameters * estimated_tokens(unit.shard)


def joint_units(units: Iterable[Unit]) -> list[tuple[Unit, ...]]:
    """Units of one candidate whose texts share prompts, which are cheaper to score together."""
    groups: dict[tuple[str, Kind, str, int], list[Unit]] = {}
    for unit in units:
        key = (unit.candidate.candidate_id, unit.shard.kind, unit.shard.task, unit.shard.block)
        groups.setdefault(key, []).append(unit)
    return [tuple(group) for group in groups.values()]


def _shards(task: str, trajectories: Sequence[Trajectory], size: int) -> list[Shard]:
    """One expert's solutions to one block of prompts each: one more expert changes no other's shards."""
    place = {prompt: i for i, prompt in enumerate(dict.fromkeys(t.prompt for t in trajectories))}
    parts: dict[tuple[str, int], list[Trajectory]] = {}
    for t in trajectories:
        parts.setdefault((t.expert, place[t.prompt] // size), []).append(t)
    return [Shard("trajectories", task, tuple(own), block) for (_, block), own in parts.items()]


def _choice_shards(task: str, items: Sequence[ChoiceItem], size: int) -> list[Shard]:
    """Options are a few tokens each: twice as many questions make a unit of like size."""
    starts = range(0, len(items), 2 * size)
    parts = {
        start: [t for item in items[start : start + 2 * size] for t in item.trajectories()]
        for start in starts
    }
    return [Shard("choices", task, tuple(options), block=start) for start, options in parts.items()]


def _shard_digest(shard: Shard) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for t in shard.trajectories:
        for text in (t.task, t.instance_id, t.expert, t.prompt, t.solution):
            data = text.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _address(candidate: Candidate, shard_digest: str, kind: Kind, config: Config) -> str:
    # Options are read whole and after a plain prompt, whatever is set for trajectories.
    window = str(config.window) if kind == "trajectories" else "options"
    versions = (candidate.engine, ENGINE_VERSION, STATISTICS_VERSION)
    return digest_of(candidate.candidate_id, shard_digest, window, config.too_long, *versions)
