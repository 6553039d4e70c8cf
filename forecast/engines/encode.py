"""From text to token ids with an exact boundary: one joint encoding, split by character offsets.

Encoding prompt and solution apart, or cutting at the length of the encoded prompt, loses or shifts tokens
wherever the tokenizer merges across the boundary. Here the joint string is encoded once; a token that starts
before the boundary belongs to the prompt, also where it ends behind it, and so does one that stands for the
rest of a character in which such a token ended.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import processors

from forecast.config.schema import Window
from forecast.errors import CandidateError, described
from forecast.inputs.trajectories import Trajectory

_BYTE_FALLBACK = re.compile("<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Encoded:
    """A trajectory as a candidate reads it; the scored tokens are the last `len(n_bytes)` of `input_ids`."""

    trajectory: Trajectory
    input_ids: NDArray[np.int64]  # [L]
    n_bytes: NDArray[np.int32]  # [S], UTF-8 bytes of the solution that each scored token stands for
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
        truncate_prefix: cut too long a sequence's prefix from the left; else it is reported as unscored.

    Raises:
        CandidateError: the tokenizer gives no offsets, or has no chat template that `prompt_form` could use.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise CandidateError(
            f"candidate {candidate!r}: its tokenizer ({type(tokenizer).__name__}) gives no character "
            "offsets, so the end of the prompt cannot be found; use a fast tokenizer (a tokenizer.json)"
        )
    _report_whole_offsets(tokenizer)
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
    special_ids = getattr(tokenizer, "all_special_ids", [])
    result: list[Encoded | Unscored] = []
    for i, (trajectory, prompt) in enumerate(zip(trajectories, prompts, strict=True)):
        ids = np.asarray(encoding["input_ids"][i], dtype=np.int64)
        spans = np.asarray(encoding["offset_mapping"][i], dtype=np.int64).reshape(-1, 2)
        added = np.asarray(encoding["special_tokens_mask"][i], dtype=bool)
        one = _split(trajectory, prompt, ids, spans, added, window, tokenizer)
        if isinstance(one, Encoded) and context_length is not None and len(one.input_ids) > context_length:
            n_leading = min(_run_length(np.isin(ids, special_ids)), one.first_scored)
            one = _fit(one, context_length, truncate_prefix, n_leading)
        result.append(one)
    return result


def text_behind(tokenizer: Any, before: int, token: int) -> str:
    """What a token adds to the text of another before it: at a beginning some tokenizers drop its space."""
    kept = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    alone, both = (tokenizer.decode(ids, **kept) for ids in ([before], [before, token]))
    # Within a character the text before changes, too.
    return str(both[len(alone) :] if both.startswith(alone) else tokenizer.decode([token], **kept))


def _report_whole_offsets(tokenizer: Any) -> None:
    """Make offsets include a token's spaces, which some byte-level tokenizers trim; its ids stay the same."""
    last_step: Any = getattr(getattr(tokenizer, "backend_tokenizer", None), "post_processor", None)
    steps: Any = last_step if isinstance(last_step, processors.Sequence) else [last_step]
    for step in steps:
        if isinstance(step, processors.ByteLevel | processors.RobertaProcessing):
            step.trim_offsets = False


def _prompt_text(prompt: str, tokenizer: Any, prompt_form: str, candidate: str) -> str:
    if prompt_form == "raw":
        return prompt
    if not getattr(tokenizer, "chat_template", None):
        raise CandidateError(f"candidate {candidate!r} has no chat template; set prompt_form: raw for it")
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            # Some templates write today's date; a run must give the same numbers tomorrow.
            strftime_now=lambda _format: "1 January 2025",
        )
    except Exception as error:  # a template is a program
        raise CandidateError(
            f"candidate {candidate!r}: its chat template fails on a single user message "
            f"({described(error)}); set prompt_form: raw for it"
        ) from error
    return str(text)


def _run_length(mask: NDArray[np.bool_]) -> int:
    """How many elements at the start are true."""
    return int(np.argmin(np.append(mask, False)))


