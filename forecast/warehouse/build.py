"""From the lake to the warehouse: all proxies and measured scores of a plan, computed anew.

The lake is read one candidate and task at a time, so memory is bounded by the largest of these (about 600
bytes a token). Building twice gives the same tables to the bit, but for `run.built_at`.

The proxies over bytes count the text that all candidates have scored, which is known only at the end. They
are computed with what is known so far, and once more where a later candidate has scored less.
"""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import polars as pl

import forecast
from forecast.config.schema import Config
from forecast.errors import ForecastError, InputError
from forecast.inputs.measured_scores import MeasuredScore, load_scores
from forecast.lake.files import Receipt, read_rows
from forecast.plan import Failure, Plan, Unit
from forecast.proxies.byte_proxies import byte_columns, byte_lists, byte_scores
from forecast.proxies.token_proxies import PROXIES, instance_scores, token_lists
from forecast.warehouse.connect import published, warehouse_path
from forecast.warehouse.participation import Group, Participation, group_of, participation
from forecast.warehouse.rbridge_rows import Solutions, frontier_solutions, rbridge_rows
from forecast.warehouse.sql import statement

DIRECT_METRIC = "accuracy_per_character"

_POLARS_TYPES = {
    "VARCHAR": pl.String,
    "BIGINT": pl.Int64,
    "INTEGER": pl.Int32,
    "DOUBLE": pl.Float64,
    "BOOLEAN": pl.Boolean,
}


def build_warehouse(plan: Plan, failures: Sequence[Failure] = ()) -> list[Failure]:
    """Compute all proxies and measured scores of a plan from its lake and publish the serving file.

    A candidate takes part when all its units are done and it could read something of every task; instances
    that one of these candidates could not read are left out for all of them, so that every mean is over the
    same texts. What is left out is kept in the file with the reason.

    Args:
        failures: what is known to have failed, to be shown beside the candidates.

    Returns:
        All that failed: of `failures` what still holds, candidates and tasks that nothing could be computed
        for, instances left out, measured scores that could not be used.

    Raises:
        NoDataError: no candidate takes part.
        InputError: a file of the lake is damaged.
    """
    part = participation(plan, failures)
    scores, unusable = imported_scores(plan.config)
    frontier, unreadable = frontier_solutions(plan)
    found = [*part.failures, *unusable, *unreadable]
    with published(warehouse_path(plan.config.output)) as db:
        db.execute(statement("tables", proxy_columns=",\n    ".join(f"{p.name} DOUBLE" for p in PROXIES)))
        db.execute(statement("byte_tables", byte_columns=byte_columns()))
        _insert(db, "run", [_run_row(plan)])
        _insert(db, "candidates", _candidate_rows(plan, part, found))
        _insert(db, "units", [_unit_row(plan, unit, part.receipts[unit.address]) for unit in part.units])
        _insert(db, "unscored", _unscored_rows(part))
        _insert(db, "failures", [_failure_row(place, failure) for place, failure in enumerate(found)])
        _insert(db, "choice_items", _choice_rows(plan))
        _insert(db, "measured", [_score_row(score) for score in scores])
        _compute(db, plan, part, frontier)
        db.execute(statement("task_proxies"))
        db.execute(statement("byte_task_proxies"))
        db.execute(statement("measured"), {"metric": DIRECT_METRIC})
    return found


def _compute(
    db: duckdb.DuckDBPyConnection, plan: Plan, part: Participation, frontier: Mapping[str, Solutions]
) -> None:
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
        rows = read_rows((plan.path(unit), part.receipts[unit.address]) for unit in groups[group])
        db.register("tokens", rows)

    for group, units in sorted(groups.items()):
        read(group)
        if units[0].shard.kind == "trajectories":
            db.execute(proxies, {"vocab_size": part.receipts[units[0].address].vocab_size})
            db.execute(byte_proxies)
            if (solutions := frontier.get(units[0].shard.task)) is not None:
                _insert(db, "rbridge", rbridge_rows(db, solutions))
        else:
            db.execute(results)
        db.unregister("tokens")
    for candidate_id, task in _counted_too_much(db):
        read((candidate_id, "trajectories", task))
        db.execute(
            "DELETE FROM byte_instance_proxies WHERE candidate_id = ? AND task = ?", [candidate_id, task]
        )
        db.execute(byte_proxies)
        db.unregister("tokens")


