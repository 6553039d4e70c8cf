"""What fast reading changes is noticed, at any length; rounding is not taken for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import VOCABULARY, encoded, llama, load, save_model, shape
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from forecast.engines.encode import Encoded
from forecast.errors import CandidateError
from forecast.inputs.trajectories import Trajectory


def gpt_neo(window: int) -> transformers.GPTNeoConfig:
    return transformers.GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=1024,
        max_position_embeddings=256,
        window_size=window,
        attention_types=[[["global", "local"], 1]],
    )


CAPPED = shape(head_dim=8, query_pre_attn_scalar=8, sliding_window=64)
MODELS: dict[str, Callable[[], Any]] = {
    "gemma2 (attention soft-cap)": lambda: transformers.Gemma2Config(**CAPPED, attn_logit_softcapping=2.0),
    "gemma2, the published soft-cap": lambda: transformers.Gemma2Config(**CAPPED),
    "vaultgemma (attention soft-cap)": lambda: transformers.VaultGemmaConfig(**CAPPED),
    "gemma3 (two windows)": lambda: transformers.Gemma3TextConfig(**CAPPED),
    "gpt-oss (sinks)": lambda: transformers.GptOssConfig(
        **shape(head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=48)
    ),
    "gpt-neo (local attention by place in the row)": lambda: gpt_neo(64),
    "gpt-neo, a window as long as the table": lambda: gpt_neo(256),
    "cohere2 (window)": lambda: transformers.Cohere2Config(**shape(sliding_window=48)),
    "mpt (alibi)": lambda: transformers.MptConfig(
        d_model=32, n_layers=2, n_heads=4, vocab_size=VOCABULARY, max_seq_len=256
    ),
    "jamba (state space and attention)": lambda: transformers.JambaConfig(
        **shape(
            num_hidden_layers=4,
            attn_layer_period=2,
            attn_layer_offset=1,
            mamba_dt_rank=4,
            use_mamba_kernels=False,
        )
    ),
}
SWITCHED = {name for name in MODELS if "attention soft-cap" in name}


def texts(engine: Any) -> list[Encoded]:
    """Three experts' solutions to each of two prompts, behind one header; some reach behind every window."""
    header = "Question: Janet has 16 eggs. How many are left?\nAnswer: 13 eggs.\n\n"
    prompts = [header + "Question: A robe takes 2 bolts of fiber?\nAnswer:", header + "Say it:", "Say it:"]
    solutions = (" It takes 2 - 1 bolts of blue fiber", " 16 - 3", " half that much white fiber, 3 in all")
    own = [
        Trajectory("sums", f"q{i}", f"expert {j}", p, s)
        for i, p in enumerate(prompts)
        for j, s in enumerate(solutions)
    ]
    return encoded(engine, own)


def eager_logprobs(folder: Path, one: Encoded, dtype: torch.dtype = torch.float32) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager"
    )
    ids = torch.from_numpy(one.input_ids)
    with torch.inference_mode():
        logits = model.eval()(input_ids=ids[None], use_cache=False).logits[0, :, :VOCABULARY].double()
    found = torch.log_softmax(logits, -1)[:-1].gather(1, ids[1:, None])[:, 0]
    return found[one.first_scored - 1 :].numpy()


@pytest.mark.parametrize("share_prefixes", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_those_of_eager_attention(name: str, share_prefixes: bool, tmp_path: Path) -> None:
    save_model(tmp_path, MODELS[name]())
    engine = load(tmp_path, share_prefixes=share_prefixes)
    sequences = texts(engine)
    assert max(len(one.input_ids) for one in sequences) > 64
    for one, stats in zip(sequences, engine.score(sequences), strict=True):
        np.testing.assert_allclose(stats.logprob, eager_logprobs(tmp_path, one), rtol=0, atol=1e-4)


def implementation(engine: Any) -> str:
    return str(engine._model.config._attn_implementation)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rounding_is_no_reason_to_switch(dtype: str, tmp_path: Path) -> None:
    save_model(tmp_path, llama(num_hidden_layers=8))
    engine = load(tmp_path, dtype=dtype)
    engine.score(texts(engine))
    assert implementation(engine) == "sdpa"
    assert engine._reader.stop_sharing()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cap_is_missed_in_low_precision_too(dtype: str, tmp_path: Path) -> None:
    save_model(tmp_path, MODELS["gemma2, the published soft-cap"]())
    assert implementation(load(tmp_path, dtype=dtype)) == "eager"


def blind_behind(length: int, monkeypatch: pytest.MonkeyPatch, spoiled: float = 1.5) -> None:
    """Have sdpa give other values to all tokens from a place on."""
    whole = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def partly(*args: Any, **kwargs: Any) -> Any:
        output, weights = whole(*args, **kwargs)
        output[:, length:] *= spoiled
        return output, weights

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", partly)


@pytest.mark.parametrize("spoiled", [1.5, float("nan")])
def test_what_shows_in_long_texts_only(
    spoiled: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind_behind(80, monkeypatch, spoiled)
    save_model(tmp_path, llama())
    engine = load(tmp_path, share_prefixes=False)
    sequences = texts(engine)
    short = [one for one in sequences if len(one.input_ids) < 80]
    assert short and implementation(engine) == "sdpa"
    engine.score(short)
    assert implementation(engine) == "sdpa"
    for one, stats in zip(sequences, engine.score(sequences), strict=True):
        np.testing.assert_allclose(stats.logprob, eager_logprobs(tmp_path, one), rtol=0, atol=1e-4)
    assert implementation(engine) == "eager"


def test_a_comparison_that_does_not_fit_memory_takes_less_of_the_text(tmp_path: Path) -> None:
    save_model(tmp_path, llama())
    engine = load(tmp_path)
    whole, lengths = engine._plain._read, []

    def limited(ids: np.ndarray) -> np.ndarray:
        lengths.append(len(ids))
        if len(ids) > 70:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(ids)

    engine._plain._read, engine._plain._longest = limited, 200
    sequences = texts(engine)
    assert len(engine.score(sequences)) == len(sequences)
    assert max(lengths) > 70 >= lengths[-1] > 20


def test_eager_attention_that_overflows_is_no_reference(tmp_path: Path) -> None:
    save_model(tmp_path, llama())
    engine = load(tmp_path)
    engine._plain._read = lambda ids: np.full(len(ids) - 1, np.nan, np.float32)
    assert all(np.isfinite(one.logprob).all() for one in engine.score(texts(engine)))
    assert implementation(engine) == "sdpa"


def test_numbers_that_change_with_what_follows(tmp_path: Path) -> None:
    save_model(tmp_path, llama())
    engine = load(tmp_path)
    engine._body.register_forward_hook(lambda _, __, out: (out[0] * (1 + 1e-3 * out[0].shape[1]),))
    with pytest.raises(CandidateError, match="'tiny': LlamaForCausalLM gives a token other probabilities"):
        engine.score(texts(engine))


def test_numbers_that_differ_each_time(tmp_path: Path) -> None:
    save_model(tmp_path, llama())
    engine = load(tmp_path)
    calls = iter(range(1000))
    engine._by_length = True  # leaves the check of what follows out, which would notice it first
    engine._body.register_forward_hook(lambda _, __, out: (out[0] * (1 + 0.01 * (next(calls) % 7 == 3)),))
    engine._plain._read = lambda ids: np.zeros(len(ids) - 1, np.float32)
    with pytest.raises(CandidateError, match="'tiny': its log-probabilities of one text differ"):
        engine.score(texts(engine))
