"""Rounding against a plain loop, pruning against a model that was built smaller."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import VOCABULARY, load, save_model
from transformers.pytorch_utils import Conv1D

from forecast.config.schema import Quantize
from forecast.engines.variants import decoder_layers, drop_layers, quantize_weights, round_to_nearest
from forecast.errors import CandidateError

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "pad_token_id": None,
}


def model_of(config: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()


def llama(**others: Any) -> Any:
    return model_of(transformers.LlamaConfig(**{**SHAPE, **others}))


@torch.inference_mode()
def logits_of(model: Any) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=torch.arange(40)[None] * 7, use_cache=False).logits
    return logits


def plain_rounding(weight: np.ndarray, bits: int, group_size: int) -> np.ndarray:
    """The definition, one group of one output at a time."""
    result = np.zeros_like(weight)
    top = 2 ** (bits - 1) - 1
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], group_size):
            group = weight[row, start : start + group_size]
            scale = np.float32(np.abs(group).max() / np.float32(top))
            if scale > 0:
                result[row, start : start + group_size] = np.round(group / scale) * scale
    return result


def random_weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestRoundToNearest:
    @pytest.mark.parametrize("bits", range(2, 9))
    @pytest.mark.parametrize(("inputs", "group_size"), [(64, 16), (50, 16), (17, 16), (8, 8), (5, 64)])
    def test_equals_the_plain_loop(self, bits: int, inputs: int, group_size: int) -> None:
        weight = random_weight(6, inputs, seed=bits)
        found = round_to_nearest(weight, Quantize(bits=bits, group_size=group_size))
        np.testing.assert_array_equal(found.numpy(), plain_rounding(weight.numpy(), bits, group_size))

    @pytest.mark.parametrize("bits", range(2, 9))
    def test_leaves_few_levels_and_the_largest_weight(self, bits: int) -> None:
        weight = random_weight(4, 256)
        found = round_to_nearest(weight, Quantize(bits=bits, group_size=256))
        top = 2 ** (bits - 1) - 1
        assert all(len(row.unique()) <= 2 * top + 1 for row in found)
        torch.testing.assert_close(found.abs().amax(1), weight.abs().amax(1))
        steps = weight.abs().amax(1, keepdim=True) / top
        assert ((found - weight).abs() <= steps * (0.5 + 1e-5)).all()

    def test_groups_of_zeros_stay_zero(self) -> None:
        weight = random_weight(3, 32)
        weight[:, 8:16] = 0
        weight[1] = 0
        found = round_to_nearest(weight, Quantize(bits=4, group_size=8))
        assert (found[:, 8:16] == 0).all() and (found[1] == 0).all()
        assert (found[0, :8] != 0).any()

    def test_groups_do_not_share_a_scale(self) -> None:
        weight = random_weight(1, 16)
        louder = weight.clone()
        louder[:, 8:] *= 1000
        small, large = (round_to_nearest(w, Quantize(bits=4, group_size=8)) for w in (weight, louder))
        assert torch.equal(small[:, :8], large[:, :8])

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_keeps_the_dtype_and_computes_in_fp32(self, dtype: torch.dtype) -> None:
        weight = random_weight(4, 32).to(dtype)
        found = round_to_nearest(weight, Quantize(bits=4, group_size=16))
        assert found.dtype == dtype
        plain = torch.from_numpy(plain_rounding(weight.float().numpy(), 4, 16))
        assert torch.equal(found, plain.to(dtype))

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.integers(2, 8), st.integers(1, 40), st.integers(8, 20), st.integers(0, 1000))
    def test_rounding_twice_is_rounding_once(
        self, bits: int, inputs: int, group_size: int, seed: int
    ) -> None:
        options = Quantize(bits=bits, group_size=group_size)
        once = round_to_nearest(random_weight(3, inputs, seed=seed), options)
        torch.testing.assert_close(round_to_nearest(once, options), once, rtol=1e-6, atol=0)


class TestQuantizeWeights:
    def test_touches_linear_layers_of_the_decoder_only(self) -> None:
        model = llama(attention_bias=True)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        options = Quantize(bits=3, group_size=16)
        quantize_weights(model, options)
        rounded = [name for name in before if ".layers." in name and name.endswith("proj.weight")]
        assert len(rounded) == 4 * 7
        for name, parameter in model.named_parameters():
            expected = round_to_nearest(before[name], options) if name in rounded else before[name]
            assert torch.equal(parameter, expected), name
            assert torch.equal(parameter, before[name]) == (name not in rounded), name

    def test_groups_run_along_the_inputs_of_conv1d(self) -> None:
        model = model_of(transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=VOCABULARY))
        before = model.transformer.h[0].mlp.c_fc.weight.clone()  # [inputs, outputs]
        assert isinstance(model.transformer.h[0].mlp.c_fc, Conv1D)
        quantize_weights(model, Quantize(bits=4, group_size=8))
        expected = plain_rounding(before.T.detach().numpy(), 4, 8).T
        np.testing.assert_array_equal(model.transformer.h[0].mlp.c_fc.weight.detach().numpy(), expected)

    def test_tied_heads_stay_with_their_embedding(self) -> None:
        model = llama(tie_word_embeddings=True)
        before = model.lm_head.weight.clone()
        quantize_weights(model, Quantize(bits=2))
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert torch.equal(model.lm_head.weight, before)

    def test_models_without_linear_layers_are_refused(self) -> None:
        model = model_of(transformers.MixtralConfig(**SHAPE, num_local_experts=4))
        with pytest.raises(
            CandidateError, match=r"hold only [\d,]+ of the decoder's [\d,]+ parameters in Mixtral"
        ):
            quantize_weights(model, Quantize(bits=4))


PATTERN = ["sliding_attention", "sliding_attention", "full_attention", "full_attention"]
FAMILIES = {
    "llama": transformers.LlamaConfig(**SHAPE),
    "gemma2": transformers.Gemma2Config(**SHAPE, head_dim=8, sliding_window=4, layer_types=PATTERN),
    "qwen3": transformers.Qwen3Config(
        **SHAPE, head_dim=8, use_sliding_window=True, sliding_window=4, layer_types=PATTERN
    ),
    "smollm3": transformers.SmolLM3Config(**SHAPE, no_rope_layers=[1, 1, 0, 1]),
    "gpt2": transformers.GPT2Config(n_embd=32, n_layer=4, n_head=4, vocab_size=VOCABULARY),
    "bloom": transformers.BloomConfig(hidden_size=32, n_layer=4, n_head=4, vocab_size=VOCABULARY),
}


class TestDropLayers:
    @pytest.mark.parametrize(
        ("which", "kept"),
        [(0, [0, 1, 2, 3]), (1, [0, 1, 3]), (2, [0, 3]), (3, [3]), ((0,), [1, 2, 3]), ((3, 1), [0, 2])],
    )
    @pytest.mark.parametrize("family", FAMILIES)
    def test_equals_a_model_built_with_those_layers(self, family: str, which: Any, kept: list[int]) -> None:
        config = FAMILIES[family]
        pruned = model_of(config)
        prefix = next(name for name, module in pruned.named_modules() if module is decoder_layers(pruned)[2])
        weights = pruned.state_dict()
        drop_layers(pruned, which)

        layers = type(config)(**config.to_dict())
        for key in ("layer_types", "no_rope_layers"):
            if getattr(config, key, None):
                setattr(layers, key, [getattr(config, key)[i] for i in kept])
        layers.num_hidden_layers = len(kept)
        built = model_of(layers, seed=1)
        renamed = {}
        for name, tensor in weights.items():
            if not name.startswith(prefix + "."):
                renamed[name] = tensor
                continue
            index, rest = name.removeprefix(prefix + ".").split(".", 1)
            if int(index) in kept:
                renamed[f"{prefix}.{kept.index(int(index))}.{rest}"] = tensor
        built.load_state_dict(renamed)

        torch.testing.assert_close(logits_of(pruned), logits_of(built))
        assert pruned.config.num_hidden_layers == len(kept)
        assert sum(p.numel() for p in pruned.parameters()) == sum(p.numel() for p in built.parameters())

    def test_layers_are_renumbered(self) -> None:
        model = llama()
        drop_layers(model, (0, 2))
        assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1]

    def test_lists_per_layer_are_pruned(self) -> None:
        gemma, smollm = model_of(FAMILIES["gemma2"]), model_of(FAMILIES["smollm3"])
        drop_layers(gemma, (0, 3))
        drop_layers(smollm, (0, 1))
        assert gemma.config.layer_types == PATTERN[1:3]
        assert smollm.config.no_rope_layers == [0, 1]

    def test_pruning_makes_another_model(self) -> None:
        pruned = llama()
        drop_layers(pruned, 1)
        assert (logits_of(pruned) - logits_of(llama())).abs().max() > 1e-3

    @pytest.mark.parametrize("which", [4, 5, (4,), (0, 9), (0, 1, 2, 3)])
    def test_layers_that_are_not_there(self, which: Any) -> None:
        model = llama()
        with pytest.raises(CandidateError, match="does not fit a model of 4 layers"):
            drop_layers(model, which)
        assert len(model.model.layers) == 4

    def test_a_model_without_a_stack_of_layers(self) -> None:
        model = llama()
        model.config.num_hidden_layers = 7
        with pytest.raises(CandidateError, match="no stack of 7 decoder layers found in LlamaForCausalLM"):
            drop_layers(model, 1)


def test_the_engine_prunes_and_rounds_what_it_loads(tmp_path: Path) -> None:
    original = save_model(tmp_path, transformers.LlamaConfig(**SHAPE))
    engine = load(tmp_path, drop_layers=[1], quantize={"bits": 4, "group_size": 16})
    assert engine.facts.parameters == sum(p.numel() for p in original.parameters()) - sum(
        p.numel() for p in original.model.layers[1].parameters()
    )
    found = engine._model.model.layers[1].mlp.up_proj.weight
    expected = round_to_nearest(original.model.layers[2].mlp.up_proj.weight, Quantize(bits=4, group_size=16))
    assert torch.equal(found, expected)
