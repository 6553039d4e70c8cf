"""Min-K%: a hint that a candidate has seen a text before.

The mean log-probability of the k % least likely tokens of a text (Shi et al., arXiv 2310.16789): a text that
was trained on holds few great surprises. By itself it mostly says how good a candidate is, so a task is
compared with the other tasks: a candidate that knows one task's texts stands higher there, among all
candidates, than it does elsewhere. It is a hint and no proof, and with few candidates a weak one.

Min-K%++ (arXiv 2404.02936) divides by the spread of log-probabilities over the vocabulary at each token. Its
mean is minus the entropy, which the lake has; its variance is none of the five statistics, so it cannot be
computed from them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from forecast.analysis.stats.figures import number
from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES


@dataclass(frozen=True)
class MinK:
    """One candidate and task."""

    candidate: str
    task: str
    instances: int
    value: float  # nats, mean over the instances
    z: float | None  # among the candidates of the task
    others: float | None  # mean z in the other tasks
    excess: float | None  # z - others: how much better known this task is to it
    reason: str | None  # why there is no excess


@dataclass(frozen=True)
class MinKResult:
    """All candidates and tasks, and why there is no Min-K%++."""

    percent: float  # of the tokens of each solution
    values: tuple[MinK, ...]
    min_k_plus_plus: None = None
    min_k_plus_plus_reason: str = (
        "it needs the variance of the log-probabilities over the vocabulary, "
        "which the lake's five statistics do not hold"
    )


def min_k(tokens: pl.DataFrame, percent: float) -> tuple[float, int]:
    """Mean over the instances of the mean of their lowest `percent` % of log-probabilities; and how many.

    At least one token counts; of n tokens it is the n * percent / 100 lowest, rounded up.

    Args:
        tokens: expert, instance_id, logprob (nats); one row or more.
    """
    count = (pl.len() * (percent / 100) - 1e-9).ceil().clip(1).cast(pl.UInt32)
    found = (
        tokens.select("expert", "instance_id", pl.col("logprob").cast(pl.Float64))
        .sort("expert", "instance_id", "logprob")
        .group_by("expert", "instance_id", maintain_order=True)
        .agg(pl.col("logprob").head(count).mean())
    )
    return math.fsum(found["logprob"]) / found.height, found.height


def compare_min_k(
    values: Mapping[tuple[str, str], tuple[float, int]], names: Sequence[str]
) -> tuple[MinK, ...]:
    """Every candidate and task among the others.

    Args:
        values: (name, task) -> Min-K% and number of instances; every name has every task.
        names: of the candidates, in the order of the answer.
    """
    tasks = sorted({task for _, task in values})
    table = np.array([[values[name, task][0] for task in tasks] for name in names])  # [candidates, tasks]
    spread = table.std(axis=0)
    known = (spread > 1e-9) & (len(names) >= MIN_CANDIDATES)
    z = np.where(known, (table - table.mean(axis=0)) / np.where(known, spread, 1), np.nan)
    found = []
    for i, name in enumerate(names):
        for j, task in enumerate(tasks):
            others = np.delete(z[i], j)
            others = others[np.isfinite(others)]
            mean = others.mean() if len(others) else math.nan
            reason = None
            if len(names) < MIN_CANDIDATES:
                reason = f"{len(names)} candidates; a comparison takes {MIN_CANDIDATES}"
            elif not known[j]:
                reason = "all candidates have the same"
            elif not len(others):
                reason = "there is no other task to compare with"
            value, instances = values[name, task]
            figures = number(z[i, j]), number(mean), number(z[i, j] - mean)
            found.append(MinK(name, task, instances, value, *figures, reason))
    return tuple(found)
