"""One trajectory under one candidate: every scored token with its statistics."""

import codecs
import difflib
import math
from collections.abc import Collection
from dataclasses import dataclass

import polars as pl
from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from forecast import storage
from forecast.errors import ConfigError, NoDataError
from forecast.inputs.trajectories import Trajectory
from forecast.lake.files import read_receipts, read_rows
from forecast.plan import Plan, Unit
from forecast.safe_text import printable

_NAMES_SHOWN = 20


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
class CandidateTrajectory:
    """A trajectory and the scored tokens of its solution."""

    candidate: str
    trajectory: Trajectory
    unscored_text: str  # the part of the solution before the window
    tokens: tuple[ShownToken, ...]


def read_trajectory(
    plan: Plan, candidate: str | None, task: str | None, instance: str | None, expert: str | None
) -> CandidateTrajectory:
    """Find a trajectory in the lake; what is not given is the first there is.

    Raises:
        ConfigError: no such candidate, task, instance or expert in the configuration; names those there are.
        NoDataError: it is in the configuration but not scored yet.
    """
    unit, trajectory = _find(plan, candidate, task, instance, expert)
    name = candidate or unit.candidate.name  # two names of one model share the unit of the first
    if not storage.exists(plan.path(unit)):
        raise NoDataError(f"{name!r} has not read this trajectory yet; run `forecast score` first")
    table = read_rows([(plan.path(unit), read_receipts(plan, [unit])[unit.address].rows)])
    own = (pl.col("instance_id") == trajectory.instance_id) & (pl.col("expert") == trajectory.expert)
    rows = pl.DataFrame(table).filter(own).sort("position")
    if rows.is_empty():
        raise NoDataError(f"{name!r} could not read this trajectory; `forecast score` says why")
    return align_tokens(name, trajectory, rows)


def align_tokens(candidate: str, trajectory: Trajectory, rows: pl.DataFrame) -> CandidateTrajectory:
    """Lay the solution's text over its token rows, given in order.

    Scored tokens are the end of the solution and their bytes add up, so no tokenizer is needed. A character
    that several tokens share is the text of the last of them; all texts joined are the solution.
    """
    data = trajectory.solution.encode()
    at = len(data) - int(rows["n_bytes"].sum())
    decode = codecs.getincrementaldecoder("utf-8")().decode
    before = decode(data[:at])
    tokens = []
    for row in rows.iter_rows(named=True):
        end = at + row["n_bytes"]
        statistics = {key: row[key] for key in ShownToken.__dataclass_fields__ if key != "text"}
        tokens.append(ShownToken(text=decode(data[at:end]), **statistics))
        at = end
    return CandidateTrajectory(candidate, trajectory, before, tuple(tokens))


def _find(
    plan: Plan, candidate: str | None, task: str | None, instance: str | None, expert: str | None
) -> tuple[Unit, Trajectory]:
    found = [(unit, t) for unit in plan.select("trajectories") for t in unit.shard.trajectories]
    if candidate is not None:
        ids = {c.name: c.candidate_id for c in plan.candidates}
        _check_known("candidate", candidate, ids)
        found = [(unit, t) for unit, t in found if unit.candidate.candidate_id == ids[candidate]]
    if not found:
        raise NoDataError("there is nothing to show: no task or no candidate could be loaded")
    for what, field, wanted in (
        ("task", "task", task),
        ("expert", "expert", expert),
        ("instance", "instance_id", instance),
    ):
        if wanted is not None:
            _check_known(what, wanted, dict.fromkeys(getattr(t, field) for _, t in found))
            found = [(unit, t) for unit, t in found if getattr(t, field) == wanted]
    return found[0]


def _check_known(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        some = list(known)[:_NAMES_SHOWN]
        more = f" and {len(known) - len(some)} more" if len(known) > len(some) else ""
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no {what} {name!r}; {hint}there are: {', '.join(some)}{more}")


def trajectory_view(shown: CandidateTrajectory, table: bool) -> RenderableType:
    """The solution in colour (green: expected, red: surprising), then its tokens as a table."""
    t, tokens = shown.trajectory, shown.tokens
    mean = -sum(token.logprob for token in tokens) / len(tokens)
    first = sum(token.rank == 1 for token in tokens) / len(tokens)
    head = Text(
        f"{shown.candidate} reads {t.task}/{t.instance_id} by {t.expert}: {len(tokens)} tokens, "
        f"cross-entropy {mean:.3f} nats, first choice {first:.0%}",
        style="bold",
    )
    legend = Text("probability of the expert's token: ")
    for probability in (0.9, 0.5, 0.1, 0.01):
        legend.append(f" {probability:g} ", style=_colour(math.log(probability)))
    text = Text.assemble((printable(t.prompt), "dim"), (printable(shown.unscored_text), "dim italic"))
    for token in tokens:
        text.append(printable(token.text), style=_colour(token.logprob))
    grid = Table("position", "token", "logprob", "entropy", "rank", "ties", "top-1 logprob")
    for token in tokens:
        own = Text(repr(token.text)[1:-1] or "…", style=_colour(token.logprob))
        logprob, entropy, top1 = (f"{n:.4f}" for n in (token.logprob, token.entropy, token.top1_logprob))
        grid.add_row(str(token.position), own, logprob, entropy, str(token.rank), str(token.ties), top1)
    return Group(head, legend, text, *([grid] if table else []))


def _colour(logprob: float) -> Style:
    p = math.exp(logprob) ** 0.5  # the square root spreads the small probabilities
    red, green = int(200 * (1 - p)), int(150 * p)
    return Style(color="white", bgcolor=f"rgb({red},{green},40)")
