"""The same tokens under two setups: how far apart each statistic is, and which ranks differ for a reason.

Differences are `against - base`, computed in double precision from the lake's float32 and int32. Typical size
is given three ways, since the distribution has a long tail: median, mean and 99th percentile (linear between
neighbours) of the absolute difference.

Low precision makes logits tie, and `rank` counts strictly greater ones only, so among tied entries it can but
name the best place. A token that stands at rank r with t ties may hold any of the places r..r+t. Two ranks
that differ are *explained by ties* where these two intervals meet, and *real* where they do not: there some
entry has truly moved past the expert's token.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from forecast.errors import CandidateError
from forecast.inputs.trajectories import Trajectory
from forecast.lake.trajectory_view import align_tokens

UNITS = {"logprob": "nats", "entropy": "nats", "rank": "places", "ties": "entries", "top1_logprob": "nats"}
INSTANCE = ["task", "expert", "instance_id"]
_TOKEN = [*INSTANCE, "position"]
_OTHER = "_against"

Instance = tuple[str, str, str]  # task, expert, instance_id


@dataclass(frozen=True)
class Place:
    """One token of one candidate under both setups."""

    candidate: str
    task: str
    expert: str
    instance_id: str
    position: int
    token_id: int
    token: str  # the text that it stands for; empty where a character ends with a later token
    base: float
    against: float


@dataclass(frozen=True)
class TokenDifference:
    """How far apart one statistic is over a set of tokens, in its unit."""

    statistic: str
    unit: str
    largest: float
    median: float
    mean: float
    p99: float
    signed_mean: float  # against - base; the others are of the absolute difference
    differing: int  # tokens at which it is not exactly equal
    place: Place | None  # of the largest, of equals the first; None where nothing differs


@dataclass(frozen=True)
class RankDisagreements:
    """Tokens whose rank differs; `first_choice`: those of rank 1 in one setup only."""

    differing: int
    by_ties: int
    real: int
    first_choice: int


@dataclass(frozen=True)
class TokenParity:
    """All statistics over the tokens of one candidate, or of all."""

    candidate: str | None  # None: all of them
    tokens: int
    instances: int
    differences: tuple[TokenDifference, ...]  # in the order of UNITS
    ranks: RankDisagreements
    tied_base: int  # tokens with other entries at exactly the same logit
    tied_against: int

    def of(self, statistic: str) -> TokenDifference:
        """The difference of one statistic."""
        return next(d for d in self.differences if d.statistic == statistic)


def pair_tokens(
    candidate: str, base: pa.Table, against: pa.Table, left_out: Iterable[Instance]
) -> pl.DataFrame:
    """Token rows of both setups side by side, `logprob` and `logprob_against`; sorted by instance, position.

    Args:
        base, against: rows of the lakes of one candidate.
        left_out: instances that could not be read in one of the setups.

    Raises:
        CandidateError: the setups did not read the same tokens; names the first token that differs.
    """
    absent = pl.DataFrame(list(left_out), schema=dict.fromkeys(INSTANCE, pl.String), orient="row")
    kept = [*_TOKEN, "token_id", "n_bytes", "top1_id", *UNITS]
    first, second = (
        pl.DataFrame(table).select(kept).join(absent, on=INSTANCE, how="anti") for table in (base, against)
    )
    pairs = first.join(second, on=_TOKEN, how="full", coalesce=True, suffix=_OTHER).sort(_TOKEN)
    wrong = pairs.filter(
        pl.any_horizontal(pl.col(c).ne_missing(pl.col(c + _OTHER)) for c in ("token_id", "n_bytes"))
    )
    if not wrong.is_empty():
        row = wrong.row(0, named=True)
        raise CandidateError(
            f"candidate {candidate!r}, task {row['task']!r}, instance {row['instance_id']!r} by "
            f"{row['expert']!r}: the setups read different tokens, at solution token {row['position']} "
            f"{_token_text(row, '')} in the base and {_token_text(row, _OTHER)} in the other "
            f"({wrong.height} of {pairs.height} tokens); both must use the same tokenizer and prompt form"
        )
    return pairs


def token_parity(
    candidate: str, pairs: pl.DataFrame, trajectories: Mapping[Instance, Trajectory]
) -> TokenParity:
    """Compare one candidate's tokens under both setups, one token or more.

    Args:
        pairs: see `pair_tokens`.
        trajectories: to look up what a token stands for.
    """

    def place(row: int, statistic: str) -> Place:
        found = pairs.row(row, named=True)
        key = (found["task"], found["expert"], found["instance_id"])
        own = pairs.filter(pl.all_horizontal(pl.col(c) == v for c, v in zip(INSTANCE, key, strict=True)))
        shown = align_tokens(candidate, trajectories[key], own).tokens
        text = next(token.text for token in shown if token.position == found["position"])
        values = float(found[statistic]), float(found[statistic + _OTHER])
        return Place(candidate, *key, found["position"], found["token_id"], text, *values)

    differences = []
    for statistic in UNITS:
        size = np.abs(_delta(pairs, statistic))
        where = place(int(size.argmax()), statistic) if size.any() else None
        differences.append(_difference(statistic, pairs, where))
    return _parity(candidate, pairs, pairs.n_unique(INSTANCE), differences)


def pooled_parity(parts: Sequence[TokenParity], pairs: Sequence[pl.DataFrame]) -> TokenParity:
    """All candidates together: every token counts once for each of them.

    Args:
        parts: the candidates' own comparisons.
        pairs: `statistics_of` their tokens, in the same order.
    """
    together = pl.concat(pairs)
    differences = []
    for statistic in UNITS:
        widest = max(parts, key=lambda part: part.of(statistic).largest)  # of equals the first
        differences.append(_difference(statistic, together, widest.of(statistic).place))
    return _parity(None, together, sum(part.instances for part in parts), differences)


def statistics_of(pairs: pl.DataFrame) -> pl.DataFrame:
    """What `pooled_parity` needs of a candidate's tokens: 40 bytes each."""
    return pairs.select([name + suffix for name in UNITS for suffix in ("", _OTHER)])