def _counted_too_much(db: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Candidates and tasks with bytes that some other candidate has not scored."""
    return db.execute(
        "SELECT DISTINCT candidate_id, task FROM byte_instance_proxies "
        "JOIN common_bytes USING (task, expert, instance_id) WHERE n_bytes > n_common ORDER BY ALL"
    ).fetchall()


def imported_scores(config: Config) -> tuple[list[MeasuredScore], list[Failure]]:
    """Scores from the configuration's files, and the files that cannot be used."""
    scores: dict[tuple[str, str, str], MeasuredScore] = {}
    places: dict[tuple[str, str, str], str] = {}
    failures: list[Failure] = []
    names = [candidate.name for candidate in config.candidates]
    for source in config.measured_scores:
        try:
            loaded = {
                (score.candidate, score.task, score.metric): score for score in load_scores(source, names)
            }
            if twice := sorted(loaded.keys() & scores.keys()):
                raise InputError(
                    f"{source.path}: {' / '.join(twice[0])} is also in {places[twice[0]]}; remove one"
                )
        except ForecastError as error:
            failures.append(Failure("measured_scores", source.path, str(error)))
        else:
            scores |= loaded
            places |= dict.fromkeys(loaded, source.path)
    return list(scores.values()), failures


def _run_row(plan: Plan) -> tuple[Any, ...]:
    return (
        plan.config.name,
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        forecast.__version__,
        str(plan.config.window),
        plan.folder("trajectories"),
        plan.config.model_dump_json(),
    )


def _candidate_rows(plan: Plan, part: Participation, failures: Sequence[Failure]) -> list[tuple[Any, ...]]:
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
        identity = candidate.candidate_id if candidate else settings.name
        receipt = complete.get(identity)
        error = errors.get(identity)
        if receipt is not None:
            status, reason = "complete", None
        elif error is not None:
            status, reason = "failed", error
        else:
            status = "incomplete"
            reason = f"{part.waiting.get(identity, 0)} of {total[identity]} units are not scored yet"
        counted = receipt.parameters if receipt else candidate.parameters if candidate else None
        rows.append(
            (
                place,
                settings.name,
                candidate.candidate_id if candidate else None,
                settings.family,
                settings.source,
                candidate.dtype if candidate else None,
                candidate.prompt_form if candidate else None,
                settings.quantize.bits if settings.quantize else None,
                str(settings.drop_layers) if settings.drop_layers else None,
                settings.parameters or counted,
                settings.active_parameters,
                settings.training_tokens,
                settings.corpus,
                settings.seed,
                settings.step,
                receipt.vocab_size if receipt else None,
                receipt.device if receipt else None,
                status,
                reason,
            )
        )
    return rows


def _unit_row(plan: Plan, unit: Unit, receipt: Receipt) -> tuple[Any, ...]:
    return (
        unit.address,
        unit.candidate.name,
        unit.shard.kind,
        unit.shard.task,
        plan.path(unit),
        receipt.rows,
        receipt.tokens_read,
        receipt.seconds,
        receipt.finished_at,
    )


def _score_row(score: MeasuredScore) -> tuple[Any, ...]:
    return (score.candidate, score.task, score.metric, score.value, score.stderr, None, score.source)


def _failure_row(place: int, failure: Failure) -> tuple[Any, ...]:
    return (place, failure.subject, failure.name, failure.task, failure.instance_id, failure.error)


def _unscored_rows(part: Participation) -> list[tuple[Any, ...]]:
    return [
        (shard.kind, unit.candidate.name, shard.task, entry["expert"], entry["instance_id"], entry["reason"])
        for unit in part.units
        for shard in [unit.shard]
        for entry in part.receipts[unit.address].unscored
    ]


def _choice_rows(plan: Plan) -> list[tuple[Any, ...]]:
    return [
        (task, item.instance_id, choice, length, choice == item.answer)
        for task, items in plan.choices.items()
        for item in items
        for choice, length in enumerate(item.lengths())
    ]


def _insert(db: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    columns = db.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index",
        [table],
    ).fetchall()
    schema = {name: _POLARS_TYPES[kind] for name, kind in columns}
    db.register("incoming", pl.DataFrame(list(rows), schema=schema, orient="row").to_arrow())
    db.execute(f"INSERT INTO {table} FROM incoming")
    db.unregister("incoming")
