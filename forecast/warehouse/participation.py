"""Who takes part in a warehouse: complete candidates, and of a task the instances that all of them read."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from forecast import storage
from forecast.config.sources import LARGEST
from forecast.errors import NoDataError, shortened
from forecast.lake.files import DamagedUnit, Receipt, unscored_failures
from forecast.lake.receipt_cache import registered_receipts
from forecast.plan import Failure, Kind, Plan, Unit

Group = tuple[str, str, str]  # candidate_id, kind, task
# Expert and instance_id; None for the expert of a choice item, whose options stand or fall together.
_Instance = tuple[str | None, str]


@dataclass(frozen=True)
class Participation:
    """The units of the candidates that take part, and all that is known to have failed."""

    units: tuple[Unit, ...]
    receipts: Mapping[str, Receipt]  # by address
    waiting: Mapping[str, int]  # candidate_id -> units that are not scored yet
    failures: tuple[Failure, ...]


def participation(
    plan: Plan, failures: Sequence[Failure], damaged: Sequence[DamagedUnit] = ()
) -> Participation:
    """See `forecast.warehouse.build.build_warehouse`.

    Args:
        damaged: files whose rows turned out to be, beside those whose receipts are.

    Raises:
        NoDataError: no candidate takes part.
    """
    done = plan.done()
    waiting = Counter(unit.candidate.candidate_id for unit in plan.units if unit.address not in done)
    units = [unit for unit in plan.units if unit.candidate.candidate_id not in waiting]
    receipts, harmed = registered_receipts(plan, units)
    spoilt = _spoilt(plan, units, [*harmed.values(), *damaged])
    coverage = _coverage((u for u in units if u.candidate.candidate_id not in spoilt), receipts)
    excluded = _excluded(coverage) | _beyond_tables(units, receipts) | spoilt
    units = [unit for unit in units if unit.candidate.candidate_id not in excluded]
    complete = {unit.candidate.candidate_id for unit in units}
    # What an earlier run reported of a candidate that is complete by now does not hold any more.
    names = {candidate.name for candidate in plan.candidates if candidate.candidate_id in complete}
    found = [f for f in failures if f.subject != "candidate" or f.task is not None or f.name not in names]
    found += [
        Failure("candidate", c.name, f"candidate {c.name!r} {excluded[c.candidate_id]}")
        for c in plan.candidates
        if c.candidate_id in excluded
    ]
    if not units:
        reasons = "".join(f"\n{failure.error}" for failure in found)
        raise NoDataError(
            "no candidate is fully scored yet; run `forecast score` with this configuration first"
            f"{_other_units(plan) if not done else ''}{reasons}"
        )
    found += unscored_failures(units, receipts)
    found += _unread_tasks({group: own for group, own in coverage.items() if group[0] in complete})
    return Participation(tuple(units), receipts, waiting, tuple(found))


@dataclass
class _Coverage:
    """What a candidate was given of a task, and what it could not read."""

    given: set[_Instance] = field(default_factory=set)
    unread: dict[_Instance, str] = field(default_factory=dict)  # with the reason


def group_of(unit: Unit) -> Group:
    """What is read and computed together."""
    return unit.candidate.candidate_id, unit.shard.kind, unit.shard.task


def _coverage(units: Iterable[Unit], receipts: Mapping[str, Receipt]) -> dict[Group, _Coverage]:
    found: dict[Group, _Coverage] = {}
    for unit in units:
        own = found.setdefault(group_of(unit), _Coverage())
        by_expert = unit.shard.kind == "trajectories"
        own.given |= {(t.expert if by_expert else None, t.instance_id) for t in unit.shard.trajectories}
        for entry in receipts[unit.address].unscored:
            instance = (entry["expert"] if by_expert else None, entry["instance_id"])
            own.unread.setdefault(instance, entry["reason"])
    return found


def _excluded(coverage: Mapping[Group, _Coverage]) -> dict[str, str]:
    """Candidates that could read nothing of some task, with the reason.

    With them nothing of that task would be left for the others.
    """
    return {
        candidate_id: f"could read none of the {len(own.given)} instances of task {task!r}; the first one: "
        + next(iter(own.unread.values()))
        for (candidate_id, _, task), own in coverage.items()
        if len(own.unread) == len(own.given)
    }


def _beyond_tables(units: Iterable[Unit], receipts: Mapping[str, Receipt]) -> dict[str, str]:
    """Candidates scored by an earlier version, whose header promised more than a table holds."""
    return {
        unit.candidate.candidate_id: f"is said to have {shortened(parameters)} parameters by "
        f"{unit.address}.parquet of the lake; check the candidate's files, delete that one and score again"
        for unit in units
        if unit.address in receipts and not 0 <= (parameters := receipts[unit.address].parameters) <= LARGEST
    }


def _spoilt(plan: Plan, units: Iterable[Unit], damaged: Sequence[DamagedUnit]) -> dict[str, str]:
    """Candidates of which a file is damaged, with the reason; the others go on."""
    by_path = {one.path: one for one in damaged}
    own: dict[str, list[DamagedUnit]] = {}
    for unit in units if damaged else ():
        if (path := plan.path(unit)) in by_path:
            own.setdefault(unit.candidate.candidate_id, []).append(by_path[path])
    return {
        candidate_id: f"is left out: {found[0]}"
        + (f" (the same holds for {len(found) - 1} more of its files)" if len(found) > 1 else "")
        for candidate_id, found in own.items()
    }


def _other_units(plan: Plan) -> str:
    """That there are files, though none of this plan."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    if not any(storage.list_files(plan.folder(kind), ".parquet") for kind in kinds):
        return ""
    return (
        f"; what lies in {plan.folder('trajectories')} was scored under other settings or by an earlier "
        "version of forecast, and such numbers are not mixed"
    )


def _unread_tasks(coverage: Mapping[Group, _Coverage]) -> list[Failure]:
    """Tasks of which no instance was read by every candidate."""
    tasks: dict[tuple[str, str], _Coverage] = {}
    for (_, kind, task), own in coverage.items():
        together = tasks.setdefault((kind, task), _Coverage())
        together.given |= own.given
        together.unread |= own.unread
    return [
        Failure(
            "task", task, f"task {task!r}: none of its {len(t.given)} instances was read by every candidate"
        )
        for (_, task), t in tasks.items()
        if len(t.unread) == len(t.given)
    ]
