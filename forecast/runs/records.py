"""A run's plan, results and failures as plain records, which `--json`, tables and the app share."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from forecast import storage
from forecast.errors import InputError
from forecast.lake.files import damaged_failures, unscored_failures
from forecast.lake.receipt_cache import registered_receipts
from forecast.plan import Failure, Plan, Unit, estimated_flops, estimated_tokens
from forecast.report.document import Column, Document, Paragraph, Part, Section, Table, Warning
from forecast.report.format import COUNT, INTEGER, TEXT, Format
from forecast.storage.records import checked, parsed_json

_COLUMNS = (
    Column("candidate", "candidate"),
    Column("dtype", "dtype"),
    Column("parameters", "parameters", COUNT),
    Column("units", "units", INTEGER, "Shards of trajectories or items, scored one at a time."),
    Column("done", "done", INTEGER, "Units whose results are in the lake."),
    Column("estimated_tokens", "tokens left (est.)", INTEGER),
    Column("estimated_flops", "FLOPs left (est.)", Format(lambda flops: f"{flops:.2g}")),
)
_SCHEMA = {column.name: pl.String() if column.format is TEXT else pl.Int64() for column in _COLUMNS[:-1]} | {
    "estimated_flops": pl.Float64()
}


def plan_record(plan: Plan, refused: Sequence[Failure] = ()) -> dict[str, Any]:
    """The plan: work per candidate, how much of it is done, what could not be planned.

    Args:
        refused: candidates that would fail.
    """
    done = plan.done()
    candidates = []
    by_candidate = _by_candidate(plan.units)
    for candidate in plan.candidates:
        units = by_candidate[candidate.candidate_id]
        waiting = [u for u in units if u.address not in done]
        flops = [estimated_flops(u) for u in waiting]
        candidates.append(
            {
                "candidate": candidate.name,
                "candidate_id": candidate.candidate_id,
                "dtype": candidate.dtype,
                "parameters": candidate.parameters,
                "units": len(units),
                "done": len(units) - len(waiting),
                "estimated_tokens": sum(estimated_tokens(u.shard) for u in waiting),
                "estimated_flops": None if None in flops else sum(f for f in flops if f is not None),
            }
        )
    return {
        "name": plan.config.name,
        "output": plan.config.output,
        "lake": plan.folder("trajectories"),
        "window": str(plan.config.window),
        "units": len(plan.units),
        "done": len(done),
        "tasks": {task: len(found) for task, found in plan.trajectories.items()},
        "direct_evaluation": {task: len(items) for task, items in plan.choices.items()},
        "candidates": candidates,
        "notes": plan.notes(),
        "failed": [failure.as_record() for failure in (*plan.failures, *refused)],
    }


def plan_document(record: dict[str, Any]) -> Document:
    """A `plan_record` as `--dry-run` prints it: candidates with the work done and left."""
    title = f"Plan of {record['name']}: {record['done']} of {record['units']} units done"
    frame = pl.DataFrame(record["candidates"], schema=_SCHEMA)
    tasks = ", ".join(f"{task} ({n} trajectories)" for task, n in record["tasks"].items())
    direct = ", ".join(f"{task} ({n} items)" for task, n in record["direct_evaluation"].items())
    lines = [f"tasks: {tasks or 'none'}; window: {record['window']}"]
    lines += [f"direct evaluation: {direct}"] if direct else []
    lines += [f"output: {record['output']}"]
    parts: list[Part] = [Table(frame, _COLUMNS, title), *(Paragraph(line) for line in lines)]
    parts += [Warning(note) for note in record["notes"]]
    return Document(title, "", (Section("", tuple(parts)),))


def score_record(plan: Plan, failures: Sequence[Failure]) -> dict[str, Any]:
    """What stands in the lake after scoring; options of direct evaluation are counted apart."""
    done = plan.done()
    receipts, damaged = registered_receipts(plan, (u for u in plan.units if u.address in done))
    found = [*failures, *unscored_failures(plan.units, receipts), *damaged_failures(plan.units, damaged)]
    lake = list(plan.select("trajectories"))
    options = list(plan.select("choices"))

    def counts(units: Sequence[Unit]) -> dict[str, int]:
        own = [receipts[u.address] for u in units if u.address in receipts]
        return {"units": len(units), "done": len(own), "rows": sum(receipt.rows for receipt in own)}

    by_candidate = _by_candidate(lake)
    return {
        "lake": plan.folder("trajectories"),
        **counts(lake),
        "candidates": [
            {"candidate": c.name, "candidate_id": c.candidate_id, **counts(by_candidate[c.candidate_id])}
            for c in plan.candidates
        ],
        "notes": plan.notes(),
        "failed": [failure.as_record() for failure in found],
        "direct_evaluation": {"path": plan.folder("choices"), **counts(options)},
        "tokens_read": sum(r.tokens_read for r in receipts.values()),
        "scoring_seconds": round(sum(r.seconds for r in receipts.values()), 3),
    }


def _by_candidate(units: Iterable[Unit]) -> dict[str, list[Unit]]:
    """One pass over a plan that may hold a million of them."""
    found: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        found[unit.candidate.candidate_id].append(unit)
    return found


def save_failures(plan: Plan, failures: Sequence[Failure]) -> None:
    """Keep what failed while scoring beside the lake, for `aggregate` and the app to show."""
    ids = {c.name: c.candidate_id for c in plan.candidates}
    records = [{**asdict(f), "candidate_id": ids.get(f.name)} for f in failures if f not in plan.failures]
    storage.write_bytes(_failures_path(plan), json.dumps(records, indent=2).encode())


@dataclass(frozen=True)
class _Kept:
    failure: Failure
    candidate_id: str | None


def load_failures(plan: Plan) -> list[Failure]:
    """Failures of the plan itself, and those of the last scoring that concern candidates as they are now.

    Raises:
        InputError: the file of the last scoring's failures is damaged.
    """
    path = _failures_path(plan)
    if not storage.exists(path):
        return list(plan.failures)
    present = {(c.name, c.candidate_id) for c in plan.candidates}
    try:
        records = checked(list[dict[str, Any]], parsed_json(storage.read_bytes(path)))
        known = [checked(_Kept, {"candidate_id": r.pop("candidate_id"), "failure": r}) for r in records]
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged: {error}; delete it and score again") from None
    return [*plan.failures, *(k.failure for k in known if (k.failure.name, k.candidate_id) in present)]


def _failures_path(plan: Plan) -> str:
    return storage.join(plan.config.output, "failures.json")
