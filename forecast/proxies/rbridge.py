"""rBridge: a candidate's loss on each token, weighted by how sure a frontier model was of the same letters.

After arXiv 2509.21013. Per candidate token i, `NLL_i * w_i`; w_i is the mean over the token's letters of the
frontier model's probability of the frontier token that covers the letter, min-max normalised over the trace;
the score is the plain mean over tokens, not divided by the sum of the weights. Low is better.

The two tokenizers cut the text differently, so both are laid over its letters (Unicode code points). Tokens
are given by bytes, since a byte-level tokenizer may cut a letter in pieces; a letter belongs to every token
that holds a byte of it. Ours, where nothing is published: a letter that several frontier tokens share takes
their mean probability; a trace whose weights are all equal keeps the weight 1, which makes its score the
plain cross-entropy.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forecast.errors import InputError, shortened
from forecast.report.records import frame_with

Array = NDArray[np.float64]
Spans = NDArray[np.int64]  # [n, 2], start and end of each token

_ROUNDING = 1e-6  # rounding of a probability printed or stored in few digits


@dataclass(frozen=True)
class FrontierTokens:
    """How the frontier model cut a solution and what it thought of each piece."""

    spans: Spans  # [m, 2], bytes of the solution
    probabilities: Array  # [m], of each token given everything before it, 0..1


@dataclass(frozen=True)
class Weights:
    """Weights of a candidate's tokens."""

    raw: Array  # [n], mean frontier probability over the token's letters
    normalised: Array  # [n], 0..1; all 1 where `constant`
    constant: bool  # all raw weights are equal, so that they tell no token from another


def read_frontier_tokens(value: Any, solution: str, where: str) -> FrontierTokens:
    """The optional trajectory column `frontier_tokens`, checked against the solution.

    A list in the order of the text of records `{"text": str, "prob": float}`. Instead of `text` there may be
    `bytes` (binary or a list of 0..255, for tokens that are no whole letters), instead of `prob` a `logprob`
    in nats.

    Raises:
        InputError: not of that form, a probability outside 0..1, or tokens that do not spell the solution;
            names `where` and the token.
    """
    if not isinstance(value, list) or not value:
        raise InputError(
            f"{where}: frontier_tokens holds {shortened(value)}, expected a list of "
            '{"text": ..., "prob": ...} in the order of the solution'
        )
    expected, at = solution.encode(), 0
    spans, probabilities = [], []
    for number, token in enumerate(value, start=1):
        place = f"{where}: frontier token {number}"
        if not isinstance(token, Mapping):
            raise InputError(f'{place} is {shortened(token)}, expected {{"text": ..., "prob": ...}}')
        piece = _piece(token, place)
        if expected[at : at + len(piece)] != piece:
            raise InputError(
                f"{place} is {shortened(_readable(piece))}, but the solution goes on with "
                f"{shortened(_readable(expected[at : at + max(len(piece), 20)]))}; the tokens must spell "
                "the solution, without special tokens; one that is no whole letter takes bytes"
            )
        probabilities.append(_probability(token, place))
        spans.append((at, at + len(piece)))
        at += len(piece)
    if at < len(expected):
        raise InputError(
            f"{where}: the {len(value)} frontier tokens end before {shortened(_readable(expected[at:]))}; "
            "they must spell the whole solution"
        )
    return FrontierTokens(np.array(spans, np.int64), np.array(probabilities))


def spans_from_counts(n_bytes: NDArray[Any], total: int) -> Spans:
    """Byte spans [n, 2] of scored tokens, which are the last of a solution of `total` bytes.

    Args:
        n_bytes: [n], as in the lake, in the order of positions.

    Raises:
        InputError: negative counts, or more bytes than the solution has.
    """
    counts = np.asarray(n_bytes, np.int64)
    first = total - int(counts.sum())
    if (counts < 0).any() or first < 0:
        raise InputError(
            f"{len(counts)} tokens of {counts.sum()} bytes for a solution of {total} bytes; are they of "
            "another version of the text?"
        )
    ends = first + np.cumsum(counts)
    return np.column_stack([ends - counts, ends])


def token_weights(text: str, candidate: Spans, frontier: FrontierTokens) -> Weights:
    """Weights of a candidate's tokens on a solution.

    A token without bytes (the rest of a letter whose bytes went to the tokens before it) takes that letter.

    Args:
        candidate: [n, 2] bytes of the tokens; the normalisation is over these, so over the scored window.

    Raises:
        InputError: no tokens, spans outside the text, or letters that no frontier token covers.
    """
    letters = _letters(text, candidate, "candidate")
    if not len(letters):
        raise InputError("no candidate tokens to weight")
    over = _letters(text, frontier.spans, "frontier")
    steps = np.zeros((2, len(text) + 1))  # sums of probabilities and tokens per letter, as differences
    holds = frontier.spans[:, 1] > frontier.spans[:, 0]  # a token of no bytes covers nothing
    for row, amount in ((0, frontier.probabilities), (1, np.ones(len(over)))):
        np.add.at(steps[row], over[holds, 0], amount[holds])
        np.add.at(steps[row], over[holds, 1], -amount[holds])
    sums, counts = np.cumsum(steps, axis=1)[:, :-1]
    counts = np.round(counts)
    covered = counts > 0
    if bare := [i for start, end in letters for i in range(start, end) if not covered[i]]:
        raise InputError(
            f"no frontier token covers letter {bare[0] + 1} of {shortened(text)} ({text[bare[0]]!r}), which "
            "the candidate reads"
        )
    by_letter = np.where(covered, sums / np.where(covered, counts, 1), 0.0)
    raw = np.array([by_letter[start:end].mean() for start, end in letters])
    low, high = raw.min(), raw.max()
    # Differences of cumulated sums are good to about 1e-13: below that there is no difference.
    if high - low < 1e-9:
        return Weights(raw, np.ones(len(raw)), constant=True)
    return Weights(raw, (raw - low) / (high - low), constant=False)


