"""rBridge of a run: solutions that came with a frontier model's tokens, and candidates' scores on them."""

from typing import Any

import duckdb
import polars as pl

from forecast.errors import InputError, fault_of
from forecast.inputs.trajectories import trajectory_rows
from forecast.plan import Failure, Plan
from forecast.proxies.rbridge import FrontierTokens, rbridge_by_instance, read_frontier_tokens

Solutions = dict[tuple[str, str], tuple[str, FrontierTokens | None]]  # (expert, instance) -> text, tokens


def frontier_solutions(plan: Plan) -> tuple[dict[str, Solutions], list[Failure]]:
    """By task, of the tasks that have frontier tokens in some source; and tasks whose column is at fault.

    The files are read once more: what the frontier model thought is no part of what candidates read, so it
    travels with no unit and shapes no address.
    """
    found: dict[str, Solutions] = {}
    failures: list[Failure] = []
    named = {source.task for source in plan.config.trajectories if source.columns.frontier_tokens}
    for task in sorted(named & plan.trajectories.keys()):
        solutions: Solutions = {}
        try:
            for source in plan.config.trajectories:
                if source.task != task:
                    continue
                column = source.columns.frontier_tokens
                for trajectory, row in trajectory_rows(source):
                    key = (trajectory.expert, trajectory.instance_id)
                    tokens = None
                    if column is not None:
                        if column not in row.data:
                            raise InputError(f"{row.where}: no column {column!r} (columns.frontier_tokens)")
                        tokens = read_frontier_tokens(row.data[column], trajectory.solution, row.where)
                    solutions[key] = trajectory.solution, tokens
        except BaseException as error:
            failures.append(Failure("task", task, f"rBridge of {task}: {fault_of(error, 'a file of it')}"))
        else:
            found[task] = solutions
    return found, failures


def rbridge_rows(db: duckdb.DuckDBPyConnection, solutions: Solutions) -> list[dict[str, Any]]:
    """Rows of the table `rbridge`, from the views `tokens` and `dropped`; none where there are no tokens."""
    query = "SELECT * FROM tokens ANTI JOIN dropped USING (task, expert, instance_id)"
    rows = pl.DataFrame(db.sql(query).to_arrow_table())
    if rows.is_empty():
        return []
    scored = rbridge_by_instance(rows, solutions).drop_nulls("rbridge")
    group = rows.select("candidate_id", "task").row(0, named=True)
    return [{**group, **row} for row in scored.to_dicts()]
