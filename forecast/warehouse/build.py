"""From the lake to the warehouse: all proxies and measured scores of a plan, computed anew.

The lake is read one candidate and task at a time, so memory is bounded by the largest of these (about 600
bytes a token). Building twice gives the same tables to the bit, but for `run.built_at`.

The proxies over bytes count the text that all candidates have scored, which is known only at the end. They
are computed with what is known so far, and once more where a later candidate has scored less.
"""

import datetime
from collections import Counter
from collections.abc import Sequence
from typing import Any

import duckdb
import polars as pl

import forecast
from forecast.lake.files import DamagedUnit, read_rows
from forecast.plan import Failure, Plan, Unit
from forecast.proxies.byte_proxies import byte_lists, byte_scores
from forecast.proxies.token_proxies import instance_scores, token_lists
from forecast.warehouse.connect import published, warehouse_path
from forecast.warehouse.participation import Group, Participation, group_of, participation
from forecast.warehouse.rbridge_rows import rbridge_rows
from forecast.warehouse.schema import create_means, create_tables
from forecast.warehouse.sql import statement

DIRECT_METRIC = "accuracy_per_character"

_Record = dict[str, Any]


def build_warehouse(plan: Plan, failures: Sequence[Failure] = ()) -> list[Failure]:
    """Compute all proxies and measured scores of a plan from its lake and publish the serving file.

    A candidate takes part when all its units are done and it could read something of every task; instances
    that one of these candidates could not read are left out for all of them, so that every mean is over the
    same texts. What is left out is kept in the file with the reason. A damaged file of the lake spoils its
    candidate only.

    Args:
        failures: what is known to have failed, to be shown beside the candidates.

    Returns:
        All that failed: of `failures` what still holds, candidates and tasks that nothing could be computed
        for, instances left out, measured scores that could not be used.

    Raises:
        NoDataError: no candidate takes part.
    """
    damaged: list[DamagedUnit] = []
    while True:
        try:
            return _build(plan, participation(plan, failures, damaged))
        except DamagedUnit as error:  # seen only when its rows were read, so all is counted anew without it
            if any(one.path == error.path for one in damaged):
                raise
            damaged.append(error)


def _build(plan: Plan, part: Participation) -> list[Failure]:
    found = list(part.failures)
    with published(warehouse_path(plan.config.output)) as db:
        create_tables(db)
        for table, rows in _given(plan, part, found).items():
            _insert(db, table, rows)
        _compute(db, plan, part)
        create_means(db)
        db.execute(statement("measured"), {"metric": DIRECT_METRIC})
    return found


def _compute(db: duckdb.DuckDBPyConnection, plan: Plan, part: Participation) -> None:
    """Fill `instance_proxies`, `rbridge` and `choice_results`, a candidate and task at a time."""
    for view, kind, keys in (
        ("dropped", "trajectories", "task, expert, instance_id"),
        ("dropped_choices", "choices", "task, instance_id"),
    ):
        db.execute(f"CREATE TEMP VIEW {view} AS SELECT DISTINCT {keys} FROM unscored WHERE kind = '{kind}'")
    proxies = statement("instance_proxies", token_lists=token_lists(), instance_scores=instance_scores())
    byte_proxies = statement("byte_instance_proxies", byte_lists=byte_lists(), byte_scores=byte_scores())
    results = statement("choice_results")
    groups: dict[Group, list[Unit]] = {}
    for unit in part.units:
        groups.setdefault(group_of(unit), []).append(unit)

    def read(group: Group) -> None:
        rows = read_rows((plan.path(unit), part.receipts[unit.address].rows) for unit in groups[group])
        db.register("tokens", rows)

    for group, units in sorted(groups.items()):
        read(group)
        if units[0].shard.kind == "trajectories":
            db.execute(proxies, {"vocab_size": part.receipts[units[0].address].vocab_size})
            db.execute(byte_proxies)
            if (solutions := plan.frontier.get(units[0].shard.task)) is not None:
                _insert(db, "rbridge", rbridge_rows(db, solutions))
        else:
            db.execute(results)
        db.unregister("tokens")
    too_many_bytes = db.execute(  # some that another candidate has not scored
        "SELECT DISTINCT candidate_id, task FROM byte_instance_proxies "
        "JOIN common_bytes USING (task, expert, instance_id) WHERE n_bytes > n_common ORDER BY ALL"
    ).fetchall()
    for candidate_id, task in too_many_bytes:
        read((candidate_id, "trajectories", task))
        own = "candidate_id = ? AND task = ?"
        db.execute(f"DELETE FROM byte_instance_proxies WHERE {own}", [candidate_id, task])
        db.execute(byte_proxies)
        db.unregister("tokens")


