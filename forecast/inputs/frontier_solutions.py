"""Solutions that came with a frontier model's tokens, for rBridge."""

from collections.abc import Collection, Sequence

from forecast.config.sources import TrajectorySource
from forecast.errors import InputError, fault_of
from forecast.inputs.trajectories import trajectory_rows
from forecast.proxies.rbridge import FrontierTokens, read_frontier_tokens

Solutions = dict[tuple[str, str], tuple[str, FrontierTokens | None]]  # (expert, instance) -> text, tokens


def frontier_solutions(
    sources: Sequence[TrajectorySource], tasks: Collection[str]
) -> tuple[dict[str, Solutions], dict[str, str]]:
    """By task, of those tasks that have frontier tokens in some source; and why others cannot be used.

    The files are read once more: what the frontier model thought is no part of what candidates read, so it
    travels with no unit and shapes no address.
    """
    found: dict[str, Solutions] = {}
    faults: dict[str, str] = {}
    named = {source.task for source in sources if source.columns.frontier_tokens}
    for task in sorted(named & set(tasks)):
        solutions: Solutions = {}
        try:
            for source in sources:
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
            faults[task] = fault_of(error, "a file of it")
        else:
            found[task] = solutions
    return found, faults
