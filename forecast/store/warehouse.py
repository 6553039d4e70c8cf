"""The warehouse: one DuckDB file with everything that tables, rankings and the app read; computed anew from the lake.

It is built aside and renamed, so a reader has the old file or the new one. DuckDB allows one writer or many readers of a
file: nobody ever writes to the file that is being served.
"""

import datetime
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.dataset

import forecast
from forecast import storage
from forecast.errors import ForecastError, NoDataError
from forecast.inputs.scores import MeasuredScore, load_scores
from forecast.plan import Failure, Plan, Unit
from forecast.proxies import instance_sums, token_columns
from forecast.scoring import TOKEN_ROW
from forecast.store.lake import Receipt, read_receipts, unscored_failures

FILE_NAME = "warehouse.duckdb"
DIRECT_METRIC = "accuracy_per_character"


def warehouse_path(output: str) -> str:
    """The serving file of an output folder."""
    return storage.join(output, FILE_NAME)


def build_warehouse(plan: Plan, failures: Sequence[Failure] = ()) -> list[Failure]:
    """Compute all proxies and measured scores of a plan from its lake and publish the serving file.

    A candidate takes part when all its units are done; instances that one of these candidates could not read are left
    out for all of them, so that every mean is over the same texts. Both are kept in the file with the reason.

    Args:
        failures: what is known to have failed, to be shown beside the candidates.

    Returns:
        The failures given, and measured scores that could not be read.

    Raises:
        NoDataError: no candidate is complete.
        InputError: a file of the lake is damaged.
    """
    done = plan.done()
    missing: dict[str, int] = {}
    for unit in plan.units:
        missing[unit.candidate.candidate_id] = missing.get(unit.candidate.candidate_id, 0) + (unit.address not in done)
    complete = {candidate_id for candidate_id, n in missing.items() if n == 0}
    if not complete:
        raise NoDataError("no candidate is fully scored yet; run `forecast score` with this configuration first")
    units = [unit for unit in plan.units if unit.candidate.candidate_id in complete]
    receipts = read_receipts(plan, units)
    found = list(failures)
    scores: list[MeasuredScore] = []
    for source in plan.config.measured_scores:
        try:
            scores += load_scores(source, [c.name for c in plan.config.candidates])
        except ForecastError as error:
            found.append(Failure("measured_scores", source.path, str(error)))
    found += unscored_failures(plan, receipts)
    with _published(warehouse_path(plan.config.output)) as db:
        _load_sources(db, plan, units, receipts)
        for name in ("instance_proxies", "task_proxies", "choice_results"):
            _run_sql(db, name)
        _write_candidates(db, plan, missing, receipts, found)
        _write_measured(db, scores)
        _write_run(db, plan, units, receipts, found)
    return found


def _load_sources(
    db: duckdb.DuckDBPyConnection, plan: Plan, units: Sequence[Unit], receipts: Mapping[str, Receipt]
) -> None:
    for view, kind in (("tokens", "trajectories"), ("choice_tokens", "choices")):
        paths = [plan.path(unit) for unit in units if unit.shard.kind == kind]
        if not paths:
            _table(db, view, TOKEN_ROW, [])
        elif storage.is_remote(paths[0]):
            # DuckDB reads object stores only through an extension that it downloads; pyarrow brings its own client.
            fs, _ = storage.filesystem(paths[0])
            inner = [storage.filesystem(path)[1] for path in paths]
            db.register(view, pyarrow.dataset.dataset(inner, filesystem=fs, format="parquet"))
        else:
            db.execute(f"CREATE TEMP VIEW {view} AS SELECT * FROM read_parquet({_sql_list(paths)})")
    by_id = {receipt.candidate_id: receipt for receipt in receipts.values()}
    _table(
        db,
        "vocabulary",
        {"candidate_id": pl.String(), "vocab_size": pl.Int64()},
        [(candidate_id, receipt.vocab_size) for candidate_id, receipt in by_id.items()],
    )
    unread = [
        (unit.shard.kind, unit.candidate.name, unit.shard.task, entry["expert"], entry["instance_id"], entry["reason"])
        for unit in units
        for entry in receipts[unit.address].unscored
    ]
    text = pl.String()
    _table(
        db,
        "unscored",
        {"kind": text, "candidate": text, "task": text, "expert": text, "instance_id": text, "reason": text},
        unread,
    )
    db.execute("CREATE TEMP VIEW dropped AS SELECT DISTINCT task, expert, instance_id FROM unscored WHERE kind = 'trajectories'")
    db.execute("CREATE TEMP VIEW dropped_choices AS SELECT DISTINCT task, instance_id FROM unscored WHERE kind = 'choices'")
    _table(
        db,
        "choice_items",
        {"task": text, "instance_id": text, "choice": pl.Int32(), "n_characters": pl.Int32(), "is_answer": pl.Boolean()},
        [
            (task, item.instance_id, choice, length, choice == item.answer)
            for task, items in plan.choices.items()
            for item in items
            for choice, length in enumerate(item.lengths())
        ],
    )


