"""How much rests on ties: where other entries have exactly the same logit, a token's rank is a choice.

The lake counts strictly greater logits, so a token of rank r with t ties may hold any of the places r..r+t.
Low precision makes ties; a candidate with many of them gets better ranks than a twin in float32.
"""

from dataclasses import dataclass

import polars as pl

KS = (1, 2, 3, 5)  # of the top-k accuracies


@dataclass(frozen=True)
class TieShare:
    """One candidate and task, pooled over the tokens."""

    candidate: str
    dtype: str
    task: str
    tokens: int
    tied_share: float  # of the tokens, whose rank is therefore uncertain
    topk_uncertain: dict[int, float]  # share of tokens that are or are not among the first k as one chooses
    topk_best: dict[int, float]  # accuracy as stored: the best place
    topk_worst: dict[int, float]  # accuracy by the worst place
    mean_rank_best: float
    mean_rank_worst: float


def tie_share(candidate: str, dtype: str, task: str, tokens: pl.DataFrame) -> TieShare:
    """From token rows (rank, ties), one or more."""
    rank, last = pl.col("rank").cast(pl.Int64), pl.col("rank").cast(pl.Int64) + pl.col("ties")
    row = tokens.select(
        (pl.col("ties") > 0).mean().alias("tied"),
        rank.mean().alias("best"),
        last.mean().alias("worst"),
        *((rank <= k).mean().alias(f"best{k}") for k in KS),
        *((last <= k).mean().alias(f"worst{k}") for k in KS),
        *(((rank <= k) & (last > k)).mean().alias(f"uncertain{k}") for k in KS),
    ).row(0, named=True)
    return TieShare(
        candidate=candidate,
        dtype=dtype,
        task=task,
        tokens=tokens.height,
        tied_share=row["tied"],
        topk_uncertain={k: row[f"uncertain{k}"] for k in KS},
        topk_best={k: row[f"best{k}"] for k in KS},
        topk_worst={k: row[f"worst{k}"] for k in KS},
        mean_rank_best=row["best"],
        mean_rank_worst=row["worst"],
    )
