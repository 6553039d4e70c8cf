"""Matrix completion of a score table: logits, biases of rows and columns, two factors.

After BenchPress (arXiv 2606.24020). Scores are clipped away from 0 and 1, turned into logits and standardised
by column to Z, which is approximated by

    mu + a_i + c_j + u_i . v_j        u_i, v_j of 2 numbers

with a ridge on all but mu, by alternating least squares. Published: a ridge of 0.1 and the mean over ten
random starts. Ours: the ridge is chosen by hiding cells of the table, and there is one start, the singular
vectors of what the biases leave over, so that the result depends neither on a seed nor on the order of rows
and columns.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from forecast.analysis.baselines.validation import name_of, score_table, without_spread
from forecast.errors import FitError, InputError

Array = NDArray[np.float64]

RANK = 2
CLIP = 0.005  # half an item of a benchmark of a hundred; logit(0.005) = -5.3
PUBLISHED_RIDGE = 0.1
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
_INNER_FOLDS = 10  # fewer hide so much of a narrow table that too strong a ridge looks best
_MIN_CELLS = 30  # fewer say nothing about the ridge: the published one is taken
_MIN_MODELS = 3
# Largest change of a cell in a round, in standard deviations of its column's logits. On the published table
# (148 x 8) that stops within 1e-3 of the limit, a hundredth of the error on hidden cells, in 30-280 rounds.
_SETTLED = 1e-5
_MAX_ROUNDS = 3000


@dataclass(frozen=True)
class Completion:
    """A completed table [M, B]."""

    values: Array  # [M, B], fitted and predicted scores, 0..1; NaN where there are none
    row_reasons: dict[int, str]  # why a row has none
    column_reasons: dict[int, str]  # why a column has none
    ridge: float
    ridge_chosen: bool  # by hidden cells; else given or, on a small table, as published
    hidden_rmse: float | None  # of the hidden cells under that ridge, score units; null if it was not chosen


def complete(
    scores: Array,
    *,
    rank: int = RANK,
    ridge: float | None = None,
    models: Sequence[str] | None = None,
    benchmarks: Sequence[str] | None = None,
) -> Completion:
    """Predict every cell of scores [M, B] from the known ones; those are fitted, not copied.

    Args:
        ridge: strength of the ridge; None: chosen by hiding cells.
        models, benchmarks: names for messages.

    Raises:
        InputError: scores that are no fractions, names that do not fit, rank or ridge out of range.
        FitError: fewer than three models or two benchmarks to work with, or it did not settle.
    """
    table = score_table(scores, models, benchmarks)
    if rank < 1 or (ridge is not None and not ridge > 0):
        raise InputError(f"rank {rank}, ridge {ridge}: expected a rank of 1 or more and a ridge above 0")
    column_reasons = without_spread(table, benchmarks)
    columns = np.array([j for j in range(table.shape[1]) if j not in column_reasons], np.int64)
    known = np.isfinite(table[:, columns])
    rows = np.flatnonzero(known.any(axis=1))
    row_reasons = {
        int(i): f"{name_of(models, int(i), 'model')}: no score on a benchmark that tells models apart"
        for i in np.flatnonzero(~known.any(axis=1))
    }
    if len(rows) < _MIN_MODELS or len(columns) < 2:
        why = [*column_reasons.values(), *row_reasons.values()]
        raise FitError(
            f"{len(rows)} models and {len(columns)} benchmarks to complete a table from, at least "
            f"{_MIN_MODELS} and 2 are needed" + (f" ({'; '.join(why)})" if why else "")
        )
    part = table[np.ix_(rows, columns)]
    hidden_rmse = None
    chosen = ridge is None and np.isfinite(part).sum() >= _MIN_CELLS
    if chosen:
        ridge, hidden_rmse = _best_ridge(part, rank)
    strength = PUBLISHED_RIDGE if ridge is None else ridge
    values = np.full(table.shape, np.nan)
    values[np.ix_(rows, columns)] = _completed(part, rank, strength)
    return Completion(values, row_reasons, column_reasons, strength, chosen, hidden_rmse)


def _best_ridge(table: Array, rank: int) -> tuple[float, float | None]:
    """The ridge that predicts hidden cells best, and its error; the stronger one of equals.

    Best in standardised logits, in which the table is fitted: in scores the widest benchmarks would decide
    for all. A ridge under which a fold does not settle is out of the choice. On a table that is too bare to
    hide anything the published one is taken.
    """
    folds = _folds(table)
    sd = np.nanstd(_logits(table), axis=0)
    errors: dict[float, list[tuple[Array, Array]]] = {ridge: [] for ridge in RIDGES}
    for fold in range(_INNER_FOLDS):
        hidden = folds == fold
        seen = np.where(hidden, np.nan, table)
        # What is left of a row or column must still say something, or there is nothing to compare.
        usable = np.array([j not in without_spread(seen) for j in range(table.shape[1])])
        rows = np.isfinite(seen[:, usable]).any(axis=1)
        hidden, seen = hidden[rows][:, usable], seen[rows][:, usable]
        if not hidden.any() or len(seen) < _MIN_MODELS or seen.shape[1] < 2:
            continue
        truth = table[rows][:, usable]
        unit = np.where(sd > 0, sd, 1.0)[usable]
        for ridge in list(errors):
            try:
                found = _completed(seen, rank, ridge)
            except FitError:
                del errors[ridge]  # too weak for this table
                continue
            off = (_logits(found) - _logits(truth)) / unit
            errors[ridge].append((off[hidden], (found - truth)[hidden]))
    if not any(errors.values()):
        return PUBLISHED_RIDGE, None
    rms = {ridge: [_rms(part) for part in zip(*found, strict=True)] for ridge, found in errors.items()}
    least = min(standardised for standardised, _ in rms.values())
    best = max(ridge for ridge, (standardised, _) in rms.items() if standardised <= least * (1 + 1e-9))
    return best, rms[best][1]


def _rms(parts: Sequence[Array]) -> float:
    return float(np.sqrt(np.mean(np.concatenate(parts) ** 2)))


def _logits(scores: Array) -> Array:
    return np.asarray(logit(np.clip(scores, CLIP, 1 - CLIP)))


def _folds(table: Array) -> NDArray[np.int64]:
    """A fold for each known cell, -1 for others, from what stands in it, its row and its column.

    Not from its place: the order of models and benchmarks must not matter.
    """
    digests = [
        [hashlib.blake2b(np.sort(line[np.isfinite(line)]).tobytes()).digest() for line in lines]
        for lines in (table, table.T)
    ]
    folds = np.full(table.shape, -1)
    for i, j in np.argwhere(np.isfinite(table)):
        key = digests[0][i] + digests[1][j] + table[i, j].tobytes()
        folds[i, j] = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) % _INNER_FOLDS
    return folds


def _completed(table: Array, rank: int, ridge: float) -> Array:
    logits = _logits(table)
    mean, sd = np.nanmean(logits, axis=0), np.nanstd(logits, axis=0)
    # Clipping can make a column constant (scores of 0 and 0.001): its prediction is then that constant.
    z = (logits - mean) / np.where(sd > 0, sd, 1.0)
    return np.asarray(expit(mean + sd * factorised(z, rank, ridge)))


def factorised(z: Array, rank: int, ridge: float) -> Array:
    """The approximation `mu + a_i + c_j + u_i . v_j` of z [M, B] with NaN, for every cell.

    Minimises the squared error over known cells + ridge * (|a|^2 + |c|^2 + |U|^2 + |V|^2), block by block.
    Small noisy tables have several minima that are nearly as deep; the one that the start leads to is taken.

    Raises:
        FitError: it did not settle.
    """
    known = np.isfinite(z)
    mask = known.astype(float)
    data = np.where(known, z, 0.0)
    mu = data.sum() / mask.sum()
    no_factors = np.zeros((z.shape[1], 0))
    mu, left, right = _descend(data, mask, mu, no_factors, np.zeros(z.shape[1]), ridge)
    rest = np.where(known, data - mu - left[:, :1] - right[:, 0], 0.0)
    _, sizes, vectors = np.linalg.svd(rest, full_matrices=False)
    k = min(rank, len(sizes))
    start = vectors[:k].T * np.sqrt(sizes[:k])
    mu, left, right = _descend(data, mask, mu, start, right[:, 0], ridge)
    return _whole(mu, left, right)


def _descend(
    data: Array, mask: Array, mu: float, v: Array, c: Array, ridge: float
) -> tuple[float, Array, Array]:
    """Alternate until no cell moves: mu, rows' [M, 1 + k] and columns' [B, 1 + k] biases and factors."""
    right = np.column_stack([c, v])
    before: Array | None = None
    for _ in range(_MAX_ROUNDS):
        left = _ridge_rows(data - mu - right[:, 0], mask, right[:, 1:], ridge)
        right = _ridge_rows((data - mu - left[:, :1]).T, mask.T, left[:, 1:], ridge)
        found = _whole(mu, left, right)
        shift = (mask * (data - found)).sum() / mask.sum()
        mu, found = mu + shift, found + shift
        if before is not None and np.abs(found - before).max() < _SETTLED:
            return mu, left, right
        before = found
    raise FitError(
        f"matrix completion with ridge {ridge:g} did not settle in {_MAX_ROUNDS} rounds on a table with "
        f"{1 - mask.mean():.0%} of its cells missing; use a stronger ridge"
    )


def _whole(mu: float, left: Array, right: Array) -> Array:
    return np.asarray(mu + left[:, :1] + right[:, 0] + left[:, 1:] @ right[:, 1:].T)


def _ridge_rows(rest: Array, mask: Array, factors: Array, ridge: float) -> Array:
    """Ridge regressions of every row's known cells of `rest` [M, B] on (1, factors [B, k]): [M, 1 + k]."""
    x = np.column_stack([np.ones(len(factors)), factors])
    k = x.shape[1]
    pairs = (x[:, :, None] * x[:, None, :]).reshape(len(x), k * k)
    gram = (mask @ pairs).reshape(-1, k, k) + ridge * np.eye(k)
    return np.asarray(np.linalg.solve(gram, ((mask * rest) @ x)[:, :, None])[:, :, 0])
