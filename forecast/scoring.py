"""A unit of work from texts to token rows: encode, run the engine, lay the statistics out as a table."""

import time
from dataclasses import dataclass

import numpy as np
import polars as pl

from forecast.config import Config, Window
from forecast.encoding import Encoded, Unscored, encode
from forecast.engines import Engine
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
    """Score one unit with its loaded candidate.

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
    stats = engine.score(scored)
    counts = [len(one.n_bytes) for one in scored]

    def spread(values: list[str]) -> pl.Series:
        """Each sequence's value once per scored token."""
        return pl.Series(np.repeat(np.array(values, dtype=object), counts), dtype=pl.String)

    def joined(arrays: list[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
        return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.empty(0, dtype)

    rows = pl.DataFrame(
        {
            "candidate_id": pl.Series([unit.candidate.candidate_id], dtype=pl.String).new_from_index(0, sum(counts)),
            "task": spread([one.trajectory.task for one in scored]),
            "expert": spread([one.trajectory.expert for one in scored]),
            "instance_id": spread([one.trajectory.instance_id for one in scored]),
            "position": joined([one.first_position + np.arange(len(one.n_bytes)) for one in scored], np.int32),
            "token_id": joined([one.input_ids[one.first_scored :] for one in scored], np.int32),
            "n_bytes": joined([one.n_bytes for one in scored], np.int32),
            "logprob": joined([one.logprob for one in stats], np.float32),
            "entropy": joined([one.entropy for one in stats], np.float32),
            "rank": joined([one.rank for one in stats], np.int32),
            "ties": joined([one.ties for one in stats], np.int32),
            "top1_logprob": joined([one.top1_logprob for one in stats], np.float32),
        },
        schema=TOKEN_ROW,
    )
    return ScoredUnit(
        rows=rows,
        unscored=tuple(one for one in encoded if isinstance(one, Unscored)),
        tokens_read=sum(len(one.input_ids) for one in scored),
        seconds=time.perf_counter() - started,
    )
