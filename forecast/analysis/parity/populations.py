"""The populations to compare: proxies of the same candidates and texts, and what is measured already.

A run's warehouse leaves out what one of *its* candidates could not read, which may be more under one setup
than under the other. So each setup gets a small database in memory, filled by the same SQL from common texts.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from forecast.analysis.parity.token_diff import INSTANCE, Instance
from forecast.config.schema import Config
from forecast.errors import ForecastError, InputError
from forecast.inputs.measured_scores import MeasuredScore, load_scores
from forecast.inputs.models.resolve import Candidate
from forecast.plan import Failure
from forecast.proxies.token_proxies import PROXIES, instance_scores, token_lists
from forecast.warehouse.connect import open_warehouse
from forecast.warehouse.population import Population, Target, load_population
from forecast.warehouse.sql import statement


def population_of(
    candidates: Sequence[Candidate],
    rows: Iterable[tuple[int, pa.Table]],
    dropped: Iterable[Instance],
    measured: Iterable[MeasuredScore] = (),
) -> Population | None:
    """All proxies of candidates from their token rows; None where no text is left.

    Args:
        rows: vocabulary size and token rows, once for each candidate_id and task.
        dropped: instances that one of the candidates could not read in one of the setups.
        measured: imported scores.
    """
    absent = pl.DataFrame(list(dropped), schema=dict.fromkeys(INSTANCE, pl.String), orient="row")
    proxies = statement("instance_proxies", token_lists=token_lists(), instance_scores=instance_scores())
    with duckdb.connect() as db:
        db.execute(statement("tables", proxy_columns=",\n    ".join(f"{p.name} DOUBLE" for p in PROXIES)))
        db.register("dropped", absent.to_arrow())
        db.executemany(
            "INSERT INTO candidates (place, candidate, candidate_id, status) VALUES (?, ?, ?, 'complete')",
            [(place, c.name, c.candidate_id) for place, c in enumerate(candidates)],
        )
        for vocab_size, tokens in rows:
            db.register("tokens", tokens)
            db.execute(proxies, {"vocab_size": vocab_size})
            db.unregister("tokens")
        if scores := [(s.candidate, s.task, s.metric, s.value, s.stderr, s.source) for s in measured]:
            db.executemany(
                "INSERT INTO measured (candidate, task, metric, value, stderr, source) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                scores,
            )
        if db.execute("SELECT count(*) FROM instance_proxies").fetchall() == [(0,)]:
            return None
        return load_population(db)


def imported_scores(config: Config) -> tuple[list[MeasuredScore], list[Failure]]:
    """Scores from the configuration's files, and the files that cannot be used."""
    names = [candidate.name for candidate in config.candidates]
    found: dict[tuple[str, str, str], MeasuredScore] = {}
    failures = []
    for source in config.measured_scores:
        try:
            loaded = {(s.candidate, s.task, s.metric): s for s in load_scores(source, names)}
            if twice := sorted(loaded.keys() & found.keys()):
                raise InputError(f"{source.path}: {' / '.join(twice[0])} is also in another file; remove one")
        except ForecastError as error:
            failures.append(Failure("measured_scores", source.path, str(error)))
        else:
            found |= loaded
    return list(found.values()), failures


def with_direct_evaluation(population: Population, config: Config) -> Population:
    """The population with the accuracies that the run itself has measured, where it has; they go first.

    Raises:
        NoDataError: the run has no warehouse yet.
    """
    with open_warehouse(config.output) as db:
        run = load_population(db)
    direct = {}
    for target in run.targets:
        if target.items is not None:
            values, errors = (
                np.array([_of(name, run, array) for name in population.candidates])
                for array in (target.values, target.stderr)
            )
            if np.isfinite(values).any():
                direct[target.task] = Target(target.task, target.metric, values, errors, None)
    others = {target.task: target for target in population.targets}
    merged = {**others, **direct}
    return dataclasses.replace(population, targets=tuple(merged[task] for task in sorted(merged)))


def _of(name: str, run: Population, values: NDArray[np.float64]) -> float:
    return float(values[run.candidates.index(name)]) if name in run.candidates else float("nan")
