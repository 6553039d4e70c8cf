"""One trajectory under one candidate: every scored token with its statistics."""

import codecs
import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import polars as pl
from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from forecast import storage
from forecast.engines.bounded_encode import texts_behind
from forecast.errors import CandidateError, ConfigError, NoDataError
from forecast.inputs.models.resolve import Candidate
from forecast.inputs.trajectories import Trajectory
from forecast.lake.files import read_receipts, read_rows
from forecast.plan import Plan, Unit
from forecast.safe_text import printable

_NAMES_SHOWN = 20
_SURPRISES_SHOWN = 10


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
    top1_id: int  # the model's first choice
    top1_text: str | None = None  # what it would have added to the text; None where no tokenizer tells


@dataclass(frozen=True)
class CandidateTrajectory:
    """A trajectory and the scored tokens of its solution."""

    candidate: str
    trajectory: Trajectory
    unscored_text: str  # the part of the solution before the window
    tokens: tuple[ShownToken, ...]
    no_top1_texts: str | None = None  # why texts of first choices are missing


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
    receipts, damaged = read_receipts(plan, [unit])
    if damaged:
        raise damaged[unit.address]
    table = read_rows([(plan.path(unit), receipts[unit.address].rows)])
    own = (pl.col("instance_id") == trajectory.instance_id) & (pl.col("expert") == trajectory.expert)
    rows = pl.DataFrame(table).filter(own).sort("position")
    if rows.is_empty():
        raise NoDataError(f"{name!r} could not read this trajectory; `forecast score` says why")
    return _with_first_choices(align_tokens(name, trajectory, rows), unit.candidate)


def _with_first_choices(shown: CandidateTrajectory, candidate: Candidate) -> CandidateTrajectory:
    """The same with the texts of first choices, as far as the candidate's tokenizer can be had."""
    pairs = dict.fromkeys((t.token_id, t.top1_id) for t in shown.tokens if t.token_id != t.top1_id)
    known: dict[tuple[int, int], str] = {}
    missing = None
    try:
        if candidate.files_digest is None:
            missing = "a made-up candidate has no tokenizer"
        elif pairs:
            known = dict(zip(pairs, texts_behind(candidate, list(pairs)), strict=True))
    except CandidateError as error:
        missing = str(error)
    tokens = tuple(
        replace(t, top1_text=t.text if t.top1_id == t.token_id else known.get((t.token_id, t.top1_id)))
        for t in shown.tokens
    )
    return replace(shown, tokens=tokens, no_top1_texts=missing if pairs else None)


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
        statistics = {key: row[key] for key in ShownToken.__dataclass_fields__ if "text" not in key}
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
    """The solution in colour (green: expected, red: surprising), then its least expected tokens, or all."""
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
    grid = _all_tokens(tokens) if table else _surprises(tokens)
    note = [Text(f"texts of first choices are missing: {shown.no_top1_texts}")] if shown.no_top1_texts else []
    return Group(head, legend, text, *([grid] if grid.row_count else []), *note)


def _all_tokens(tokens: Sequence[ShownToken]) -> Table:
    grid = Table("position", "token", "rank", "first choice", "logprob", "top-1 logprob", "entropy", "ties")
    for token in tokens:
        nats = (f"{n:.4f}" for n in (token.logprob, token.top1_logprob, token.entropy))
        grid.add_row(str(token.position), *_texts(token), *nats, str(token.ties))
    return grid


def _surprises(tokens: Sequence[ShownToken]) -> Table:
    """Tokens that were not the first choice, the least probable first."""
    others = sorted((t for t in tokens if t.top1_id != t.token_id), key=lambda t: t.logprob)
    grid = Table("position", "token", "rank", "first choice", "probability", "of first choice")
    grid.title = f"least expected tokens ({min(_SURPRISES_SHOWN, len(others))} of {len(others)})"
    for token in others[:_SURPRISES_SHOWN]:
        own, first = (f"{math.exp(n):.2g}" for n in (token.logprob, token.top1_logprob))
        grid.add_row(str(token.position), *_texts(token), own, first)
    return grid


def _texts(token: ShownToken) -> tuple[Text, str, Text]:
    """The expert's token, its rank, and the model's first choice."""
    own = Text(repr(token.text) if token.text else "…", style=_colour(token.logprob))
    if token.top1_id == token.token_id:
        first = Text("the same", style="dim")
    else:
        text = repr(token.top1_text) if token.top1_text else f"id {token.top1_id}"
        first = Text(text, style=_colour(token.top1_logprob))
    return own, str(token.rank), first


def _colour(logprob: float) -> Style:
    p = math.exp(logprob) ** 0.5  # the square root spreads the small probabilities
    red, green = int(200 * (1 - p)), int(150 * p)
    return Style(color="white", bgcolor=f"rgb({red},{green},40)")