def _run_sql(db: duckdb.DuckDBPyConnection, name: str) -> None:
    text = (files("forecast.store") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    db.execute(text.replace("{token_columns}", token_columns()).replace("{instance_sums}", instance_sums()))


def _write_candidates(
    db: duckdb.DuckDBPyConnection,
    plan: Plan,
    missing: Mapping[str, int],
    receipts: Mapping[str, Receipt],
    failures: Sequence[Failure],
) -> None:
    errors = {failure.name: failure.error for failure in failures if failure.subject == "candidate" and not failure.task}
    resolved = {candidate.name: candidate for candidate in plan.candidates}
    by_id = {receipt.candidate_id: receipt for receipt in receipts.values()}
    rows = []
    for settings in plan.config.candidates:
        candidate = resolved.get(settings.name)
        receipt = by_id.get(candidate.candidate_id) if candidate else None
        open_units = missing.get(candidate.candidate_id, 0) if candidate else 0
        status = "complete" if receipt else "incomplete" if candidate else "failed"
        error = errors.get(settings.name) if status != "complete" else None
        if status == "incomplete" and error is None:
            error = f"{open_units} units are not scored yet"
        rows.append(
            (
                settings.name,
                candidate.candidate_id if candidate else None,
                settings.family,
                settings.source,
                candidate.dtype if candidate else None,
                candidate.prompt_form if candidate else None,
                settings.quantize.bits if settings.quantize else None,
                str(settings.drop_layers) if settings.drop_layers else None,
                receipt.parameters if receipt else candidate.parameters if candidate else settings.parameters,
                settings.active_parameters,
                settings.training_tokens,
                settings.corpus,
                settings.seed,
                settings.step,
                receipt.vocab_size if receipt else None,
                receipt.device if receipt else None,
                status,
                error,
            )
        )
    text, number = pl.String(), pl.Int64()
    schema = {
        "candidate": text,
        "candidate_id": text,
        "family": text,
        "source": text,
        "dtype": text,
        "prompt_form": text,
        "quantize_bits": number,
        "drop_layers": text,
        "parameters": number,
        "active_parameters": number,
        "training_tokens": number,
        "corpus": text,
        "seed": number,
        "step": number,
        "vocab_size": number,
        "device": text,
        "status": text,
        "error": text,
    }
    _table(db, "candidates", schema, rows)


def _write_measured(db: duckdb.DuckDBPyConnection, scores: Sequence[MeasuredScore]) -> None:
    text, real = pl.String(), pl.Float64()
    schema = {"candidate": text, "task": text, "metric": text, "value": real, "stderr": real, "source": text}
    rows = [(s.candidate, s.task, s.metric, s.value, s.stderr, s.source) for s in scores]
    _table(db, "imported_scores", schema, rows)
    db.execute(
        """
        CREATE TABLE measured AS
        SELECT candidate, task, metric, value, stderr, NULL::BIGINT AS n_items, source FROM imported_scores
        UNION ALL
        SELECT candidate, task, ?, avg(correct ORDER BY instance_id),
            stddev_samp(correct ORDER BY instance_id) / sqrt(count(*)), count(*), 'direct evaluation'
        FROM choice_results JOIN candidates USING (candidate_id)
        GROUP BY candidate, task
        ORDER BY candidate, task, metric
        """,
        [DIRECT_METRIC],
    )
    db.execute("DROP TABLE imported_scores")


def _write_run(
    db: duckdb.DuckDBPyConnection,
    plan: Plan,
    units: Sequence[Unit],
    receipts: Mapping[str, Receipt],
    failures: Sequence[Failure],
) -> None:
    """Facts about the run itself, the units that are in it, and what failed."""
    text, number, real = pl.String(), pl.Int64(), pl.Float64()
    _table(
        db,
        "run",
        {"name": text, "built_at": text, "forecast_version": text, "window": text, "lake": text, "config": text},
        [
            (
                plan.config.name,
                datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                forecast.__version__,
                str(plan.config.window),
                plan.folder("trajectories"),
                plan.config.model_dump_json(),
            )
        ],
    )
    _table(
        db,
        "units",
        {
            "address": text,
            "candidate": text,
            "kind": text,
            "task": text,
            "path": text,
            "rows": number,
            "tokens_read": number,
            "seconds": real,
            "finished_at": real,
        },
        [
            (u.address, u.candidate.name, u.shard.kind, u.shard.task, plan.path(u), r.rows, r.tokens_read, r.seconds, r.finished_at)
            for u in units
            for r in [receipts[u.address]]
        ],
    )
    _table(
        db,
        "failures",
        {"subject": text, "name": text, "task": text, "instance_id": text, "error": text},
        [(f.subject, f.name, f.task, f.instance_id, f.error) for f in failures],
    )


def _table(
    db: duckdb.DuckDBPyConnection, name: str, schema: Mapping[str, Any], rows: Sequence[tuple[Any, ...]]
) -> None:
    frame = pl.DataFrame(list(rows), schema=dict(schema), orient="row").to_arrow()
    db.register("incoming", frame)
    db.execute(f"CREATE TABLE {name} AS SELECT * FROM incoming")
    db.unregister("incoming")


def _sql_list(values: Sequence[str]) -> str:
    return "[" + ", ".join("'" + value.replace("'", "''") + "'" for value in values) + "]"


@contextmanager
def _published(path: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A new database that takes the place of the one at `path` when the block ends well, and leaves no trace else."""
    with tempfile.TemporaryDirectory(prefix="forecast-") as scratch:
        aside = Path(scratch) / FILE_NAME
        if not storage.is_remote(path):
            storage.sweep_temporaries(str(Path(path).parent))
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            aside = storage.temporary_beside(Path(path))
        try:
            with duckdb.connect(str(aside), config={"temp_directory": scratch}) as db:
                yield db
                db.execute("CHECKPOINT")
            if storage.is_remote(path):
                storage.write_bytes(path, aside.read_bytes())
            else:
                aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
            aside.with_name(aside.name + ".wal").unlink(missing_ok=True)


@contextmanager
def open_warehouse(output: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the serving file; an object store's file is fetched first.

    Raises:
        NoDataError: nothing has been aggregated yet.
    """
    path = warehouse_path(output)
    if not storage.exists(path):
        raise NoDataError(f"no warehouse at {path}; run `forecast aggregate` (or `forecast run`) first")
    with tempfile.TemporaryDirectory(prefix="forecast-") as scratch:
        local = path
        if storage.is_remote(path):
            local = str(Path(scratch) / FILE_NAME)
            Path(local).write_bytes(storage.read_bytes(path))
        with duckdb.connect(local, read_only=True) as db:
            yield db


def read_failures(db: duckdb.DuckDBPyConnection) -> list[Failure]:
    """What failed when the warehouse was built."""
    rows = db.execute("SELECT subject, name, error, task, instance_id FROM failures ORDER BY rowid").fetchall()
    return [Failure(*row) for row in rows]
