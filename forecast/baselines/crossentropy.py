"""Plain cross-entropy of a text: nats per token, and bits per byte, which tokenizers cannot change.

Pooled over a task: all nats over all tokens or bytes, so a long text counts more than a short one. A corpus
is measured that way; the proxy `cross_entropy__uniform` gives every instance the same weight.
"""

import math

import polars as pl

from forecast.errors import InputError

_INSTANCE = ["candidate_id", "task", "expert", "instance_id"]
_TASK = ["candidate_id", "task"]


def cross_entropy_by_instance(tokens: pl.DataFrame) -> pl.DataFrame:
    """Cross-entropy of every instance from rows of the lake.

    Args:
        tokens: candidate_id, task, expert, instance_id, position, n_bytes, logprob (nats); any order.

    Returns:
        The four names, n_tokens, n_bytes (null where a row's is), nats, nats_per_token, bits_per_byte (null
        where the bytes are not known or 0); sorted by the names.

    Raises:
        InputError: a row without logprob, or one that is positive or not finite; names the first.
    """
    _check(tokens)
    # Sorted first, so that a sum has the same bits whatever the order of files and rows.
    ordered = tokens.sort(*_INSTANCE, "position").with_columns(
        pl.col("logprob").cast(pl.Float64), pl.col("n_bytes").cast(pl.Int64)
    )
    found = ordered.group_by(_INSTANCE, maintain_order=True).agg(
        n_tokens=pl.len().cast(pl.Int64), n_bytes=_known_sum("n_bytes"), nats=-pl.col("logprob").sum()
    )
    return _with_rates(found)


def cross_entropy_by_task(tokens: pl.DataFrame) -> pl.DataFrame:
    """Cross-entropy of every candidate and task, pooled over its instances.

    Returns:
        candidate_id, task, n_instances, n_tokens, n_bytes, nats, nats_per_token, bits_per_byte; nulls and
        errors as `cross_entropy_by_instance`.
    """
    found = (
        cross_entropy_by_instance(tokens)
        .group_by(_TASK, maintain_order=True)
        .agg(
            n_instances=pl.len().cast(pl.Int64),
            n_tokens=pl.col("n_tokens").sum(),
            n_bytes=_known_sum("n_bytes"),
            nats=pl.col("nats").sum(),
        )
    )
    return _with_rates(found)


def _known_sum(column: str) -> pl.Expr:
    """The sum, null where a part is: a sum of what is known would pass for the whole."""
    return pl.when(pl.col(column).is_not_null().all()).then(pl.col(column).sum())


def _with_rates(found: pl.DataFrame) -> pl.DataFrame:
    return found.with_columns(
        nats_per_token=pl.col("nats") / pl.col("n_tokens"),
        bits_per_byte=pl.when(pl.col("n_bytes") > 0).then(pl.col("nats") / (math.log(2) * pl.col("n_bytes"))),
    )


def _check(tokens: pl.DataFrame) -> None:
    logprob = pl.col("logprob")
    wrong = tokens.filter(logprob.is_null() | ~logprob.is_finite() | (logprob > 0))
    if wrong.height:
        row = wrong.sort(*_INSTANCE, "position").row(0, named=True)
        place = ", ".join(f"{name} {row[name]!r}" for name in (*_INSTANCE, "position"))
        raise InputError(
            f"{place}: logprob is {row['logprob']}, expected a finite number, 0 or below, in nats"
        )
    negative = tokens.filter(pl.col("n_bytes") < 0)
    if negative.height:
        row = negative.row(0, named=True)
        raise InputError(f"instance {row['instance_id']!r}: n_bytes is {row['n_bytes']}, expected 0 or more")