def _given(plan: Plan, part: Participation, failures: Sequence[Failure]) -> dict[str, list[_Record]]:
    """Rows of the tables that are not computed from tokens."""
    run = {
        "name": plan.config.name,
        "built_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "forecast_version": forecast.__version__,
        "window": str(plan.config.window),
        "lake": plan.folder("trajectories"),
        # Addresses to deliver to are secrets, and everybody who reads results reads this.
        "config": plan.config.model_dump_json(exclude={"nightly": {"deliver"}}),
    }
    units, unscored = [], []
    for unit in part.units:
        about = {"candidate": unit.candidate.name, "kind": unit.shard.kind, "task": unit.shard.task}
        receipt = part.receipts[unit.address]
        units.append({**vars(receipt), **about, "path": plan.path(unit)})
        unscored += [{**entry, **about} for entry in receipt.unscored]
    return {
        "run": [run],
        "candidates": _candidate_rows(plan, part, failures),
        "units": units,
        "unscored": unscored,
        "failures": [{"place": place, **vars(failure)} for place, failure in enumerate(failures)],
        "choice_items": [
            {
                "task": task,
                "instance_id": item.instance_id,
                "choice": choice,
                "n_characters": length,
                "is_answer": choice == item.answer,
            }
            for task, items in plan.choices.items()
            for item in items
            for choice, length in enumerate(item.lengths())
        ],
        "measured": [{**vars(score), "n_items": None} for score in plan.scores],
    }


def _candidate_rows(plan: Plan, part: Participation, failures: Sequence[Failure]) -> list[_Record]:
    resolved = {candidate.name: candidate for candidate in plan.candidates}
    ids = {candidate.name: candidate.candidate_id for candidate in plan.candidates}
    total = Counter(unit.candidate.candidate_id for unit in plan.units)
    complete = {unit.candidate.candidate_id: part.receipts[unit.address] for unit in part.units}
    errors = {
        ids.get(f.name, f.name): f.error for f in failures if f.subject == "candidate" and f.task is None
    }
    rows = []
    for place, settings in enumerate(plan.config.candidates):
        candidate = resolved.get(settings.name)
        identity = ids.get(settings.name, settings.name)
        receipt = complete.get(identity)
        error: str | None = None
        if receipt is not None:
            status = "complete"
        elif identity in errors:
            status, error = "failed", errors[identity]
        else:
            status = "incomplete"
            error = f"{part.waiting.get(identity, 0)} of {total[identity]} units are not scored yet"
        counted = receipt.parameters if receipt else candidate.parameters if candidate else None
        rows.append(
            {
                **settings.model_dump(),
                **{key: getattr(candidate, key, None) for key in ("candidate_id", "dtype", "prompt_form")},
                **{key: getattr(receipt, key, None) for key in ("vocab_size", "device", "input_embedding")},
                "place": place,
                "candidate": settings.name,
                "quantize_bits": settings.quantize.bits if settings.quantize else None,
                "drop_layers": str(settings.drop_layers) if settings.drop_layers else None,
                "parameters": settings.parameters or counted,
                **({"input_embedding": 0} if settings.parameters else {}),  # what is given is taken as it is
                "status": status,
                "error": error,
            }
        )
    return rows


def _insert(db: duckdb.DuckDBPyConnection, table: str, rows: Sequence[_Record]) -> None:
    """Rows by the names of the table's columns; what a row holds beyond these is left out."""
    schema = pl.DataFrame(db.table(table).limit(0).to_arrow_table()).schema
    columns = [pl.Series(name, [row[name] for row in rows], dtype) for name, dtype in schema.items()]
    db.register("incoming", pl.DataFrame(columns).to_arrow())
    db.execute(f"INSERT INTO {table} FROM incoming")
    db.unregister("incoming")
