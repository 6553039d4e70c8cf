"""GGUF files give exactly the numbers of the folder they were made from, or are refused by the key's name."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from gguf_files import File, converted
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    NemotronConfig,
    Phi3Config,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    StableLmConfig,
    Starcoder2Config,
)

from forecast.engines.gguf_config import configuration_of
from forecast.engines.gguf_tokenizer import tokenizer_of
from forecast.engines.hf_loading import load_candidate
from forecast.errors import CandidateError
from forecast.inputs.models.gguf import GgufHeader, read_header

Change = Callable[[File], object]
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.5, 2.0, 3.0],
    "long_factor": [2.0, 4.0, 8.0, 16.0],
    "original_max_position_embeddings": 128,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def shape(*left_out: str, **others: Any) -> dict[str, Any]:
    return tiny.without(tiny.shape(**others), *left_out)


def llama3_divisors(file: File) -> None:
    """As llama.cpp's converter works them out of the folder's `rope_scaling`."""
    waves = [2 * math.pi * 1e4 ** (i / 8) for i in range(0, 8, 2)]
    smooth = [min(max((64 / wave - 1) / 3, 0.0), 1.0) for wave in waves]
    file.tensors["rope_freqs.weight"] = np.array([1 / ((1 - s) / 8 + s) for s in smooth])


def yarn(file: File) -> None:
    file.set(rope__scaling__type="yarn", rope__scaling__factor=4.0, rope__scaling__original_context_length=64)


def linear(file: File) -> None:
    file.set(rope__scaling__type="linear", rope__scaling__factor=4.0)


def long(file: File) -> None:
    attention = math.sqrt(1 + math.log(256 / 128) / math.log(128))
    file.set(rope__scaling__original_context_length=128, rope__scaling__attn_factor=attention)
    file.tensors["rope_factors_short.weight"] = np.array(LONG["short_factor"])
    file.tensors["rope_factors_long.weight"] = np.array(LONG["long_factor"])


def experts(file: File) -> None:
    file.set(expert_count=4, expert_used_count=2, expert_feed_forward_length=16)


def shared_expert(file: File) -> None:
    experts(file)
    file.set(expert_shared_feed_forward_length=24)


def nothing(file: File) -> None:
    """The file as it is."""


GEMMA2 = shape(head_dim=256, sliding_window=16, query_pre_attn_scalar=256)
EQUAL: dict[str, tuple[str, Any, Change]] = {
    "llama": ("llama", tiny.llama(), nothing),
    "llama, untied": ("llama", tiny.llama(tie_word_embeddings=False), nothing),
    "llama, biases": ("llama", tiny.llama(mlp_bias=True), nothing),
    "llama, wide heads": ("llama", tiny.llama(head_dim=16), nothing),
    "llama, another base": (
        "llama",
        tiny.llama(rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
        nothing,
    ),
    "llama, no base": ("llama", tiny.llama(), lambda file: file.set(rope__freq_base=None)),
    "llama, llama3": ("llama", tiny.llama(rope_parameters=LLAMA3), llama3_divisors),
    "llama, linear": ("llama", tiny.llama(rope_parameters=LINEAR), linear),
    "llama, linear without a type": (
        "llama",
        tiny.llama(rope_parameters=LINEAR),
        lambda file: file.set(rope__scaling__factor=4.0),
    ),
    "llama, linear as of old": (
        "llama",
        tiny.llama(rope_parameters=LINEAR),
        lambda file: file.set(rope__scale_linear=4.0),
    ),
    "llama, yarn": ("llama", tiny.llama(rope_parameters=YARN), yarn),
    "llama, yarn with other limits": (
        "llama",
        tiny.llama(rope_parameters={**YARN, "beta_fast": 8.0, "beta_slow": 2.0}),
        lambda file: (
            yarn(file),
            file.set(rope__scaling__yarn_beta_fast=8.0, rope__scaling__yarn_beta_slow=2.0),
        ),
    ),
    "llama, scaling that is none": (
        "llama",
        tiny.llama(),
        lambda file: file.set(rope__scaling__type="none", rope__scaling__factor=4.0),
    ),
    "llama, keys at neutral values": (
        "llama",
        tiny.llama(),
        lambda file: file.set(
            expert_count=0, attention__causal=True, logit_scale=1.0, attention__scale=8**-0.5
        ),
    ),
    "llama, few keys": (
        "llama",
        tiny.llama(),
        lambda file: file.set(
            attention__key_length=None,
            attention__value_length=None,
            rope__dimension_count=None,
            vocab_size=None,
        ),
    ),
    "llama, counts of each block": (
        "llama",
        tiny.llama(),
        lambda file: file.set(feed_forward_length=[64, 64]),
    ),
    "llama, a name that is an architecture": (
        "llama",
        tiny.llama(max_position_embeddings=8192),
        lambda file: file.put({"general.name": "mistral"}),
    ),
    "llama, keys of tools": (
        "llama",
        tiny.llama(),
        lambda file: file.put({"mradermacher.quantized_by": "me"}),
    ),
    "qwen2, few keys": (
        "qwen2",
        Qwen2Config(**tiny.shape(num_key_value_heads=4)),
        lambda file: file.set(attention__head_count_kv=None),
    ),
    "qwen2": ("qwen2", Qwen2Config(**tiny.shape()), nothing),
    "qwen2, yarn": ("qwen2", Qwen2Config(**tiny.shape(rope_parameters=YARN)), yarn),
    "qwen3": ("qwen3", Qwen3Config(**tiny.shape(head_dim=16)), nothing),
    "qwen2moe": (
        "qwen2moe",
        Qwen2MoeConfig(**tiny.shape(**EXPERTS, shared_expert_intermediate_size=24)),
        shared_expert,
    ),
    "qwen3moe": (
        "qwen3moe",
        Qwen3MoeConfig(**tiny.shape(**EXPERTS, head_dim=8, norm_topk_prob=True)),
        experts,
    ),
    "gemma2": (
        "gemma2",
        Gemma2Config(**GEMMA2),
        lambda file: file.set(attention__sliding_window=16),
    ),
    "gemma2, other caps": (
        "gemma2",
        Gemma2Config(**GEMMA2, final_logit_softcapping=3.0, attn_logit_softcapping=1.0),
        lambda file: file.set(
            attention__sliding_window=16,
            final_logit_softcapping=3.0,
            attn_logit_softcapping=1.0,
        ),
    ),
    "gemma2, a scale of the queries": (
        "gemma2",
        Gemma2Config(**{**GEMMA2, "head_dim": 8, "query_pre_attn_scalar": 64}),
        lambda file: file.set(attention__sliding_window=16, attention__scale=0.125),
    ),
    "gemma3": (
        "gemma3",
        Gemma3TextConfig(**{**GEMMA2, "num_hidden_layers": 7}),
        lambda file: file.set(attention__sliding_window=16),
    ),
    "gemma3, linear": (
        "gemma3",
        Gemma3TextConfig(
            **{**GEMMA2, "num_hidden_layers": 7},
            rope_parameters={
                "full_attention": {**LINEAR, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
            },
        ),
        lambda file: (linear(file), file.set(attention__sliding_window=16, rope__freq_base_swa=2e4)),
    ),
    "phi3": ("phi3", Phi3Config(**tiny.shape()), nothing),
    "phi3, window": (
        "phi3",
        Phi3Config(**tiny.shape(sliding_window=16)),
        lambda file: file.set(attention__sliding_window=16),
    ),
    "phi3, longrope": (
        "phi3",
        Phi3Config(**tiny.shape(rope_parameters=LONG, original_max_position_embeddings=128)),
        long,
    ),
    "starcoder2": ("starcoder2", Starcoder2Config(**tiny.shape()), nothing),
    "starcoder2, another base": (
        "starcoder2",
        Starcoder2Config(**tiny.shape(rope_parameters={"rope_type": "default", "rope_theta": 999999.44})),
        nothing,
    ),
    "starcoder2, no biases": ("starcoder2", Starcoder2Config(**tiny.shape(use_bias=False)), nothing),
    "nemotron": ("nemotron", NemotronConfig(**tiny.shape()), nothing),
    "nemotron, half of each head": (
        "nemotron",
        NemotronConfig(
            **tiny.shape(attention_bias=True, norm_eps=1e-3),
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        ),
        nothing,
    ),
    "gemma3, another pattern": (
        "gemma3",
        Gemma3TextConfig(**{**GEMMA2, "num_hidden_layers": 4}, sliding_window_pattern=2),
        lambda file: file.set(attention__sliding_window=16, attention__sliding_window_pattern=2),
    ),
    "gemma2, the window of each layer": (
        "gemma2",
        Gemma2Config(**GEMMA2, layer_types=["full_attention", "sliding_attention"]),
        lambda file: file.set(attention__sliding_window=16, attention__sliding_window_pattern=[False, True]),
    ),
    "llama, a window that hides nothing": (
        "llama",
        tiny.llama(),
        lambda file: file.set(attention__sliding_window=256),
    ),
    "stablelm": ("stablelm", StableLmConfig(**tiny.shape()), nothing),
    "stablelm, half of each head": (
        "stablelm",
        StableLmConfig(
            **tiny.shape(use_qkv_bias=True),
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        ),
        nothing,
    ),
}


def saved(tmp_path: Path, architecture: str, config: Any, change: Change) -> tuple[Path, Path]:
    """A folder, and the GGUF file made from it."""
    folder = tmp_path / "folder"
    tiny.save_model(folder, config)
    # transformers puts its own pre-tokenizer for this one in the place of the folder's.
    file = converted(folder, architecture, "qwen2" if architecture == "qwen2" else "gpt-2")
    file.put({"tokenizer.ggml.add_bos_token": False})
    change(file)
    return folder, file.write(tmp_path / "m.gguf")


def log_probabilities(source: Path, **settings: Any) -> list[np.ndarray]:
    engine = tiny.load(source, **settings)
    return [np.asarray(stats.logprob) for stats in engine.score(tiny.encoded(engine))]


@pytest.mark.parametrize("case", EQUAL)
def test_a_file_gives_the_numbers_of_its_folder(case: str, tmp_path: Path) -> None:
    folder, file = saved(tmp_path, *EQUAL[case])
    expected = log_probabilities(folder)
    found = log_probabilities(file)
    assert sum(map(len, expected)) > 100
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, atol=2e-4)


def tensor(name: str, *size: int) -> Change:
    return lambda file: file.tensors.update({name: np.ones(size)})


def without(name: str) -> Change:
    return lambda file: file.tensors.pop(name)


def keys(**values: Any) -> Change:
    return lambda file: file.set(**values)


REFUSED: dict[str, tuple[str, Any, Change]] = {
    "llama.something_new": ("llama", tiny.llama(), keys(something_new=1)),
    "llama.expert_count": ("llama", tiny.llama(), keys(expert_count=8)),
    "llama.logit_scale": ("llama", tiny.llama(), keys(logit_scale=0.25)),
    "llama.embedding_scale": ("llama", tiny.llama(), keys(embedding_scale=12.0)),
    "llama.residual_scale": ("llama", tiny.llama(), keys(residual_scale=0.22)),
    "llama.attention.scale": ("llama", tiny.llama(), keys(attention__scale=0.5)),
    "llama.attention.causal": ("llama", tiny.llama(), keys(attention__causal=False)),
    "llama.attention.clamp_kqv": ("llama", tiny.llama(), keys(attention__clamp_kqv=8.0)),
    "llama.attention.max_alibi_bias": ("llama", tiny.llama(), keys(attention__max_alibi_bias=8.0)),
    "llama.attention.sliding_window": ("llama", tiny.llama(), keys(attention__sliding_window=16)),
    "llama.attention.temperature_scale": ("llama", tiny.llama(), keys(attention__temperature_scale=0.1)),
    "llama.attention.value_length": ("llama", tiny.llama(), keys(attention__value_length=16)),
    "llama.attention.head_count_kv": ("llama", tiny.llama(), keys(attention__head_count_kv=[2, 1])),
    "llama.attention.layer_norm_rms_epsilon": (
        "llama",
        tiny.llama(),
        keys(attention__layer_norm_rms_epsilon=None),
    ),
    "llama.attention.layer_norm_epsilon": ("llama", tiny.llama(), keys(attention__layer_norm_epsilon=1e-3)),
    "llama.attn_logit_softcapping": ("llama", tiny.llama(), keys(attn_logit_softcapping=50.0)),
    "llama.final_logit_softcapping": ("llama", tiny.llama(), keys(final_logit_softcapping=30.0)),
    "llama.block_count": ("llama", tiny.llama(), keys(block_count=2_000_000_000)),
    "llama.context_length": ("llama", tiny.llama(), keys(context_length="long")),
    "llama.embedding_length": ("llama", tiny.llama(), keys(embedding_length=64)),
    "llama.vocab_size": ("llama", tiny.llama(), keys(vocab_size=999)),
    "llama.rope.freq_base": ("llama", tiny.llama(), keys(rope__freq_base=math.nan)),
    "llama.rope.freq_base_swa": ("llama", tiny.llama(), keys(rope__freq_base_swa=1e4)),
    "llama.rope.dimension_count": ("llama", tiny.llama(), keys(rope__dimension_count=4)),
    "llama.rope.dimension_sections": ("llama", tiny.llama(), keys(rope__dimension_sections=[1, 1, 2])),
    "llama.rope.scaling.type": ("llama", tiny.llama(), keys(rope__scaling__type="dynamic")),
    "llama.rope.scaling.attn_factor": (
        "llama",
        tiny.llama(),
        lambda file: (yarn(file), file.set(rope__scaling__attn_factor=1.2)),
    ),
    "llama.rope.scaling.yarn_log_multiplier": (
        "llama",
        tiny.llama(),
        lambda file: (yarn(file), file.set(rope__scaling__yarn_log_multiplier=0.1)),
    ),
    "llama.rope.scaling.original_context_length": (
        "llama",
        tiny.llama(),
        keys(rope__scaling__type="yarn", rope__scaling__factor=4.0),
    ),
    "phi3.rope.scaling.attn_factor": (
        "phi3",
        Phi3Config(**tiny.shape()),
        lambda file: (long(file), file.set(rope__scaling__attn_factor=None)),
    ),
    "rope_freqs.weight": ("qwen2", Qwen2Config(**tiny.shape()), tensor("rope_freqs.weight", 4)),
    "rope_factors_long.weight": ("qwen2", Qwen2Config(**tiny.shape()), tensor("rope_factors_long.weight", 4)),
    "rope_factors_short.weight": (
        "phi3",
        Phi3Config(**tiny.shape()),
        lambda file: (long(file), file.tensors.pop("rope_factors_short.weight")),
    ),
    "phi3.rope.scaling.type": ("phi3", Phi3Config(**tiny.shape()), yarn),
    "gemma2.attention.scale": ("gemma2", Gemma2Config(**{**GEMMA2, "head_dim": 8}), nothing),
    "gemma2.attention.sliding_window": ("gemma2", Gemma2Config(**GEMMA2), keys(attention__sliding_window=0)),
    "gemma2.attention.sliding_window_pattern": (
        "gemma2",
        Gemma2Config(**GEMMA2),
        keys(attention__sliding_window_pattern=[True]),
    ),
    "llama.rope.scaling.factor": ("llama", tiny.llama(), keys(rope__scaling__factor=-2.0)),
    "gemma3.rope.scaling.type": ("gemma3", Gemma3TextConfig(**GEMMA2), yarn),
    "gemma3.attn_logit_softcapping": (
        "gemma3",
        Gemma3TextConfig(**GEMMA2),
        keys(attn_logit_softcapping=50.0),
    ),
    "stablelm.use_parallel_residual": (
        "stablelm",
        StableLmConfig(**tiny.shape()),
        keys(use_parallel_residual=True),
    ),
    "qwen2moe.expert_gating_func": (
        "qwen2moe",
        Qwen2MoeConfig(**tiny.shape(**EXPERTS, shared_expert_intermediate_size=24)),
        lambda file: (shared_expert(file), file.set(expert_gating_func=2)),
    ),
    "qwen2.rope.freq_base": (
        "llama",
        tiny.llama(),
        lambda file: file.put({"qwen2.rope.freq_base": 1e6}),
    ),
    "blk.0.attn_q_norm.weight": ("llama", tiny.llama(), tensor("blk.0.attn_q_norm.weight", 8)),
    "blk.0.attn_k.bias": ("llama", tiny.llama(attention_bias=True), nothing),
    "blk.1.ffn_down.bias": ("llama", tiny.llama(), tensor("blk.1.ffn_down.bias", 32)),
    "blk.1.attn_k.bias": ("llama", tiny.llama(), tensor("blk.1.attn_k.bias", 16)),
    "output.bias": ("llama", tiny.llama(), tensor("output.bias", tiny.VOCABULARY)),
    "output.scale": ("llama", tiny.llama(), tensor("output.scale", 1)),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_honoured_is_refused_by_name(key: str, tmp_path: Path) -> None:
    _, file = saved(tmp_path, *REFUSED[key])
    with pytest.raises(CandidateError) as caught:
        tiny.load(file)
    message = str(caught.value)
    assert message.startswith(f"candidate 'tiny': m.gguf: {key}")
    assert "score the folder in Hugging Face layout" in message and len(message) < 400


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (without("blk.1.ffn_up.weight"), "missing weights"),
        (without("token_embd.weight"), "token_embd.weight"),
        (tensor("blk.0.ffn_up.weight", 48, 32), r"blk\.0\.ffn_up\.weight is \[48, 32\], not \[64, 32\]"),
        (keys(attention__head_count=0), r"llama\.attention\.head_count = 0"),
        (keys(attention__head_count=5), "cannot be loaded"),
        (keys(feed_forward_length=128), r"blk\.0\.ffn_\w+\.weight is .* as the keys say"),
        (keys(attention__head_count=2), r"blk\.0\.attn_q\.weight is \[32, 32\], not \[16, 32\]"),
        (
            keys(attention__key_length=16, attention__value_length=16, rope__dimension_count=16),
            "as the keys say",
        ),
        (tensor("blk.0.ffn_up.weight", 32, 64), r"blk\.0\.ffn_up\.weight is \[32, 64\], not \[64, 32\]"),
        (keys(attention__key_length=2**30, rope__dimension_count=None), "llama.attention.key_length"),
        (
            lambda file: (file.set(feed_forward_length=2**30), file.tensors.pop("blk.1.ffn_up.weight")),
            "missing weights: model.layers.1.mlp.up_proj.weight",
        ),
        (keys(attention__layer_norm_rms_epsilon=None), "layer_norm_rms_epsilon is missing"),
        (keys(attention__head_count_kv=None), "llama.attention.head_count_kv is not one number"),
        (keys(attention__head_count_kv=[2, 2]), r"llama.attention.head_count_kv = \[2, 2\]"),
        (tensor("blk.2.ffn_up.weight", 64, 32), "llama.block_count"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: Change, part: str, tmp_path: Path) -> None:
    _, file = saved(tmp_path, "llama", tiny.llama(), change)
    with pytest.raises(CandidateError, match=part):
        tiny.load(file)


STRANGE = (True, 0, 2**32 - 1, -1.0, 1e30, math.nan, math.inf, "", "\x1b[31m" * 99, [1], ["a"], [True])


def test_strange_values_are_taken_at_their_word_or_refused_in_one_line(tmp_path: Path) -> None:
    _, path = saved(tmp_path, "llama", tiny.llama(), yarn)
    header = read_header(path, "it")
    refused = 0
    for key in header.metadata.keys() - {"general.architecture"}:
        for value in STRANGE:
            changed = replace(header, metadata={**header.metadata, key: value})
            try:
                configuration_of(changed)
                tokenizer_of(changed)
            except CandidateError as error:
                message = str(error)
                assert message.startswith("candidate 'it': m.gguf: ") and len(message) < 400
                assert message.isprintable()
                refused += 1
    assert refused > 200


@pytest.mark.parametrize(("architecture", "layers", "scalar"), [("gemma2", 46, 144), ("gemma3", 62, 144)])
def test_queries_of_the_size_that_has_another_scale(architecture: str, layers: int, scalar: int) -> None:
    tensors: dict[str, tuple[int, ...]] = {f"blk.{i}.attn_q.weight": (512, 576) for i in range(layers)}
    sizes = {"block_count": layers, "feed_forward_length": 8, "context_length": 64, "embedding_length": 576}
    heads = {"head_count": 4, "key_length": 128, "value_length": 128, "layer_norm_rms_epsilon": 1e-6}
    keys_of_it = {**sizes, **{f"attention.{key}": value for key, value in heads.items()}}
    metadata = {f"{architecture}.{key}": value for key, value in keys_of_it.items()}
    metadata["general.architecture"] = architecture
    header = GgufHeader("it", Path("m.gguf"), metadata, {"token_embd.weight": (9, 576), **tensors})
    assert configuration_of(header).query_pre_attn_scalar == scalar


def test_a_configuration_survives_being_saved(tmp_path: Path) -> None:
    """vLLM reads what transformers has saved."""
    _, path = saved(tmp_path, "llama", tiny.llama(rope_parameters=LLAMA3), llama3_divisors)
    model, _ = load_candidate(tiny.resolve(path)[0])
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


def test_architectures_that_are_not_checked_are_refused(tmp_path: Path) -> None:
    tiny.save_model(tmp_path / "folder", tiny.llama())
    file = converted(tmp_path / "folder", "llama")
    file.architecture = "granite"
    with pytest.raises(CandidateError, match=r"general.architecture = 'granite' .* are checked for llama, "):
        tiny.load(file.write(tmp_path / "m.gguf"))
