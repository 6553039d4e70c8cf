"""What every engine refuses: foreign token ids, numbers that are not finite, impossible vocabularies."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from forecast.engines.base import SequenceStats
from forecast.engines.encode import Encoded
from forecast.errors import CandidateError
from forecast.inputs.models.resolve import Candidate


def real_vocab_size(candidate: Candidate, tokenizer: Any, rows: int) -> int:
    """Real entries of the output matrix: rows behind the tokenizer's last id are padding for the hardware.

    Raises:
        CandidateError: the configured size is more than the matrix has.
    """
    size = candidate.settings.vocab_size
    if size is None:
        return min(rows, int(max(tokenizer.get_vocab().values())) + 1)
    if size > rows:
        raise CandidateError(
            f"candidate {candidate.name!r}: vocab_size {size} is more than the output matrix has ({rows})"
        )
    return size


def check_ids(
    name: str, tokenizer: Any, sequences: Sequence[Encoded], input_rows: int, vocab_size: int
) -> None:
    """Refuse token ids that the model does not have.

    A foreign tokenizer would end in an IndexError, or on a GPU take the whole process with it.

    Args:
        name: the candidate's.
        input_rows: entries of the input embedding.
        vocab_size: entries that can be scored.
    """
    for one in sequences:
        limits = np.full(len(one.input_ids), input_rows)
        limits[one.first_scored :] = min(input_rows, vocab_size)
        bad = np.flatnonzero(one.input_ids >= limits)
        if len(bad):
            token = int(one.input_ids[bad[0]])
            raise CandidateError(
                f"candidate {name!r}: token {token} ({tokenizer.convert_ids_to_tokens(token)!r}) at position "
                f"{bad[0]} of {_place(one)}, is outside the vocabulary of {limits[bad[0]]}; the tokenizer "
                "does not belong to this model, or vocab_size is too low"
            )


def check_finite(name: str, sequences: Sequence[Encoded], stats: Sequence[SequenceStats]) -> None:
    """Refuse statistics that are not numbers; names the candidate and the first such token."""
    for one, own in zip(sequences, stats, strict=True):
        bad = np.flatnonzero(~(np.isfinite(own.logprob) & np.isfinite(own.entropy)))
        if len(bad):
            raise CandidateError(
                f"candidate {name!r}: NaN or infinite logits at solution token {one.first_position + bad[0]} "
                f"of {_place(one)}; the weights may be damaged, or the dtype too narrow for this model"
            )


def _place(one: Encoded) -> str:
    return f"instance {one.trajectory.instance_id!r}, task {one.trajectory.task!r}"
