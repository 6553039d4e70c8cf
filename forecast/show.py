"""One trajectory as one candidate read it: every scored token with its statistics."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from forecast import storage
from forecast.errors import ConfigError, NoDataError
from forecast.inputs.trajectories import Trajectory
from forecast.plan import Plan, Unit


@dataclass(frozen=True)
class ShownToken:
    """A scored token and the text that it stands for."""

    position: int
    text: str
    token_id: int
    n_bytes: int
    logprob: float
    entropy: float
    rank: int
    ties: int
    top1_logprob: float


@dataclass(frozen=True)
class Reading:
    """A trajectory and the scored tokens of its solution."""

    candidate: str
    trajectory: Trajectory
    unscored_text: str  # the part of the solution before the window
    tokens: tuple[ShownToken, ...]

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read_trajectory(
    plan: Plan, candidate: str | None, task: str | None, instance: str | None, expert: str | None
) -> Reading:
    """Find a trajectory in the lake; what is not given is the first there is.

    Raises:
        ConfigError: no such candidate, task, instance or expert in the configuration; names those there are.
        NoDataError: it is in the configuration but not scored yet.
    """
    unit, trajectory = _find(plan, candidate, task, instance, expert)
    path = plan.path(unit)
    if not storage.exists(path):
        raise NoDataError(f"{unit.candidate.name!r} has not read this trajectory yet; run `forecast score` first")
    rows = (
        pl.read_parquet(storage.read_bytes(path))
        .filter(pl.col("instance_id") == trajectory.instance_id, pl.col("expert") == trajectory.expert)
        .sort("position")
    )
    if rows.is_empty():
        raise NoDataError(f"{unit.candidate.name!r} could not read this trajectory; `forecast score` says why")
    # Scored tokens are the end of the solution, and their bytes add up: the text needs no tokenizer.
    data = trajectory.solution.encode("utf-8", "surrogatepass")
    start = len(data) - int(rows["n_bytes"].sum())
    tokens, at = [], start
    for row in rows.iter_rows(named=True):
        end = at + row["n_bytes"]
        statistics = {key: row[key] for key in ShownToken.__dataclass_fields__ if key != "text"}
        tokens.append(ShownToken(text=data[at:end].decode("utf-8", "replace"), **statistics))
        at = end
    return Reading(unit.candidate.name, trajectory, data[:start].decode("utf-8", "replace"), tuple(tokens))


def _find(
    plan: Plan, candidate: str | None, task: str | None, instance: str | None, expert: str | None
) -> tuple[Unit, Trajectory]:
    names = [c.name for c in plan.candidates]
    tasks = list(plan.trajectories)
    if candidate is not None and candidate not in names:
        raise ConfigError(f"no candidate {candidate!r}; there are: {', '.join(names)}")
    if task is not None and task not in tasks:
        raise ConfigError(f"no task {task!r}; there are: {', '.join(tasks)}")
    ids = {c.candidate_id for c in plan.candidates if candidate in (None, c.name)}
    for unit in plan.select("trajectories"):
        if unit.candidate.candidate_id not in ids or task not in (None, unit.shard.task):
            continue
        for t in unit.shard.trajectories:
            if instance in (None, t.instance_id) and expert in (None, t.expert):
                return unit, t
    some = ", ".join(t.instance_id for found in list(plan.trajectories.values())[:1] for t in found[:5])
    raise ConfigError(f"no instance {instance!r} (expert {expert or 'any'}); instances are named like: {some}")


def reading_view(reading: Reading, table: bool) -> RenderableType:
    """The solution in colour (green: expected, red: surprising), then its tokens as a table."""
    t = reading.trajectory
    text = Text()
    text.append(t.prompt, style="dim")
    text.append(reading.unscored_text, style="dim italic")
    for token in reading.tokens:
        text.append(token.text, style=_colour(token.logprob))
    n = len(reading.tokens)
    mean = -sum(token.logprob for token in reading.tokens) / n
    first = sum(token.rank == 1 for token in reading.tokens) / n
    head = Text(
        f"{reading.candidate} reads {t.task}/{t.instance_id} by {t.expert}: {n} tokens, cross-entropy {mean:.3f} nats, "
        f"first choice {first:.0%}",
        style="bold",
    )
    legend = Text("probability of the expert's token: ")
    for probability in (0.9, 0.5, 0.1, 0.01):
        legend.append(f" {probability:g} ", style=_colour(math.log(probability)))
    parts: list[RenderableType] = [head, legend, text]
    if table:
        grid = Table("position", "token", "logprob", "entropy", "rank", "ties", "top-1 logprob")
        for token in reading.tokens:
            grid.add_row(
                str(token.position),
                Text(repr(token.text)[1:-1], style=_colour(token.logprob)),
                f"{token.logprob:.4f}",
                f"{token.entropy:.4f}",
                str(token.rank),
                str(token.ties),
                f"{token.top1_logprob:.4f}",
            )
        parts.append(grid)
    return Group(*parts)


def _colour(logprob: float) -> Style:
    p = math.exp(logprob) ** 0.5  # the square root spreads the small probabilities
    red, green = int(200 * (1 - p)), int(150 * p)
    return Style(color="white", bgcolor=f"rgb({red},{green},40)")

