"""Compressed variants of a loaded model: weight-only rounding and depth pruning, for any decoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from forecast.config.schema import Quantize
from forecast.errors import CandidateError
from forecast.inputs.models.resolve import Candidate


def make_variant(model: Any, candidate: Candidate, device: torch.device) -> None:
    """Turn a loaded model into the candidate's variant, in place, and move it to the device.

    Raises:
        CandidateError: its settings do not fit the model; names the candidate.
    """
    with named_candidate(candidate.name):
        if candidate.settings.drop_layers:
            drop_layers(model, candidate.settings.drop_layers)
        model.to(device)
        if candidate.settings.quantize is not None:
            quantize_weights(model, candidate.settings.quantize)


@contextmanager
def named_candidate(name: str) -> Iterator[None]:
    """Within the block errors begin with the candidate's name."""
    try:
        yield
    except CandidateError as error:
        raise CandidateError(f"candidate {name!r}: {error}") from None


def body_and_head(model: Any) -> tuple[Any, Any]:
    """The model without its output head, and the head.

    Raises:
        CandidateError: it is not made of these two.
    """
    body, head = model.base_model, model.get_output_embeddings()
    if body is model or head is None:
        raise CandidateError(f"{type(model).__name__} is not a body with an output head")
    return body, head


def decoder_layers(model: Any) -> tuple[nn.Module, str, nn.ModuleList]:
    """The stack of decoder layers: its parent module, attribute name and the list itself.

    Raises:
        CandidateError: no stack with as many layers as the model's configuration says.
    """
    config = model.config.get_text_config()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == config.num_hidden_layers:
                return module, name, child
    raise CandidateError(
        f"no stack of {config.num_hidden_layers} decoder layers found in {type(model).__name__}"
    )


def drop_layers(model: Any, which: int | tuple[int, ...]) -> None:
    """Remove decoder layers in place.

    Args:
        which: indices, or a number n: the n layers just before the last one. Deep layers but the last change
            the residual stream least (Gromov et al. 2024, arXiv 2403.17887).

    Raises:
        CandidateError: an index that the model does not have, or none would be left.
    """
    parent, name, layers = decoder_layers(model)
    total = len(layers)
    gone = set(range(total - 1 - which, total - 1)) if isinstance(which, int) else set(which)
    if len(gone) >= total or any(not 0 <= i < total for i in gone):
        fix = f"at most {total - 1}" if isinstance(which, int) else f"indices of 0 to {total - 1}, not all"
        raise CandidateError(f"drop_layers {which} does not fit a model of {total} layers; drop {fix}")
    kept = [i for i in range(total) if i not in gone]
    setattr(parent, name, nn.ModuleList(layers[i] for i in kept))
    for index, layer in enumerate(getattr(parent, name)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    config = model.config.get_text_config()
    for key, value in vars(config).items():  # layer_types, no_rope_layers and the like: one entry per layer
        if "layer" in key and isinstance(value, list) and len(value) == total:
            setattr(config, key, [value[i] for i in kept])
    config.num_hidden_layers = len(kept)


def quantize_weights(model: Any, settings: Quantize) -> None:
    """Round the weights of the decoder's linear layers in place; embeddings, norms, biases and head stay.

    Symmetric round-to-nearest: each group of `group_size` inputs of each output shares the scale
    `max |w| / (2^(bits-1) - 1)`.

    Raises:
        CandidateError: most of the decoder's weights are not in linear layers (fused experts, for example).
    """
    check_roundable(model)
    for module in decoder_layers(model)[2].modules():
        if isinstance(module, nn.Linear):
            module.weight.data = round_to_nearest(module.weight.data, settings)
        elif isinstance(module, Conv1D):  # GPT-2 keeps [inputs, outputs]
            module.weight.data = round_to_nearest(module.weight.data.T, settings).T.contiguous()


def check_roundable(model: Any) -> None:
    """Raises: CandidateError: most of the decoder's weights are not in linear layers."""
    _, _, layers = decoder_layers(model)
    linear = (module for module in layers.modules() if isinstance(module, nn.Linear | Conv1D))
    done = sum(module.weight.numel() for module in linear)
    total = sum(p.numel() for p in layers.parameters())
    if done < 0.9 * total:
        raise CandidateError(
            f"quantize rounds linear layers, but these hold only {done:,} of the decoder's {total:,} "
            f"parameters in {type(model).__name__}; remove quantize"
        )


def round_to_nearest(weight: torch.Tensor, settings: Quantize) -> torch.Tensor:
    """The rounded weight [outputs, inputs], in its own dtype; the arithmetic is fp32."""
    outputs, inputs = weight.shape
    size = min(settings.group_size, inputs)
    padded = nn.functional.pad(weight.float(), (0, -inputs % size))
    groups = padded.view(outputs, -1, size)
    scale = groups.abs().amax(dim=2, keepdim=True) / (2 ** (settings.bits - 1) - 1)
    rounded = torch.where(scale > 0, (groups / scale).round() * scale, 0.0)
    return rounded.view(outputs, -1)[:, :inputs].to(weight.dtype)
