"""Context lengths of tables with unused rows, and windows under the names that families give them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tiny import VOCABULARY, encoded, load, save_model, shape, without

from forecast.engines.lengths import reach
from forecast.errors import CandidateError

ROBERTA = transformers.RobertaConfig(
    **{**without(shape(), "num_key_value_heads"), "pad_token_id": 1}, is_decoder=True
)
OPT = transformers.OPTConfig(**without(shape(ffn_dim=64, word_embed_proj_dim=32), "pad_token_id"))
GPTJ = transformers.GPTJConfig(
    n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=64, vocab_size=VOCABULARY
)
NEO = transformers.GPTNeoConfig(
    num_layers=2, attention_types=[[["global", "local"], 1]], hidden_size=32, num_heads=4, window_size=48
)


@pytest.mark.parametrize(("config", "expected"), [(OPT, 256), (GPTJ, 64)])
def test_context_is_what_the_table_holds(config: Any, expected: int, tmp_path: Path) -> None:
    save_model(tmp_path, config)
    assert load(tmp_path).facts.context_length == expected
    with pytest.raises(
        CandidateError, match=rf"context_length {expected + 1} is more than .* \({expected}\)"
    ):
        load(tmp_path, context_length=expected + 1)
    engine = load(tmp_path, context_length=expected)
    longest = max(encoded(engine), key=lambda one: len(one.input_ids))
    assert np.isfinite(engine.score([longest])[0].logprob).all()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (transformers.LlamaConfig(), None),
        (transformers.MistralConfig(sliding_window=64), 64),
        (transformers.Qwen2Config(use_sliding_window=False), None),
        (transformers.Qwen2Config(use_sliding_window=True, sliding_window=80, max_window_layers=1), 80),
        (transformers.AriaTextConfig(moe_topk=2), None),
        (transformers.Gemma3TextConfig(sliding_window=512), 512),
        (transformers.Llama4TextConfig(attention_chunk_size=96), 96),
        (NEO, 48),
        (transformers.RecurrentGemmaConfig(attention_window_size=32), 32),
        (transformers.DeepseekV32Config(index_topk=128), 128),
        (transformers.GPT2Config(), None),
        (transformers.MptConfig(), None),
    ],
)
def test_windows_under_any_name(config: Any, expected: int | None) -> None:
    assert reach(config) == expected


def test_a_table_that_is_shorter_than_said_is_one_sentence(tmp_path: Path) -> None:
    save_model(tmp_path, GPTJ)
    engine = load(tmp_path)
    long = max(encoded(load(tmp_path)), key=lambda one: len(one.input_ids))
    assert 5 < len(long.input_ids) <= 64
    engine._body.h[0].attn.embed_positions = engine._body.h[0].attn.embed_positions[:4]
    with pytest.raises(CandidateError, match=r"'tiny': it cannot read a text of \d+ tokens .*context_length"):
        engine.score([long])
