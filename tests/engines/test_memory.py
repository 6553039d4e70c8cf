"""A device that is too small: batches shrink until they fit, numbers stay, what cannot fit is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import VOCABULARY, encoded, load, save_model

from forecast.engines.size_limits import out_of_memory
from forecast.errors import CandidateError


class Small:
    """A body that reads so many tokens at once and no more."""

    def __init__(self, body: Any, limit: int, error: type[BaseException]) -> None:
        self.body, self.limit, self.error, self.refused = body, limit, error, 0

    def __call__(self, input_ids: torch.Tensor, **others: Any) -> Any:
        if input_ids.numel() > self.limit:
            self.refused += 1
            raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return self.body(input_ids=input_ids, **others)

    def parameters(self) -> Any:
        return self.body.parameters()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    save_model(
        path,
        transformers.LlamaConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=VOCABULARY,
            max_position_embeddings=512,
        ),
    )
    return path


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_batches_shrink_until_they_fit(folder: Path, share: bool, error: type[BaseException]) -> None:
    expected = load(folder).score(texts := encoded(load(folder)))
    engine = load(folder, batch_tokens=4096, share_prefixes=share)
    longest = max(len(one.input_ids) for one in texts)
    engine._reader._body = small = Small(engine._reader._body, longest, error)
    found = engine.score(texts)
    assert small.refused, "else nothing was tried"
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.logprob, b.logprob, atol=1e-4)
        np.testing.assert_array_equal(a.rank, b.rank)
    refused = small.refused
    engine.score(texts)
    assert small.refused == refused, "what did not fit once is not tried again"


def test_one_sequence_that_does_not_fit_is_said(folder: Path) -> None:
    engine = load(folder)
    engine._reader._body = Small(engine._reader._body, 3, torch.OutOfMemoryError)
    with pytest.raises(CandidateError, match=r"does not fit the memory of cpu .*smaller dtype"):
        engine.score(encoded(engine))


def test_other_errors_are_not_taken_for_it(folder: Path) -> None:
    assert not out_of_memory(RuntimeError("shapes do not match"))
    engine = load(folder)

    def broken(**_: Any) -> None:
        raise RuntimeError("shapes do not match")

    engine._reader._body = broken
    with pytest.raises(RuntimeError, match="shapes"):
        engine.score(encoded(engine))