def rbridge_score(nll: Array, weights: Weights) -> float:
    """Mean of `nll * w` over a trace's tokens, nats.

    Raises:
        InputError: losses that are negative, not finite or not one for each weight.
    """
    losses = np.asarray(nll, float)
    if losses.shape != weights.normalised.shape:
        raise InputError(f"{len(losses)} losses for {len(weights.normalised)} weights")
    if not (np.isfinite(losses) & (losses >= 0)).all():
        raise InputError("a token's loss is negative or not finite")
    return float(np.mean(losses * weights.normalised))


def rbridge_by_instance(
    tokens: pl.DataFrame, solutions: Mapping[tuple[str, str], tuple[str, FrontierTokens | None]]
) -> pl.DataFrame:
    """rBridge of each instance that one candidate read of one task.

    Args:
        tokens: rows of the lake: expert, instance_id, position, n_bytes, logprob (nats).
        solutions: by (expert, instance_id), the text and its frontier tokens, None where it has none.

    Returns:
        expert, instance_id, n_tokens, rbridge (nats, null where there is none), constant, reason (why null);
        sorted by expert and instance.

    Raises:
        InputError: an instance that `solutions` lacks, or tokens that do not fit its text.
    """
    rows: list[tuple[Any, ...]] = []
    ordered = tokens.sort("expert", "instance_id", "position")
    for (expert, instance), own in ordered.group_by(["expert", "instance_id"], maintain_order=True):
        key = (str(expert), str(instance))
        try:
            if key not in solutions:
                raise InputError("scored, but no such trajectory was given")
            text, frontier = solutions[key]
            if frontier is None:
                rows.append((*key, own.height, None, None, "the trajectory has no frontier_tokens"))
                continue
            spans = spans_from_counts(own["n_bytes"].to_numpy(), len(text.encode()))
            weights = token_weights(text, spans, frontier)
            score = rbridge_score(-own["logprob"].to_numpy().astype(float), weights)
        except InputError as error:
            raise InputError(f"expert {key[0]!r}, instance {key[1]!r}: {error}") from None
        rows.append((*key, own.height, score, weights.constant, None))
    return frame_with(rows, "expert:s instance_id:s n_tokens:i rbridge:f constant:b reason:s")


def _letters(text: str, spans: Spans, whose: str) -> Spans:
    """Letters [n, 2] that byte spans touch; a span of no bytes takes the letter before it."""
    owner = np.repeat(np.arange(len(text)), [len(letter.encode()) for letter in text])  # [bytes]
    spans = np.asarray(spans, np.int64).reshape(-1, 2)
    if not len(spans):
        return spans
    if spans.min() < 0 or spans.max() > len(owner) or (spans[:, 0] > spans[:, 1]).any() or not len(owner):
        raise InputError(f"{whose} tokens stand outside the {len(owner)} bytes of {shortened(text)}")
    empty = spans[:, 0] == spans[:, 1]
    first = np.where(empty, np.maximum(spans[:, 0] - 1, 0), spans[:, 0])
    last = np.where(empty, first, spans[:, 1] - 1)
    return np.column_stack([owner[first], owner[last] + 1])


def _piece(token: Mapping[str, Any], place: str) -> bytes:
    text, raw = token.get("text"), token.get("bytes")
    if isinstance(raw, bytes):  # of a Parquet file
        return raw
    if isinstance(raw, list) and all(isinstance(b, int) and 0 <= b <= 255 for b in raw):
        return bytes(raw)
    if isinstance(text, str) and raw is None:
        return text.encode(errors="surrogatepass")
    given = f"text is {shortened(text)} and bytes {shortened(raw)}"
    raise InputError(f"{place}: {given}; expected a text, or bytes as a list of 0..255")


def _probability(token: Mapping[str, Any], place: str) -> float:
    given = [name for name in ("prob", "logprob") if token.get(name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "no probability"
        raise InputError(f"{place}: has {found}; give prob or logprob (nats)")
    value = token[given[0]]
    low, high, allowed = (0.0, 1.0, "0..1") if given == ["prob"] else (-math.inf, 0.0, "0 or below, in nats")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low - _ROUNDING <= value <= high + _ROUNDING:
        raise InputError(f"{place}: {given[0]} is {shortened(value)}, expected {allowed}")
    clipped = min(max(float(value), low), high)
    return clipped if given == ["prob"] else math.exp(clipped)


def _readable(piece: bytes) -> str:
    return piece.decode(errors="backslashreplace")
