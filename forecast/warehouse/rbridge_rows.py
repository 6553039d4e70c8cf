"""rBridge of a run: candidates' scores on solutions that came with a frontier model's tokens."""

from typing import Any

import duckdb
import polars as pl

from forecast.inputs.frontier_solutions import Solutions
from forecast.proxies.rbridge import rbridge_by_instance


def rbridge_rows(db: duckdb.DuckDBPyConnection, solutions: Solutions) -> list[dict[str, Any]]:
    """Rows of the table `rbridge`, from the views `tokens` and `dropped`; none where there are no tokens."""
    query = "SELECT * FROM tokens ANTI JOIN dropped USING (task, expert, instance_id)"
    rows = pl.DataFrame(db.sql(query).to_arrow_table())
    if rows.is_empty():
        return []
    scored = rbridge_by_instance(rows, solutions).drop_nulls("rbridge")
    group = rows.select("candidate_id", "task").row(0, named=True)
    return [{**group, **row} for row in scored.to_dicts()]
