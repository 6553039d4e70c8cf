"""The comparison of two scored plans; all differences are `against - base`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from forecast.analysis.diagnostics.recomputed_proxies import RecomputedProxies
from forecast.analysis.parity.ranking_effects import Effects, effects_of
from forecast.analysis.parity.setups import Setup, Setups
from forecast.analysis.parity.token_diff import (
    INSTANCE,
    Instance,
    TokenParity,
    pair_tokens,
    pooled_parity,
    statistics_of,
    token_parity,
)
from forecast.config.schema import Config
from forecast.errors import CandidateError, NoDataError
from forecast.inputs.measured_scores import MeasuredScore
from forecast.inputs.models.resolve import Candidate
from forecast.lake.files import read_rows
from forecast.plan import Plan, Unit, imported_scores
from forecast.report.records import record_of
from forecast.runs.records import load_failures
from forecast.warehouse.connect import open_warehouse
from forecast.warehouse.participation import Participation, participation
from forecast.warehouse.population import Population, Target, load_population


@dataclass(frozen=True)
class ParityResult:
    """Everything that a comparison found."""

    name: str
    base: dict[str, Any]
    against: dict[str, Any]
    pooled: TokenParity
    candidates: tuple[TokenParity, ...]
    effects: Effects | None
    tolerance: float | None  # nats
    notes: tuple[str, ...]
    failed: tuple[dict[str, str], ...]

    @property
    def exceeded(self) -> bool:
        """Whether the largest difference of a log-probability is above the tolerance that was given."""
        return self.tolerance is not None and self.pooled.of("logprob").largest > self.tolerance

    @property
    def exit_code(self) -> int:
        """4 beyond the tolerance, else 3 where something failed, else 0: 0 stands for all of the question."""
        return 4 if self.exceeded else 3 if self.failed else 0

    def frames(self) -> dict[str, pl.DataFrame]:
        """A frame for each table; see `frames`."""
        from forecast.analysis.parity.frames import frames_of

        return frames_of(self)

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        record: dict[str, Any] = record_of(self)
        record["tokens"] = {"all": record.pop("pooled"), "candidates": record.pop("candidates")}
        if self.tolerance is not None:
            record["tolerance"] = {"logprob": self.tolerance, "exceeded": self.exceeded}
        return record


def compare(
    config: Config, setups: Setups, base: Plan, against: Plan, tolerance: float | None = None
) -> ParityResult:
    """Compare the lakes of two plans that have been scored as far as they can be.

    Candidates meet by name. One that is missing on either side, or whose two setups did not score the
    same tokens, is reported and left out.

    Args:
        config: the run's own configuration, for measured scores.
        tolerance: largest difference of a log-probability that is still agreement, nats.

    Raises:
        NoDataError: no candidate was read in both setups.
        InputError: a file of a lake is damaged.
    """
    sides = _Side(setups.base, base), _Side(setups.against, against)
    failed = _merged_failures(*sides)
    found: list[TokenParity] = []
    statistics: list[pl.DataFrame] = []
    compared: dict[tuple[str, str], str] = {}  # the ids of both sides -> the first name
    usable: list[str] = []
    notes = list(setups.notes)
    for settings in setups.base.config.candidates:
        name = settings.name
        if absent := [side for side in sides if name not in side.complete]:
            unfinished = "is not fully scored; run the same command again to resume"
            failed += [
                {
                    "setup": side.setup.role,
                    "candidate": name,
                    "error": f"{side.title}: candidate {name!r} {unfinished}",
                }
                for side in absent
                if not side.explains(name)
            ]
            continue
        ids = (sides[0].complete[name].candidate_id, sides[1].complete[name].candidate_id)
        if ids in compared:
            notes.append(f"{name} is the same model as {compared[ids]} and is counted once among the tokens")
        else:
            try:
                parity, own = _candidate(name, *sides)
            except CandidateError as error:
                failed.append({"setup": "both", "candidate": name, "error": str(error)})
                continue
            compared[ids] = name
            found.append(parity)
            statistics.append(own)
        usable.append(name)
    if not found:
        reasons = "".join(f"\n{entry['error']}" for entry in failed)
        raise NoDataError(
            f"no candidate was read in both setups ({sides[0].title}; {sides[1].title}), "
            f"so there is nothing to compare{reasons}"
        )
    scores, unusable, of_scores = imported_scores(config)
    notes += of_scores
    failed += [{"setup": "both", **failure.as_record()} for failure in unusable]
    effects, more = _effects(config, sides, usable, scores)
    return ParityResult(
        name=config.name,
        base=sides[0].record(usable),
        against=sides[1].record(usable),
        pooled=pooled_parity(found, statistics),
        candidates=tuple(found),
        effects=effects,
        tolerance=tolerance,
        notes=(*notes, *more),
        failed=tuple(failed),
    )


@dataclass(frozen=True)
class _Side:
    """One setup with what its lake holds."""

    setup: Setup
    plan: Plan

    @property
    def title(self) -> str:
        return f"{self.setup.role}: {self.setup.label}"

    @cached_property
    def part(self) -> Participation:
        failures = load_failures(self.plan)
        try:
            return participation(self.plan, failures)
        except NoDataError:
            return Participation((), {}, {}, tuple(failures))

    @cached_property
    def complete(self) -> dict[str, Candidate]:
        """Candidates that read all they could, by name."""
        ids = {unit.candidate.candidate_id for unit in self.part.units}
        return {c.name: c for c in self.plan.candidates if c.candidate_id in ids}

    def explains(self, name: str) -> bool:
        """Whether a failure gives the reason why a candidate is not complete."""
        return any(f.subject == "candidate" and f.name == name and f.task is None for f in self.part.failures)

    def units(self, candidate_id: str) -> dict[str, list[Unit]]:
        """A candidate's units by task."""
        found: dict[str, list[Unit]] = {}
        for unit in self.part.units:
            if unit.candidate.candidate_id == candidate_id:
                found.setdefault(unit.shard.task, []).append(unit)
        return found

    def population(
        self, names: Sequence[str], dropped: Iterable[Instance], scores: Sequence[MeasuredScore]
    ) -> Population:
        """All proxies of candidates, with measured scores and without instances that are dropped.

        A run's warehouse leaves out what one of *its* candidates could not read, which may be more under one
        setup than under the other; so the proxies are computed anew from the common instances.

        Raises:
            NoDataError: no trajectory is left.
        """
        candidates = [self.complete[name] for name in names]
        absent = pl.DataFrame(list(dropped), schema=dict.fromkeys(INSTANCE, pl.String), orient="row")
        proxies = RecomputedProxies([(c.name, c.candidate_id) for c in candidates], absent)
        for candidate_id in dict.fromkeys(c.candidate_id for c in candidates):
            for units in self.units(candidate_id).values():
                proxies.add(self.rows(units), self.vocab_size(candidate_id))
        return proxies.population(scores)

    def rows(self, units: Sequence[Unit]) -> pa.Table:
        return read_rows((self.plan.path(unit), self.part.receipts[unit.address].rows) for unit in units)

    def vocab_size(self, candidate_id: str) -> int:
        units = self.units(candidate_id)
        return self.part.receipts[next(iter(units.values()))[0].address].vocab_size

    def unread(self, candidate_id: str) -> set[Instance]:
        return {
            (unit.shard.task, entry["expert"], entry["instance_id"])
            for units in self.units(candidate_id).values()
            for unit in units
            for entry in self.part.receipts[unit.address].unscored
        }

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        ids = {self.complete[name].candidate_id for name in names}
        receipts = [self.part.receipts[u.address] for u in self.part.units if u.candidate.candidate_id in ids]
        versions: dict[str, str] = {}
        for receipt in sorted(receipts, key=lambda receipt: receipt.finished_at):
            versions |= receipt.versions
        return {
            "label": self.setup.label,
            "engine": self.setup.config.engine.model_dump(),
            "lake": self.plan.folder("trajectories"),
            "devices": sorted({receipt.device for receipt in receipts}),
            "versions": versions,
        }


