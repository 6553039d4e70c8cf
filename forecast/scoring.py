"""A unit of work from texts to token rows: encode, run the engine, lay the statistics out as a table."""

import time
from dataclasses import dataclass

import numpy as np
import polars as pl

from forecast.config import Config, Window
from forecast.encoding import Encoded, Unscored, encode
from forecast.engines import Engine, SequenceStats
from forecast.plan import Unit

TOKEN_ROW = pl.Schema(
    {
        "candidate_id": pl.String(),
        "task": pl.String(),
        "expert": pl.String(),
        "instance_id": pl.String(),
        "position": pl.Int32(),  # index among the tokens of the solution, 0-based
        "token_id": pl.Int32(),
        "n_bytes": pl.Int32(),  # UTF-8 bytes of solution text
        "logprob": pl.Float32(),  # nats
        "entropy": pl.Float32(),  # nats
        "rank": pl.Int32(),  # best is 1
        "ties": pl.Int32(),
        "top1_logprob": pl.Float32(),  # nats
    }
)


@dataclass(frozen=True)
class ScoredUnit:
    """The rows of a unit and what is worth knowing about how they came about."""

    rows: pl.DataFrame  # TOKEN_ROW
    unscored: tuple[Unscored, ...]
    tokens_read: int  # prompts included
    seconds: float


def score_unit(unit: Unit, engine: Engine, config: Config) -> ScoredUnit:
    """Score one unit with its loaded candidate; rows in the order of the shard's trajectories.

    Raises:
        CandidateError: the candidate's tokenizer or numbers are at fault.
    """
    started = time.perf_counter()
    encoded = encode(
        unit.shard.trajectories,
        engine.tokenizer,
        candidate=unit.candidate.name,
        # The options of a direct evaluation follow their prompt as plain text, as in OLMES.
        prompt_form=unit.candidate.prompt_form if unit.shard.kind == "trajectories" else "raw",
        window=config.window if unit.shard.kind == "trajectories" else Window(),
        context_length=engine.facts.context_length,
        truncate_prefix=config.too_long == "truncate_prefix",
    )
    scored = [one for one in encoded if isinstance(one, Encoded)]
    frames = [
        _token_rows(unit.candidate.candidate_id, one, stats)
        for one, stats in zip(scored, engine.score(scored), strict=True)
    ]
    return ScoredUnit(
        rows=pl.concat([TOKEN_ROW.to_frame(), *frames]),
        unscored=tuple(one for one in encoded if isinstance(one, Unscored)),
        tokens_read=sum(len(one.input_ids) for one in scored),
        seconds=time.perf_counter() - started,
    )


def _token_rows(candidate_id: str, one: Encoded, stats: SequenceStats) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "candidate_id": candidate_id,
            "task": one.trajectory.task,
            "expert": one.trajectory.expert,
            "instance_id": one.trajectory.instance_id,
            "position": one.first_position + np.arange(len(one.n_bytes)),
            "token_id": one.input_ids[one.first_scored :],
            "n_bytes": one.n_bytes,
            "logprob": stats.logprob,
            "entropy": stats.entropy,
            "rank": stats.rank,
            "ties": stats.ties,
            "top1_logprob": stats.top1_logprob,
        },
        schema=TOKEN_ROW,
    )
