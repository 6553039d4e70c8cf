"""A transformers configuration made from a GGUF file by the file's own rules, which are llama.cpp's.

transformers' own mapping leaves out keys without a word (scaled positions, soft-caps, the base of the rotary
angles of some architectures) and puts defaults of one checkpoint in their place. Here each key of an
architecture is put into the configuration, is known to change no number, or is refused by name, and what a
file leaves out has the default that llama.cpp gives it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gguf
from transformers import AutoConfig

from forecast.engines.gguf_rope import rope_parameters
from forecast.inputs.models.gguf import GgufHeader

# Keys that change no number.
_HARMLESS = {"vocab_size", "rope.scaling.finetuned", "tensor_data_layout", "pooling_type"}
# Keys that change none at these values, which older or careful converters write.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("expert_count", "expert_used_count", "expert_shared_count"), (0,)),
    **dict.fromkeys(("attention.max_alibi_bias", "attention.clamp_kqv", "attention.sliding_window"), (0,)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), (0,)),
    **dict.fromkeys(("logit_scale", "residual_scale", "embedding_scale", "expert_weights_scale"), (0, 1)),
    "rope.scaling.yarn_attn_factor": (1,),
    "attention.causal": (True,),
    "use_parallel_residual": (False,),
}


@dataclass(frozen=True)
class _Architecture:
    """How the files of an architecture say what its configuration is."""

    model_type: str
    epsilon: tuple[str, str]  # key and field of the normalisation's epsilon
    fixed: Mapping[str, Any] = field(default_factory=dict)  # what no key says
    more: Mapping[str, tuple[str, Any]] = field(
        default_factory=dict
    )  # key -> field, default (None: required)
    biases: Mapping[str, str] = field(
        default_factory=dict
    )  # tensor of the first block -> field: is it there?
    scalings: tuple[str, ...] = ("linear", "yarn")  # of the rotary angles
    partial: bool = False  # only a part of each head may be rotated
    finish: Callable[[GgufHeader, dict[str, Any]], set[str]] | None = None  # the rest; gives the keys it read


_RMS = ("attention.layer_norm_rms_epsilon", "rms_norm_eps")
_NO_WINDOW = {"use_sliding_window": False, "sliding_window": None}
_EXPERTS: dict[str, tuple[str, Any]] = {
    "expert_count": ("num_experts", None),
    "expert_used_count": ("num_experts_per_tok", None),
    "expert_feed_forward_length": ("moe_intermediate_size", None),
}


def _gemma(header: GgufHeader, values: dict[str, Any], pattern: int, layers_27b: int) -> set[str]:
    """Windows, and the scale of the queries, which llama.cpp knows by the size of the model."""
    layers = values["num_hidden_layers"]
    values["sliding_window"] = header.count("attention.sliding_window", 4096)
    name = f"{header.architecture}.attention.sliding_window"
    slides = header.metadata.get(f"{name}_pattern", pattern)  # period, or whether each layer has the window
    if isinstance(slides, int) and slides > 0:
        slides = [(layer + 1) % slides != 0 for layer in range(layers)]
    if not isinstance(slides, list) or len(slides) != layers:
        raise header.refusal(f"{name}_pattern", f"says nothing of {layers} layers")
    values["layer_types"] = ["sliding_attention" if one else "full_attention" for one in slides]
    name = f"{header.architecture}.attention.scale"
    head = values["head_dim"]
    if scale := header.get(name, float, 0.0):
        values["query_pre_attn_scalar"] = scalar = round(scale**-2)
        if not math.isclose(scalar * scale**2, 1, rel_tol=1e-5):
            raise header.refusal(
                name, "is not the inverse root of a whole number, which is all that is honoured"
            )
    elif layers == layers_27b:
        values["query_pre_attn_scalar"] = values["hidden_size"] // values["num_attention_heads"]
    elif head == 256:
        values["query_pre_attn_scalar"] = head
    else:
        why = f"is missing, and query_pre_attn_scalar of heads of {head} is that of no published size"
        raise header.refusal(name, why)
    return {"attention.sliding_window", "attention.sliding_window_pattern", "attention.scale"}


def _gemma2(header: GgufHeader, values: dict[str, Any]) -> set[str]:
    for key, default in (("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)):
        values[key] = header.get(f"{header.architecture}.{key}", float, default) or None
    return _gemma(header, values, 2, 46) | {"attn_logit_softcapping", "final_logit_softcapping"}


def _gemma3(header: GgufHeader, values: dict[str, Any]) -> set[str]:
    key = "rope.freq_base_swa"
    theta = header.get(f"{header.architecture}.{key}", float, 10000.0)
    local = {"rope_type": "default", "rope_theta": theta}
    values["rope_parameters"] = {"full_attention": values["rope_parameters"], "sliding_attention": local}
    cap = header.get(f"{header.architecture}.final_logit_softcapping", float, 0.0)
    values["final_logit_softcapping"] = cap or None
    return _gemma(header, values, 6, 62) | {key, "final_logit_softcapping"}


def _phi3(header: GgufHeader, values: dict[str, Any]) -> set[str]:
    values["sliding_window"] = header.count("attention.sliding_window", 0, least=0) or None
    original = values["rope_parameters"].get("original_max_position_embeddings")
    values["original_max_position_embeddings"] = original or values["max_position_embeddings"]
    return {"attention.sliding_window"}


def _stablelm(header: GgufHeader, values: dict[str, Any]) -> set[str]:
    values["use_parallel_residual"] = "blk.0.ffn_norm.weight" not in header.tensors
    key = f"{header.architecture}.use_parallel_residual"
    if header.get(key, bool, values["use_parallel_residual"]) != values["use_parallel_residual"]:
        raise header.refusal(key, "does not go with the tensors blk.*.ffn_norm.weight")
    return {"use_parallel_residual"}


_ARCHITECTURES = {
    # Biases of queries and keys are in llama.cpp's order of rows or not, by the version of its converter.
    "llama": _Architecture("llama", _RMS, biases={"ffn_up.bias": "mlp_bias"}),
    "qwen2": _Architecture("qwen2", _RMS, fixed=_NO_WINDOW),
    "qwen3": _Architecture("qwen3", _RMS, fixed=_NO_WINDOW, biases={"attn_q.bias": "attention_bias"}),
    "qwen2moe": _Architecture(
        "qwen2_moe",
        _RMS,
        fixed={**_NO_WINDOW, "norm_topk_prob": False, "decoder_sparse_step": 1, "mlp_only_layers": []},
        more={**_EXPERTS, "expert_shared_feed_forward_length": ("shared_expert_intermediate_size", None)},
    ),
    "qwen3moe": _Architecture(
        "qwen3_moe",
        _RMS,
        fixed={**_NO_WINDOW, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
        more=_EXPERTS,
    ),
    "gemma2": _Architecture("gemma2", _RMS, scalings=(), finish=_gemma2),
    "gemma3": _Architecture("gemma3_text", _RMS, scalings=("linear",), finish=_gemma3),
    "phi3": _Architecture("phi3", _RMS, scalings=("longrope",), partial=True, finish=_phi3),
    "starcoder2": _Architecture(
        "starcoder2",
        ("attention.layer_norm_epsilon", "norm_epsilon"),
        fixed={"sliding_window": 4096},  # of all published sizes, and in no key
        biases={"attn_q.bias": "use_bias"},
    ),
    "nemotron": _Architecture(
        "nemotron",
        ("attention.layer_norm_epsilon", "norm_eps"),
        biases={"attn_q.bias": "attention_bias", "ffn_up.bias": "mlp_bias"},
        scalings=("linear",),
        partial=True,
    ),
    "stablelm": _Architecture(
        "stablelm",
        ("attention.layer_norm_epsilon", "layer_norm_eps"),
        biases={"attn_q.bias": "use_qkv_bias"},
        partial=True,
        finish=_stablelm,
    ),
}


def configuration_of(header: GgufHeader) -> Any:
    """The configuration that a GGUF file describes.

    Raises:
        CandidateError: something in the file shapes numbers and is not honoured; names the key.
    """
    name = header.architecture
    if name not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise header.refusal(
            "general.architecture", f"is not read from GGUF files, whose metadata are checked for {known}"
        )
    architecture = _ARCHITECTURES[name]
    values, keys = _sizes(header, architecture)
    values["rope_parameters"], rope_keys = rope_parameters(
        header,
        values["head_dim"],
        values["max_position_embeddings"],
        architecture.scalings,
        architecture.partial,
    )
    keys |= rope_keys
    if architecture.finish is not None:
        keys |= architecture.finish(header, values)
    _refuse_other_keys(header, keys, values)
    return AutoConfig.for_model(architecture.model_type, **values)


def _sizes(header: GgufHeader, architecture: _Architecture) -> tuple[dict[str, Any], set[str]]:
    """Fields of the configuration, and the keys that were read for them."""
    blocks = {name.split(".")[1] for name in header.tensors if name.startswith("blk.")}
    n_blocks = header.count("block_count")
    if len(blocks) != n_blocks:
        raise header.refusal(
            f"{header.architecture}.block_count", f"is not the number of blocks, {len(blocks)}"
        )
    if len(rows := header.tensors.get("token_embd.weight", ())) != 2:
        raise header.refusal("token_embd.weight", "is missing")
    n_rows, width = rows
    for key, actual in (("embedding_length", width), ("vocab_size", n_rows)):
        if header.count(key, actual) != actual:
            raise header.refusal(
                f"{header.architecture}.{key}", f"does not go with token_embd.weight: {actual}"
            )
    if (n_tokens := len(header.get("tokenizer.ggml.tokens", list, []))) > n_rows:
        raise header.refusal("token_embd.weight", f"has {n_rows} rows for {n_tokens} tokens")
    heads = header.count("attention.head_count")
    key = f"{header.architecture}.attention.head_count_kv"
    if header.architecture == "llama" and type(header.metadata.get(key)) is not int:
        # transformers would leave the rows of the queries and keys in llama.cpp's order.
        raise header.refusal(key, "is not one number, by which the weights could be put in order")
    head = header.count("attention.key_length", width // heads)
    if heads * head > max(max(shape) for shape in header.tensors.values()):
        raise header.refusal(f"{header.architecture}.attention.key_length", "is more than a tensor has rows")
    if header.count("attention.value_length", head) != head:
        raise header.refusal(
            f"{header.architecture}.attention.value_length", f"differs from key_length, {head}"
        )
    key, epsilon = architecture.epsilon
    values: dict[str, Any] = {
        "vocab_size": n_rows,
        "hidden_size": width,
        "num_hidden_layers": n_blocks,
        "intermediate_size": header.count("feed_forward_length", 0 if architecture.more else None),
        "num_attention_heads": heads,
        "num_key_value_heads": header.count("attention.head_count_kv", heads),
        "head_dim": head,
        "max_position_embeddings": header.count("context_length"),
        epsilon: header.get(f"{header.architecture}.{key}", float, math.nan),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        # Nothing is generated, and padding would only be left out of training.
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        **architecture.fixed,
    }
    if values[epsilon] < 0:
        raise header.refusal(f"{header.architecture}.{key}", "is negative")
    for more, (field_name, default) in architecture.more.items():
        values[field_name] = header.count(more, default)
    for tensor, field_name in architecture.biases.items():
        values[field_name] = f"blk.0.{tensor}" in header.tensors
    read = {"block_count", "embedding_length", "context_length", "feed_forward_length", key}
    read |= {f"attention.{name}" for name in ("head_count", "head_count_kv", "key_length", "value_length")}
    return values, read | architecture.more.keys()


def _refuse_other_keys(header: GgufHeader, keys: set[str], values: Mapping[str, Any]) -> None:
    """Keys of other names than an architecture's belong to the tools that wrote the file."""
    for key, value in header.metadata.items():
        space, _, name = key.partition(".")
        if space not in gguf.MODEL_ARCH_NAMES.values():
            continue
        if space == header.architecture and (
            name in keys | _HARMLESS or _changes_nothing(name, value, values)
        ):
            continue
        raise header.refusal(key, "may change the numbers and is not honoured")


def _changes_nothing(name: str, value: Any, values: Mapping[str, Any]) -> bool:
    if value in _NEUTRAL.get(name, ()):
        return True
    if name == "attention.sliding_window":
        return type(value) is int and value >= values["max_position_embeddings"]
    is_scale = name == "attention.scale" and isinstance(value, float)
    return is_scale and (value == 0 or math.isclose(value, values["head_dim"] ** -0.5, rel_tol=1e-6))
