"""The rotary angles that a GGUF file describes, in the terms of transformers."""

from collections.abc import Collection
from typing import Any

from forecast.engines.gguf_weights import divisors
from forecast.inputs.models.gguf import GgufHeader


def rope_parameters(
    header: GgufHeader, head: int, context: int, scalings: Collection[str], partial: bool
) -> tuple[dict[str, Any], set[str]]:
    """The field `rope_parameters` of a configuration, and the keys that were read for it.

    Args:
        head: dimensions of an attention head.
        context: the longest text of the model, in tokens.
        scalings: kinds of scaling that transformers has for the architecture.
        partial: whether it may rotate only a part of each head.

    Raises:
        CandidateError: the file asks for something else; names the key or the tensor.
    """
    prefix = f"{header.architecture}.rope."
    rotated = header.count("rope.dimension_count", head)
    if rotated != head and not partial:
        raise header.refusal(f"{prefix}dimension_count", f"is not the size of a head, {head}")
    rope: dict[str, Any] = {"rope_theta": header.get(f"{prefix}freq_base", float, 10000.0)}
    if partial:
        rope["partial_rotary_factor"] = rotated / head
    original = header.count("rope.scaling.original_context_length", context)
    factor = (
        header.get(f"{prefix}scaling.factor", float, header.get(f"{prefix}scale_linear", float, 1.0)) or 1.0
    )
    attention = header.get(f"{prefix}scaling.attn_factor", float, 1.0)
    for key, value in (
        ("freq_base", rope["rope_theta"]),
        ("scaling.factor", factor),
        ("scaling.attn_factor", attention),
    ):
        if value <= 0:
            raise header.refusal(f"{prefix}{key}", "is not positive")
    factors = [f"rope_factors_{size}.weight" for size in ("short", "long")]
    has_factors = not header.tensors.keys().isdisjoint(factors)

    kind = header.get(f"{prefix}scaling.type", str, "longrope" if has_factors else "linear")
    if kind == "none" or (kind == "linear" and factor == 1):
        kind = "default"
    if kind not in ("default", *scalings) or has_factors != (kind == "longrope"):
        key = next(
            k
            for k in (f"{prefix}scaling.type", f"{prefix}scaling.factor", *factors, prefix)
            if k in header.metadata or k in header.tensors or k == prefix
        )
        raise header.refusal(key, "scales positions in a way that is not honoured for this architecture")
    needed = {"yarn": ("original_context_length",), "longrope": ("original_context_length", "attn_factor")}
    for key in needed.get(kind, ()):
        if f"{prefix}scaling.{key}" not in header.metadata:
            raise header.refusal(f"{prefix}scaling.{key}", f"is missing, without which {kind} is not known")
    if attention != 1 and kind != "longrope":
        raise header.refusal(f"{prefix}scaling.attn_factor", "is not honoured")
    keys = {"dimension_count", "freq_base", "scale_linear"}
    keys |= {f"scaling.{key}" for key in ("type", "factor", "attn_factor", "original_context_length")}

    if "rope_freqs.weight" in header.tensors:
        if header.architecture != "llama" or kind not in ("default", "linear"):
            raise header.refusal("rope_freqs.weight", "is not honoured beside the other scaling of positions")
        # A divisor for each angle, which is what longrope has, too.
        values = [value * factor for value in divisors(header, "rope_freqs.weight", rotated // 2)]
        rope |= {"short_factor": values, "long_factor": values}
        kind, attention, original = "longrope", 1.0, context
    elif kind == "longrope":
        for tensor, field in zip(factors, ("short_factor", "long_factor"), strict=True):
            rope[field] = divisors(header, tensor, rotated // 2)
    elif kind == "yarn":
        for side, default in (("fast", 32.0), ("slow", 1.0)):
            rope[f"beta_{side}"] = header.get(f"{prefix}scaling.yarn_beta_{side}", float, default)
            keys.add(f"scaling.yarn_beta_{side}")
    rope["rope_type"] = kind
    if kind == "longrope":
        rope |= {"factor": context / original, "attention_factor": attention}
    elif kind != "default":
        rope["factor"] = factor
    if kind in ("longrope", "yarn"):
        rope["original_max_position_embeddings"] = original
    return rope, {f"rope.{key}" for key in keys}
