"""A made-up candidate that needs no weights: drives the whole pipeline in tests and trials of the plumbing.

`fake://ABILITY` gives the expert's token a logit advantage of ABILITY (any number); everything else is
noise that depends only on the source and the preceding tokens, so results are reproducible to the bit.
`?fail=load`, `?fail=nan` and `?fail=crash` make it misbehave; `?context=N` limits it, `?delay=S` slows each
sequence.
"""

import math
import os
import re
import time
import zlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np

from forecast.config.schema import EngineConfig
from forecast.engines.base import EngineFacts, SequenceStats
from forecast.engines.checks import check_finite
from forecast.engines.encode import Encoded
from forecast.errors import CandidateError
from forecast.inputs.models.resolve import Candidate

VOCAB_SIZE = 512


class FakeTokenizer:
    """Words with their leading space, ids by hash; the part of the usual interface that `encode` uses."""

    is_fast = True
    chat_template = None

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[Any]]:
        """Token ids, character offsets and special-token masks."""
        spans = [[m.span() for m in re.finditer(r"\s?\w+|\s?[^\w\s]|\s+", text)] for text in texts]
        return {
            "input_ids": [
                [zlib.crc32(text[a:b].encode()) % VOCAB_SIZE for a, b in one]
                for text, one in zip(texts, spans, strict=True)
            ],
            "offset_mapping": spans,
            "special_tokens_mask": [[0] * len(one) for one in spans],
        }


class FakeEngine:
    """See the module's text."""

    def __init__(self, candidate: Candidate, config: EngineConfig) -> None:
        """Read the options from the source.

        Raises:
            CandidateError: a number or an option that makes no sense, or asked to fail.
        """
        source = candidate.settings.source
        self._name = candidate.name
        try:
            self._ability, self._fail, self._delay, context = _options(source)
        except ValueError as error:
            raise CandidateError(
                f"candidate {self._name!r}: expected fake://NUMBER, perhaps with ?fail=load|nan|crash, "
                f"?context=N, ?delay=SECONDS; got {source!r} ({error})"
            ) from None
        if self._fail == "load":
            raise CandidateError(f"candidate {self._name!r}: asked to fail while loading")
        self._seed = zlib.crc32(source.encode())
        self.tokenizer = FakeTokenizer()
        self.facts = EngineFacts(
            vocab_size=VOCAB_SIZE,
            parameters=1_000,
            input_embedding=0,
            context_length=candidate.settings.context_length or context,
            device="none",
            versions={},
        )

    def score(self, sequences: Sequence[Encoded]) -> list[SequenceStats]:
        """See `Engine.score`."""
        if self._fail == "crash":
            os._exit(1)
        stats = [self._one(sequence) for sequence in sequences]
        check_finite(self._name, sequences, stats)
        return stats

    def _one(self, one: Encoded) -> SequenceStats:
        time.sleep(self._delay)
        targets = one.input_ids[one.first_scored :]
        logits = np.empty((len(targets), VOCAB_SIZE))
        for row, position in enumerate(range(one.first_scored, len(one.input_ids))):
            context = one.input_ids[max(0, position - 3) : position]
            logits[row] = np.random.default_rng([self._seed, *map(int, context)]).normal(size=VOCAB_SIZE)
        logits[np.arange(len(targets)), targets] += np.nan if self._fail == "nan" else self._ability
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        chosen = np.take_along_axis(logits, targets[:, None], axis=1)
        return SequenceStats(
            logprob=log_p[np.arange(len(targets)), targets].astype(np.float32),
            entropy=-(np.exp(log_p) * log_p).sum(axis=1).astype(np.float32),
            rank=(1 + (logits > chosen).sum(axis=1)).astype(np.int32),
            ties=((logits == chosen).sum(axis=1) - 1).astype(np.int32),
            top1_logprob=log_p.max(axis=1).astype(np.float32),
            top1_id=logits.argmax(axis=1).astype(np.int32),
        )

    def close(self) -> None:
        """Nothing to give back."""


def _options(source: str) -> tuple[float, str | None, float, int | None]:
    """Ability, way to fail, seconds per sequence, context length; ValueError where they make no sense."""
    url = urlparse(source)
    options = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
    ability, delay = float(url.netloc), float(options.pop("delay", 0))
    fail, context = options.pop("fail", None), options.pop("context", None)
    if url.path:
        raise ValueError("it has another form")
    if options:
        raise ValueError(f"unknown option {min(options)!r}")
    if fail not in (None, "load", "nan", "crash"):
        raise ValueError(f"unknown way to fail {fail!r}")
    if not (math.isfinite(ability) and 0 <= delay < math.inf):
        raise ValueError("numbers must be finite")
    return ability, fail, delay, None if context is None else int(context)
