"""A unit of work from texts to token rows: encode, run the engine, lay the statistics out as a table."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from forecast.config.schema import Config, Window
from forecast.engines import Engine, SequenceStats
from forecast.engines.bounded_encode import encode_bounded
from forecast.engines.encode import Encoded, Unscored, encode
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
        "top1_id": pl.Int32(),  # the model's first choice; of equal ones the lowest id
    }
)


@dataclass(frozen=True)
class ScoredUnit:
    """The rows of a unit and what is worth knowing about how they came about."""

    rows: pl.DataFrame  # TOKEN_ROW
    unscored: tuple[Unscored, ...]
    tokens_read: int  # prompts included, also where they were shared
    seconds: float


def score_units(units: Sequence[Unit], engine: Engine, config: Config) -> list[ScoredUnit]:
    """Score units of one candidate at once; each one's rows in the order of its shard's trajectories.

    What the units' texts have in common is computed once, so `seconds` is each one's share by tokens.

    Raises:
        CandidateError: the candidate's tokenizer or numbers are at fault.
    """
    started = time.perf_counter()
    limit = engine.facts.context_length
    encoded = [encode_unit(unit, config, limit, engine.tokenizer) for unit in units]
    scored = [[one for one in each if isinstance(one, Encoded)] for each in encoded]
    stats = iter(engine.score([one for each in scored for one in each]))
    rows = []
    for unit, each in zip(units, scored, strict=True):
        own = zip(each, itertools.islice(stats, len(each)), strict=True)
        frames = [_token_rows(unit.candidate.candidate_id, one, one_stats) for one, one_stats in own]
        rows.append(pl.concat([TOKEN_ROW.to_frame(), *frames]))
    tokens = [sum(len(one.input_ids) for one in each) for each in scored]
    seconds = time.perf_counter() - started
    return [
        ScoredUnit(
            rows=rows[i],
            unscored=tuple(one for one in encoded[i] if isinstance(one, Unscored)),
            tokens_read=tokens[i],
            seconds=seconds * (tokens[i] / sum(tokens) if sum(tokens) else 1 / len(units)),
        )
        for i in range(len(units))
    ]


def encode_unit(
    unit: Unit, config: Config, context_length: int | None, tokenizer: Any = None
) -> list[Encoded | Unscored]:
    """The texts of a unit as its candidate reads them.

    Args:
        tokenizer: of a made-up candidate; others load their own.

    Raises:
        CandidateError: see `encode`.
    """
    choices = unit.shard.kind == "choices"
    options: dict[str, Any] = {
        # The options of a direct evaluation follow their prompt as plain text, as in OLMES.
        "prompt_form": "raw" if choices else unit.candidate.prompt_form,
        "window": Window() if choices else config.window,
        "context_length": context_length,
        "truncate_prefix": config.too_long == "truncate_prefix",
    }
    texts, candidate = unit.shard.trajectories, unit.candidate
    if candidate.files_digest is None:  # made up
        return encode(texts, tokenizer, candidate=candidate.name, **options)
    return encode_bounded(candidate, texts, **options)


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
            **vars(stats),
        },
        schema=TOKEN_ROW,
    )
