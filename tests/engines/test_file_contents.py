"""Weights that nothing uses are refused before either engine loads them, but for those known as harmless."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny import (
    VOCABULARY,
    change_config,
    change_weights,
    encoded,
    llama,
    load,
    resolve,
    save_model,
    shape,
)

from forecast.engines.hf_loading import check_weights, forget_models, planned_files
from forecast.errors import CandidateError

Extra = dict[str, torch.Tensor]
TRIANGLE = torch.ones(64, 64, dtype=torch.bool).tril()[None, None]
BAND = TRIANGLE & ~torch.ones(64, 64, dtype=torch.bool).tril(-8)
INFINITY = torch.tensor(-1e9)
SMALL = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY}
WEIGHT = torch.full((32, 32), 0.1)
CONFIGS: dict[str, Any] = {
    "llama": lambda: llama(),
    "tied llama": lambda: llama(tie_word_embeddings=True),
    "scaled llama": lambda: llama(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}),
    "gpt2": lambda: transformers.GPT2Config(**SMALL),
    "gptj": lambda: transformers.GPTJConfig(**SMALL, rotary_dim=4),
    "codegen": lambda: transformers.CodeGenConfig(**SMALL, rotary_dim=4),
    "neox": lambda: transformers.GPTNeoXConfig(
        **shape(max_position_embeddings=64), rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5}
    ),
    "neo": lambda: transformers.GPTNeoConfig(
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=64,
        window_size=8,
        vocab_size=VOCABULARY,
    ),
    "glm": lambda: transformers.Glm4MoeConfig(
        **shape(),
        moe_intermediate_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
    ),
}


def frequencies(size: int, theta: float = 1e4) -> torch.Tensor:
    return theta ** -(torch.arange(0, size, 2) / size)


def in_layers(stem: str, *tensors: torch.Tensor) -> Extra:
    """One tensor for each layer, or the same one for both."""
    return {stem.format(i): tensors[i % len(tensors)] for i in range(2)}


def head_of_tokens_ahead(layer: int) -> Extra:
    names = ("eh_proj", "enorm", "self_attn.q_proj", "mlp.experts.0.up_proj", "shared_head.head")
    return {f"model.layers.{layer}.{name}.weight": WEIGHT for name in names}


ROTATION = "model.layers.{}.self_attn.rotary_emb.inv_freq"
HARMLESS: list[tuple[str, Extra]] = [
    ("gpt2", in_layers("transformer.h.{}.attn.bias", TRIANGLE.to(torch.uint8))),
    ("gpt2", in_layers("h.{}.attn.bias", TRIANGLE.float())),
    ("gpt2", in_layers("transformer.h.{}.attn.masked_bias", INFINITY)),
    ("gptj", in_layers("transformer.h.{}.attn.bias", TRIANGLE)),
    ("gptj", in_layers("transformer.h.{}.attn.masked_bias", INFINITY[None])),
    ("codegen", in_layers("transformer.h.{}.attn.causal_mask", TRIANGLE)),
    ("neo", in_layers("transformer.h.{}.attn.attention.bias", TRIANGLE, BAND)),
    ("neox", in_layers("gpt_neox.layers.{}.attention.bias", TRIANGLE)),
    ("neox", in_layers("gpt_neox.layers.{}.attention.rotary_emb.inv_freq", frequencies(4))),
    ("llama", in_layers(ROTATION, frequencies(8))),
    ("llama", in_layers(ROTATION, frequencies(8).bfloat16())),
    ("scaled llama", in_layers(ROTATION, frequencies(8))),
    ("scaled llama", in_layers(ROTATION, frequencies(8) / 4)),
    ("llama", {"model.embeddings.position_ids": torch.arange(256)[None]}),
    ("llama", {"mtp.layers.0.mlp.up_proj.weight": WEIGHT, "model.mtp.norm.weight": WEIGHT[0]}),
    ("llama", {"visual.blocks.0.attn.qkv.bias": WEIGHT[0], "model.vision_tower.patch.weight": WEIGHT}),
    ("llama", {"v_head.summary.weight": WEIGHT}),
    ("llama", head_of_tokens_ahead(2)),
    ("glm", head_of_tokens_ahead(46)),
]
UNUSED: list[tuple[str, Extra]] = [
    ("llama", in_layers("model.layers.{}.self_attn.q_proj.bias", WEIGHT[0])),
    ("llama", {"model.layers.1.mlp.down_proj.bias": WEIGHT[0]}),
    ("llama", {"model.layers.1.self_attn.q_norm.weight": WEIGHT[0, :8]}),
    ("llama", {"model.layers.2.mlp.down_proj.weight": WEIGHT}),
    ("llama", {"model.layers.0.mlp.down_proj.weight_scale_inv": WEIGHT[:1, :1]}),
    ("llama", {"model.layers.0.self_attn.sinks": WEIGHT[0, :4]}),
    ("llama", {"model.norm.bias": WEIGHT[0]}),
    ("llama", {"lm_head.bias": torch.ones(VOCABULARY)}),
    ("llama", {"model.embed_positions.weight": torch.ones(64, 32)}),
    ("llama", {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": WEIGHT}),
    ("llama", {"score.weight": WEIGHT}),
    ("llama", {"model.layers.0.mlp.mtp.bias": WEIGHT[0]}),
    ("llama", {"model.layers.0.self_attn.v_head.weight": WEIGHT}),
    ("llama", {"model.layers.0.visual.weight": WEIGHT}),
    ("gpt2", {"transformer.h.1.attn.c_attn.lora_A": WEIGHT}),
    # Harmless names that hold something else.
    ("gpt2", {"transformer.h.1.attn.bias": torch.ones(96)}),
    ("gpt2", {"h.1.attn.bias": torch.ones(1, 1, 64, 64)}),
    ("gptj", {"transformer.h.1.attn.bias": torch.ones(32)}),
    ("neox", {"gpt_neox.layers.1.attention.bias": torch.ones(32)}),
    ("neox", in_layers("gpt_neox.layers.{}.attention.rotary_emb.inv_freq", frequencies(8))),
    ("llama", in_layers(ROTATION, frequencies(8, theta=5e5))),
    ("llama", in_layers(ROTATION, frequencies(8) / 4)),
    ("llama", in_layers(ROTATION, frequencies(16))),
    ("llama", {"model.embeddings.position_ids": torch.arange(256)[None] + 2}),
    # A layer of a number that transformers leaves over in every model of this kind.
    ("glm", {"model.layers.46.mlp.down_proj.weight": WEIGHT}),
]


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Path]:
    def made(kind: str) -> Path:
        save_model(tmp_path / "made", CONFIGS[kind]())
        return tmp_path / "made"

    return made


def add(folder: Path, extra: Extra) -> None:
    change_weights(folder, lambda weights: weights.update({k: v.clone() for k, v in extra.items()}))


def complaints(folder: Path, **settings: Any) -> list[str]:
    """What the torch engine says, and what is said before vLLM is started."""
    candidate, _ = resolve(folder, **settings)
    with pytest.raises(CandidateError) as torchs:
        load(folder, **settings)
    with planned_files(candidate) as files, pytest.raises(CandidateError) as vllms:
        check_weights(candidate, files)
    return [str(torchs.value), str(vllms.value)]


@pytest.mark.parametrize(("kind", "extra"), HARMLESS)
def test_harmless_tensors_change_nothing(kind: str, extra: Extra, make: Callable[[str], Path]) -> None:
    folder = make(kind)
    before = load(folder)
    expected = [one.logprob for one in before.score(encoded(before))]
    add(folder, extra)
    forget_models()
    after = load(folder)
    for one, logprob in zip(after.score(encoded(after)), expected, strict=True):
        np.testing.assert_array_equal(one.logprob, logprob)
    candidate, _ = resolve(folder)
    with planned_files(candidate) as files:
        assert check_weights(candidate, files) == before.facts.parameters


@pytest.mark.parametrize(("kind", "extra"), UNUSED)
def test_unused_weights_are_named(kind: str, extra: Extra, make: Callable[[str], Path]) -> None:
    folder = make(kind)
    add(folder, extra)
    for message in complaints(folder):
        assert message.startswith("candidate 'tiny': unused weights: ")
        assert sorted(extra)[0] in message
        assert "correct config.json" in message


def test_a_window_other_than_the_configured_one_is_named(make: Callable[[str], Path]) -> None:
    folder = make("neo")
    add(folder, {"transformer.h.1.attn.attention.bias": TRIANGLE})
    with pytest.raises(CandidateError, match=r"unused weights: transformer\.h\.1\.attn\.attention\.bias: "):
        load(folder)


def test_unused_weights_of_a_pickle_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**weights, **in_layers(ROTATION, frequencies(8))}, folder / "pytorch_model.bin")
    load(folder, allow_pickle=True)
    torch.save({**weights, **in_layers(ROTATION, frequencies(8, theta=5e5))}, folder / "pytorch_model.bin")
    for message in complaints(folder, allow_pickle=True):
        assert f"unused weights: {ROTATION.format(0)}, {ROTATION.format(1)}: " in message


@pytest.mark.parametrize("lost", ["attention_bias", "mlp_bias", "num_hidden_layers"])
def test_a_key_that_the_configuration_has_lost(lost: str, tmp_path: Path) -> None:
    settings = {"attention_bias": True, "mlp_bias": True, "num_hidden_layers": 3}
    save_model(tmp_path / "made", llama(**settings))
    change_config(tmp_path / "made", **{lost: 2 if lost == "num_hidden_layers" else False})
    assert all("unused weights: model.layers." in message for message in complaints(tmp_path / "made"))


def test_experts_that_are_numbered_with_a_gap(make: Callable[[str], Path]) -> None:
    folder, stem = make("glm"), "model.layers.1.mlp.experts.{}.gate_proj.weight"
    change_weights(folder, lambda weights: weights.update({stem.format(7): weights.pop(stem.format(2))}))
    assert all(f"the experts of {stem.format('*')} are not numbered" in m for m in complaints(folder))


class TestWeightsGivenTwice:
    def test_a_head_that_is_equal_to_its_embedding(self, make: Callable[[str], Path]) -> None:
        folder = make("tied llama")
        embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
        add(folder, {"lm_head.weight": embedding})
        load(folder)

    def test_a_head_that_differs_from_its_embedding(self, make: Callable[[str], Path]) -> None:
        folder = make("tied llama")
        add(folder, {"lm_head.weight": torch.ones(VOCABULARY, 32)})
        for message in complaints(folder):
            assert (
                "makes lm_head.weight the same as model.embed_tokens.weight, but the files hold two"
                in message
            )

    def test_with_and_without_a_prefix(self, make: Callable[[str], Path]) -> None:
        folder = make("gpt2")
        add(folder, {"wte.weight": torch.ones(VOCABULARY, 32)})
        for message in complaints(folder):
            assert "weights given twice, as wte.weight and transformer.wte.weight" in message


class TestBounds:
    def test_many_thousand_layers(self, folder: Path) -> None:
        change_config(folder, num_hidden_layers=99_999)
        assert all("config.json asks for more than 2" in message for message in complaints(folder))

    def test_a_configuration_that_never_ends(self, make: Callable[[str], Path], monkeypatch: Any) -> None:
        folder = make("neo")
        change_config(folder, attention_types=[[["global", "local"], 1 << 40]])
        monkeypatch.setattr("forecast.engines.bounded_encode._LOAD_SECONDS", 2.0)
        with pytest.raises(
            CandidateError, match=r"the model that config\.json asks for cannot be built: it "
        ):
            load(folder)

    @pytest.mark.parametrize("kind", ["gptj", "codegen"])
    def test_tables_of_terabytes(self, kind: str, make: Callable[[str], Path]) -> None:
        folder = make(kind)
        change_config(folder, n_positions=1 << 33)
        assert all("config.json asks for tables of" in message for message in complaints(folder))

    @pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "intermediate_size"])
    def test_a_matrix_of_terabytes(self, key: str, folder: Path) -> None:
        change_config(folder, **{key: 1 << 33})
        assert all("weights of other shapes than config.json gives" in m for m in complaints(folder))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_weights_that_lack_their_scales(dtype: torch.dtype, folder: Path) -> None:
    add(folder, {"model.layers.1.mlp.up_proj.weight": torch.ones(64, 32, dtype=dtype)})
    for message in complaints(folder):
        assert "weights stored as whole numbers: model.layers.1.mlp.up_proj.weight" in message


def test_unknown_quantization_of_whole_weights_is_refused(folder: Path) -> None:
    change_config(folder, quantization_config={"quant_method": "of_my_own"})  # transformers ignores it
    assert any("quantization 'of_my_own'" in message for message in complaints(folder))