def _candidate(name: str, base: _Side, against: _Side) -> tuple[TokenParity, pl.DataFrame]:
    """One candidate's comparison, and the statistics of its tokens under both setups."""
    ids = [side.complete[name].candidate_id for side in (base, against)]
    sizes = [side.vocab_size(own) for side, own in zip((base, against), ids, strict=True)]
    if sizes[0] != sizes[1]:
        raise CandidateError(
            f"candidate {name!r}: its vocabulary has {sizes[0]} entries in the base and {sizes[1]} in the "
            "other setup, so these are two distributions; set vocab_size for this candidate"
        )
    left_out = base.unread(ids[0]) | against.unread(ids[1])
    theirs = against.units(ids[1])
    pairs = pl.concat(
        [
            pair_tokens(name, base.rows(units), against.rows(theirs[task]), left_out)
            for task, units in base.units(ids[0]).items()
        ]
    )
    if pairs.is_empty():
        raise CandidateError(f"candidate {name!r}: it read no trajectory in both setups")
    texts = {(t.task, t.expert, t.instance_id): t for one in base.plan.trajectories.values() for t in one}
    return token_parity(name, pairs, texts), statistics_of(pairs)


def _effects(
    config: Config, sides: tuple[_Side, _Side], names: Sequence[str], scores: Sequence[MeasuredScore]
) -> tuple[Effects | None, list[str]]:
    """What follows from the tokens, and notes about it."""
    dropped = {i for side in sides for name in names for i in side.unread(side.complete[name].candidate_id)}
    try:
        found = [side.population(names, dropped, scores) for side in sides]
    except NoDataError:
        return None, ["no trajectory was read by all candidates in both setups: no proxies"]
    notes = []
    if config.direct_evaluation:
        try:
            found = [_with_direct_evaluation(population, config) for population in found]
        except NoDataError:
            notes.append("direct evaluation is not measured yet, so rho lacks it: `forecast run` does that")
    return effects_of(found[0], found[1], config.ranking), notes


def _with_direct_evaluation(population: Population, config: Config) -> Population:
    """The population with the accuracies that the run itself has measured, where it has; they go first.

    Raises:
        NoDataError: the run has no warehouse yet.
    """
    with open_warehouse(config.output) as db:
        run = load_population(db)
    places = {name: place for place, name in enumerate(run.candidates)}
    order = [places.get(name, -1) for name in population.candidates]  # -1: the NaN at the end
    merged = {target.task: target for target in population.targets}
    for target in run.targets:
        values, errors = (np.append(array, np.nan)[order] for array in (target.values, target.stderr))
        if target.items is not None and np.isfinite(values).any():
            merged[target.task] = Target(target.task, target.metric, values, errors, None)
    return replace(population, targets=tuple(merged[task] for task in sorted(merged)))


def _merged_failures(base: _Side, against: _Side) -> list[dict[str, str]]:
    """Failures of both sides; a failure of both sides is listed once."""
    ours, theirs = (dict.fromkeys(side.part.failures) for side in (base, against))
    groups = (
        ("both", "", [failure for failure in ours if failure in theirs]),
        ("base", f"{base.title}: ", [failure for failure in ours if failure not in theirs]),
        ("against", f"{against.title}: ", [failure for failure in theirs if failure not in ours]),
    )
    return [
        {"setup": setup, **failure.as_record(), "error": prefix + failure.error}
        for setup, prefix, failures in groups
        for failure in failures
    ]
