"""Proxies computed anew from token rows: a database in memory, filled by the SQL of the warehouse."""

from collections.abc import Iterable, Sequence

import duckdb
import polars as pl
import pyarrow as pa

from forecast.inputs.measured_scores import MeasuredScore
from forecast.proxies.token_proxies import PROXIES, instance_scores, token_lists
from forecast.warehouse.population import Population, load_population
from forecast.warehouse.sql import statement


class RecomputedProxies:
    """All proxies of some candidates, filled a candidate and task at a time."""

    def __init__(self, candidates: Iterable[tuple[str, str]], dropped: pl.DataFrame) -> None:
        """Start without tokens.

        Args:
            candidates: name and candidate_id of each.
            dropped: task, expert and instance_id of what is left out for all candidates.
        """
        self._db = duckdb.connect()
        columns = ",\n    ".join(f"{proxy.name} DOUBLE" for proxy in PROXIES)
        self._db.execute(statement("tables", proxy_columns=columns))
        self._db.register("dropped", dropped.to_arrow())
        self._db.executemany(
            "INSERT INTO candidates (place, candidate, candidate_id, status) VALUES (?, ?, ?, 'complete')",
            [(place, *candidate) for place, candidate in enumerate(candidates)],
        )
        self._fill = statement(
            "instance_proxies", token_lists=token_lists(), instance_scores=instance_scores()
        )

    def add(self, tokens: pa.Table, vocab_size: int) -> None:
        """Token rows of one candidate and task."""
        self._db.register("tokens", tokens)
        self._db.execute(self._fill, {"vocab_size": vocab_size})
        self._db.unregister("tokens")

    def population(self, scores: Sequence[MeasuredScore] = ()) -> Population:
        """The candidates with their proxies and these measured scores.

        Raises:
            NoDataError: no trajectory is left.
        """
        if rows := [(s.candidate, s.task, s.metric, s.value, s.stderr, s.source) for s in scores]:
            self._db.executemany(
                "INSERT INTO measured (candidate, task, metric, value, stderr, source) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )
        return load_population(self._db)
