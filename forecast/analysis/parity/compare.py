"""The comparison of two scored plans, and the record that `forecast parity --json` answers with.

The record, all differences being `against - base`:

    name            of the configuration
    base, against   label, engine (the whole section), lake, devices, versions (of what computed it)
    tokens          all: of all candidates together; candidates: of each. Fields: `tokens.TokenParity`
    effects         null where no text was read by all candidates in both setups; else instances, pairs,
                    proxies, orders, targets. Fields: `effects.Effects`
    tolerance       null where none was given; else logprob (nats) and exceeded
    notes           what the reader should know
    failed          setup (base, against, both), candidate or task, error; as in `forecast score --json`
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl
import pyarrow as pa

from forecast.analysis.parity.populations import imported_scores, population_of, with_direct_evaluation
from forecast.analysis.parity.ranking_effects import Effects, effects_of
from forecast.analysis.parity.setups import Setup, Setups
from forecast.analysis.parity.token_diff import (
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
from forecast.plan import Failure, Plan, Unit
from forecast.report.records import record_of
from forecast.runs.records import load_failures
from forecast.warehouse.participation import Participation, participation


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
        tolerance = None
        if self.tolerance is not None:
            tolerance = {"logprob": self.tolerance, "exceeded": self.exceeded}
        return {
            "name": self.name,
            "base": self.base,
            "against": self.against,
            "tokens": record_of({"all": self.pooled, "candidates": self.candidates}),
            "effects": record_of(self.effects),
            "tolerance": tolerance,
            "notes": list(self.notes),
            "failed": list(self.failed),
        }


def compare(
    config: Config, setups: Setups, base: Plan, against: Plan, tolerance: float | None = None
) -> ParityResult:
    """Compare the lakes of two plans that have been scored as far as they can be.

    Candidates meet by name. One that is missing on either side, or whose two readings are not of the same
    tokens, is reported and left out.

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
            failed += [_absence(name, side) for side in absent if not side.explains(name)]
            continue
        ids = (sides[0].complete[name].candidate_id, sides[1].complete[name].candidate_id)
        if ids in compared:
            usable.append(name)
            notes.append(f"{name} is the same model as {compared[ids]} and is counted once among the tokens")
            continue
        try:
            parity, own = _candidate(name, *sides)
        except CandidateError as error:
            failed.append({"setup": "both", "candidate": name, "error": str(error)})
            continue
        compared[ids] = name
        usable.append(name)
        found.append(parity)
        statistics.append(own)
    if not found:
        reasons = "".join(f"\n{entry['error']}" for entry in failed)
        raise NoDataError(
            f"no candidate was read in both setups ({sides[0].told}; {sides[1].told}), "
            f"so there is nothing to compare{reasons}"
        )
    scores, unusable = imported_scores(config)
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
    def told(self) -> str:
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
        """Whether a failure says why a candidate is not complete."""
        return any(f.subject == "candidate" and f.name == name and f.task is None for f in self.part.failures)

    def units(self, candidate_id: str) -> dict[str, list[Unit]]:
        """A candidate's units by task."""
        found: dict[str, list[Unit]] = {}
        for unit in self.part.units:
            if unit.candidate.candidate_id == candidate_id:
                found.setdefault(unit.shard.task, []).append(unit)
        return found

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


def _absence(name: str, side: _Side) -> dict[str, str]:
    error = f"{side.told}: candidate {name!r} is not fully scored; the same command goes on with it"
    return {"setup": side.setup.role, "candidate": name, "error": error}


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
    """What follows from the tokens, and what to say about it."""
    dropped = {i for side in sides for name in names for i in side.unread(side.complete[name].candidate_id)}
    found = []
    for side in sides:
        population = population_of(
            [side.complete[name] for name in names], _token_rows(side, names), dropped, scores
        )
        if population is None:
            return None, ["no trajectory was read by all candidates in both setups: no proxies"]
        found.append(population)
    notes = []
    if config.direct_evaluation:
        try:
            found = [with_direct_evaluation(population, config) for population in found]
        except NoDataError:
            notes.append("direct evaluation is not measured yet, so rho lacks it: `forecast run` does that")
    return effects_of(found[0], found[1], config.ranking), notes


def _token_rows(side: _Side, names: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    for candidate_id in dict.fromkeys(side.complete[name].candidate_id for name in names):
        for units in side.units(candidate_id).values():
            yield side.vocab_size(candidate_id), side.rows(units)


def _merged_failures(base: _Side, against: _Side) -> list[dict[str, str]]:
    """Failures of both sides; a failure of both sides is listed once."""
    ours, theirs = ([*dict.fromkeys(side.part.failures)] for side in (base, against))

    def told(failure: Failure, setup: str, prefix: str = "") -> dict[str, str]:
        record = failure.as_record()
        return {"setup": setup, **record, "error": prefix + record["error"]}

    found = [told(f, "both") for f in ours if f in theirs]
    found += [told(f, "base", f"{base.told}: ") for f in ours if f not in theirs]
    return found + [told(f, "against", f"{against.told}: ") for f in theirs if f not in ours]