def _parity(
    candidate: str | None, pairs: pl.DataFrame, instances: int, differences: Sequence[TokenDifference]
) -> TokenParity:
    return TokenParity(
        candidate=candidate,
        tokens=pairs.height,
        instances=instances,
        differences=tuple(differences),
        ranks=_rank_disagreements(pairs),
        tied_base=int((pairs["ties"] > 0).sum()),
        tied_against=int((pairs["ties" + _OTHER] > 0).sum()),
    )


def _difference(statistic: str, pairs: pl.DataFrame, place: Place | None) -> TokenDifference:
    delta = _delta(pairs, statistic)
    size = np.abs(delta)
    median, p99 = np.percentile(size, [50, 99])
    return TokenDifference(
        statistic=statistic,
        unit=UNITS[statistic],
        largest=float(size.max()),
        median=float(median),
        mean=float(size.mean()),
        p99=float(p99),
        signed_mean=float(delta.mean()),
        differing=int(np.count_nonzero(delta)),
        place=place,
    )


def _rank_disagreements(pairs: pl.DataFrame) -> RankDisagreements:
    a, b = (pairs["rank" + s].to_numpy().astype(np.int64) for s in ("", _OTHER))
    a_last, b_last = a + pairs["ties"].to_numpy(), b + pairs["ties" + _OTHER].to_numpy()
    differ = a != b
    meet = np.maximum(a, b) <= np.minimum(a_last, b_last)
    return RankDisagreements(
        differing=int(differ.sum()),
        by_ties=int((differ & meet).sum()),
        real=int((differ & ~meet).sum()),
        first_choice=int(((a == 1) != (b == 1)).sum()),
    )


def _delta(pairs: pl.DataFrame, statistic: str) -> NDArray[np.float64]:
    base, against = (pairs[statistic + suffix].to_numpy().astype(np.float64) for suffix in ("", _OTHER))
    return against - base


def _token_text(row: Mapping[str, object], suffix: str) -> str:
    token_id = row["token_id" + suffix]
    return "no token" if token_id is None else f"id {token_id} ({row['n_bytes' + suffix]} bytes)"
