"""From text to token ids with an exact boundary: one joint encoding, split by character offsets.

Encoding prompt and solution apart, or cutting at the length of the encoded prompt, loses or shifts tokens wherever the
tokenizer merges across the boundary. Here the joint string is encoded once; a token that starts before the boundary
belongs to the prompt, also where it ends behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forecast.config import Window
from forecast.errors import CandidateError
from forecast.inputs.trajectories import Trajectory


@dataclass(frozen=True)
class Encoded:
    """A trajectory as a candidate reads it; the scored tokens are the last `len(n_bytes)` of `input_ids`."""

    trajectory: Trajectory
    input_ids: NDArray[np.int64]  # [L]
    n_bytes: NDArray[np.int32]  # [S], UTF-8 bytes of solution text that each scored token stands for
    first_position: int  # index of the first scored token among all tokens of the solution, 0-based

    @property
    def first_scored(self) -> int:
        """Index in `input_ids` of the first scored token; at least 1."""
        return len(self.input_ids) - len(self.n_bytes)


@dataclass(frozen=True)
class Unscored:
    """A trajectory that this candidate cannot read, and why."""

    trajectory: Trajectory
    reason: str


def encode(
    trajectories: Sequence[Trajectory],
    tokenizer: Any,
    *,
    candidate: str,
    prompt_form: str,
    window: Window,
    context_length: int | None,
    truncate_prefix: bool,
) -> list[Encoded | Unscored]:
    """Encode trajectories for one candidate, in order.

    Args:
        tokenizer: a Hugging Face tokenizer with character offsets.
        context_length: the longest sequence the candidate can read, None for no limit.
        truncate_prefix: cut the prefix from the left where a sequence is too long; else report it as unscored.

    Raises:
        CandidateError: the tokenizer gives no offsets, or there is no chat template and `prompt_form` is `chat`.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise CandidateError(
            f"candidate {candidate!r}: its tokenizer ({type(tokenizer).__name__}) gives no character offsets, so the "
            "end of the prompt cannot be found; use a fast tokenizer (a tokenizer.json)"
        )
    prompts = [_prompt_text(t.prompt, tokenizer, prompt_form, candidate) for t in trajectories]
    if not prompts:
        return []
    encoding = tokenizer(
        [p + t.solution for p, t in zip(prompts, trajectories, strict=True)],
        add_special_tokens=prompt_form == "raw",  # a chat template writes its own
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        truncation=False,
        verbose=False,
    )
    result: list[Encoded | Unscored] = []
    for i, (trajectory, prompt) in enumerate(zip(trajectories, prompts, strict=True)):
        ids = np.asarray(encoding["input_ids"][i], dtype=np.int64)
        spans = np.asarray(encoding["offset_mapping"][i], dtype=np.int64).reshape(-1, 2)
        special = np.asarray(encoding["special_tokens_mask"][i], dtype=bool)
        one = _split(trajectory, len(prompt), prompt + trajectory.solution, ids, spans, special, window)
        if isinstance(one, Encoded) and context_length is not None and len(one.input_ids) > context_length:
            one = _fit(one, context_length, truncate_prefix, n_leading=_leading(special))
        result.append(one)
    return result


def _prompt_text(prompt: str, tokenizer: Any, prompt_form: str, candidate: str) -> str:
    if prompt_form == "raw":
        return prompt
    if not getattr(tokenizer, "chat_template", None):
        raise CandidateError(f"candidate {candidate!r} has no chat template; set prompt_form: raw for it")
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _leading(special: NDArray[np.bool_]) -> int:
    ordinary = np.flatnonzero(~special)
    return int(ordinary[0]) if len(ordinary) else 0


def _split(
    trajectory: Trajectory,
    boundary: int,
    text: str,
    ids: NDArray[np.int64],
    spans: NDArray[np.int64],
    special: NDArray[np.bool_],
    window: Window,
) -> Encoded | Unscored:
    # A tokenizer may close the sequence with special tokens (</s>, [SEP]); they stand for no text of the expert.
    ordinary = np.flatnonzero(~special)
    length = int(ordinary[-1]) + 1 if len(ordinary) else 0
    ids, spans, special = ids[:length], spans[:length], special[:length]
    in_solution = (spans[:, 0] >= boundary) & ~special & (np.arange(length) > 0)
    if not in_solution.any():
        return Unscored(trajectory, "no token starts inside the solution")
    first = int(np.argmax(in_solution))
    counts = byte_counts(text, boundary, spans[first:])
    n_scored = len(counts)
    if window.last_tokens is not None:
        n_scored = min(n_scored, window.last_tokens)
    elif window.last_bytes is not None:
        n_scored = int((np.cumsum(counts[::-1]) <= window.last_bytes).sum())
        if n_scored == 0:
            return Unscored(trajectory, f"its last token alone is longer than the window of {window.last_bytes} bytes")
    return Encoded(trajectory, ids, counts[len(counts) - n_scored :], first_position=len(counts) - n_scored)


def _fit(encoded: Encoded, context_length: int, truncate_prefix: bool, n_leading: int) -> Encoded | Unscored:
    length, n_scored = len(encoded.input_ids), len(encoded.n_bytes)
    if not truncate_prefix:
        return Unscored(
            encoded.trajectory,
            f"{length} tokens do not fit the context of {context_length}; "
            "shorten it, or set too_long: truncate_prefix to cut its prefix from the left",
        )
    if n_leading + 1 + n_scored > context_length:
        return Unscored(
            encoded.trajectory,
            f"its {n_scored} scored tokens alone do not fit the context of {context_length}; choose a smaller window",
        )
    head, tail = encoded.input_ids[:n_leading], encoded.input_ids[length - context_length + n_leading :]
    return Encoded(encoded.trajectory, np.concatenate([head, tail]), encoded.n_bytes, encoded.first_position)


def byte_counts(text: str, start: int, spans: NDArray[np.int64]) -> NDArray[np.int32]:
    """UTF-8 bytes that each token stands for; they add up to the bytes of `text[start:]`, whatever the tokenizer does.

    Characters between two tokens (dropped or trimmed spaces) count for the later one, what follows the last token for
    the last. Tokens that share one character (a byte-level tokenizer may cut an emoji in four) share its bytes.

    Args:
        start: the character at which the counting starts (the prompt's end).
        spans: [n, 2] character offsets of the tokens, in order, the first at or behind `start`.
    """
    n = len(spans)
    widths = np.fromiter((len(c.encode("utf-8", "surrogatepass")) for c in text[start:]), dtype=np.int64)
    upto = np.concatenate([[0], np.cumsum(widths)])  # bytes before each character of text[start:]
    ends = np.maximum.accumulate(np.maximum(spans[:, 1] - start, 0))
    ends[-1] = len(widths)
    bounds = upto[np.concatenate([[0], ends])]
    counts = np.diff(bounds)
    covers_text = spans[:, 1] > spans[:, 0]
    i = 0
    while i < n:  # a token and those behind it that end no later share the bytes up to that end
        j = i + 1
        while j < n and counts[j] == 0 and covers_text[j]:
            j += 1
        total = int(counts[i:j].sum())
        counts[i:j] = total // (j - i)
        counts[i : i + total % (j - i)] += 1
        i = j
    return counts.astype(np.int32)
