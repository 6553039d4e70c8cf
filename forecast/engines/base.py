"""What every engine offers: a tokenizer, a few facts, and exact statistics of encoded trajectories."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from forecast.engines.encode import Encoded

# Part of every result's address: raise it when a change to an engine can alter a number.
ENGINE_VERSION = 3


@dataclass(frozen=True)
class SequenceStats:
    """Statistics of the S scored tokens of one sequence, each [S]; defined at `forecast.tokenstats.types`."""

    logprob: NDArray[np.float32]
    entropy: NDArray[np.float32]
    rank: NDArray[np.int32]
    ties: NDArray[np.int32]
    top1_logprob: NDArray[np.float32]
    top1_id: NDArray[np.int32]


@dataclass(frozen=True)
class EngineFacts:
    """What an engine found out about its candidate while loading it."""

    vocab_size: int  # real entries; log of it normalises entropy
    parameters: int  # after layers were dropped
    context_length: int | None
    device: str
    versions: dict[str, str]
    input_embedding: int | None = None  # of the parameters, those no token is multiplied with; None: unknown


class Engine(Protocol):
    """A loaded candidate."""

    tokenizer: Any
    facts: EngineFacts

    def score(self, sequences: Sequence[Encoded]) -> list[SequenceStats]:
        """Exact statistics of every scored token, in the order of `sequences`.

        Raises:
            CandidateError: the candidate's numbers are not finite; names instance and token.
        """
        ...

    def close(self) -> None:
        """Give memory back before the next candidate is loaded."""
        ...