def _split(
    trajectory: Trajectory,
    prompt: str,
    ids: NDArray[np.int64],  # [L]
    spans: NDArray[np.int64],  # [L, 2], characters
    added: NDArray[np.bool_],  # [L], special tokens that the tokenizer put around the text
    window: Window,
    tokenizer: Any,
) -> Encoded | Unscored:
    # What closes the sequence (</s>, [SEP]) stands for no text of the expert.
    length = len(ids) - _run_length(added[::-1])
    # A prompt that begins with the text of the start token (or of several) has it: no second one is added.
    begin = _run_length(added)
    in_prompt = int((spans[begin:length, 1] <= len(prompt)).sum())
    sizes = range(min(begin, in_prompt), 0, -1)
    twice = next((n for n in sizes if np.array_equal(ids[begin - n : begin], ids[begin : begin + n])), 0)
    keep = np.delete(np.arange(length), np.arange(begin - twice, begin))
    ids, spans, added = ids[keep], spans[keep], added[keep]
    ends = np.maximum.accumulate(np.concatenate([[0], spans[:, 1]]))[:-1]  # of all tokens before each
    begins = np.maximum(ends, len(prompt))  # where a token must start to be the first of the solution
    in_solution = (spans[:, 0] >= begins) & ~added
    in_solution[:1] = False  # nothing precedes the first token: no model gives it a probability
    if not in_solution.any():
        reason = "no token starts inside the solution"
        if prompt[-1:].isspace():
            reason += "; the prompt ends in white space: begin the solution with it instead"
        return Unscored(trajectory, reason)
    first = int(np.argmax(in_solution))
    counts = byte_counts(prompt + trajectory.solution, int(begins[first]), spans[first:])
    counts = _within_characters(counts, spans[first:], ids[first:], tokenizer)
    n_scored = len(counts)
    if window.last_tokens is not None:
        n_scored = min(n_scored, window.last_tokens)
    elif window.last_bytes is not None:
        n_scored = int((np.cumsum(counts[::-1]) <= window.last_bytes).sum())
        if n_scored == 0:
            reason = f"its last token alone is longer than the window of {window.last_bytes} bytes"
            return Unscored(trajectory, reason)
    return Encoded(trajectory, ids, counts[len(counts) - n_scored :], first_position=len(counts) - n_scored)


def _fit(encoded: Encoded, context_length: int, truncate_prefix: bool, n_leading: int) -> Encoded | Unscored:
    length, n_scored = len(encoded.input_ids), len(encoded.n_bytes)
    misfit = f"do not fit the context of {context_length}"
    if not truncate_prefix:
        fix = "shorten it, or set too_long: truncate_prefix to cut its prefix from the left"
        return Unscored(encoded.trajectory, f"{length} tokens {misfit}; {fix}")
    if max(n_leading, 1) + n_scored > context_length:  # the first scored token needs one before it
        reason = f"its {n_scored} scored tokens alone {misfit}; choose a smaller window"
        return Unscored(encoded.trajectory, reason)
    head, tail = encoded.input_ids[:n_leading], encoded.input_ids[length - context_length + n_leading :]
    return Encoded(encoded.trajectory, np.concatenate([head, tail]), encoded.n_bytes, encoded.first_position)


def byte_counts(text: str, start: int, spans: NDArray[np.int64]) -> NDArray[np.int32]:
    """UTF-8 bytes that each token stands for; they add up to the bytes of `text[start:]` for any tokenizer.

    Characters between two tokens (spaces that a tokenizer drops) count for the later one, what follows the
    last token for the last. Tokens that share one character (a byte-level tokenizer may cut an emoji in four)
    share its bytes.

    Args:
        start: the character at which the counting starts.
        spans: [n, 2] character offsets of the tokens, n >= 1, in order, none starting before `start`.
    """
    code_points = np.frombuffer(text[start:].encode("utf-32-le"), dtype=np.uint32)
    widths = 1 + (code_points >= 0x80) + (code_points >= 0x800) + (code_points >= 0x10000)
    upto = np.concatenate([[0], np.cumsum(widths)])  # bytes before each character of text[start:]
    ends = np.maximum.accumulate(np.maximum(spans[:, 1] - start, 0))
    ends[-1] = len(code_points)
    counts = np.diff(upto[ends], prepend=0)
    # A token that covers text in which the one before it ended already shares the bytes with it.
    shares = (counts == 0) & (spans[:, 1] > spans[:, 0])
    heads = np.flatnonzero(~shares)
    sizes = np.diff(heads, append=len(counts))
    totals = np.add.reduceat(counts, heads)
    place = np.arange(len(counts)) - np.repeat(heads, sizes)  # within the group
    counts = np.repeat(totals // sizes, sizes) + (place < np.repeat(totals % sizes, sizes))
    return counts.astype(np.int32)


def _within_characters(
    counts: NDArray[np.int32],  # [n], from `byte_counts`
    spans: NDArray[np.int64],  # [n, 2]
    ids: NDArray[np.int64],  # [n]
    tokenizer: Any,
) -> NDArray[np.int32]:
    """The counts with tokens that share a character given their own bytes, where their names tell them.

    Offsets end at whole characters, so of tokens that cut one they only say how many bytes all have together.
    """
    # A run of tokens ends where the next one starts behind everything before it.
    clean = spans[1:, 0] >= np.maximum.accumulate(spans[:, 1])[:-1]
    runs = np.split(np.arange(len(ids)), np.flatnonzero(clean) + 1) if not clean.all() else []
    exact = counts.copy()
    for run in runs:
        if len(run) > 1:
            names = tokenizer.convert_ids_to_tokens(ids[run].tolist())
            # By name: one for `<0x..>`, else one a character, as byte-level BPE writes it.
            own = [1 if _BYTE_FALLBACK.fullmatch(name) else len(name) for name in names]
            # Unequal where a normaliser has changed the text, or names are written otherwise.
            if sum(own) == counts[run].sum():
                exact[run] = own
    return exact
