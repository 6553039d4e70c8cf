"""Whether an output head, and what a family does to its logits, is understood: by trying it out."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# Both sides come from the same hidden states, so they differ by the rounding of logits alone.
HEAD_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-2}
# Caps in use are 15 to 50: at five times the cap a logit is a fifth of itself.
_LARGE_LOGIT = 256.0


def head_difference(
    model: Any,
    ids_1L: torch.Tensor,
    product: Callable[..., torch.Tensor],
    capped: Callable[..., torch.Tensor],
) -> float:
    """How far our logits are from the model's at most, relative to the largest.

    Once as they are, and once with what the head reads so enlarged that a soft-cap, which leaves small logits
    alone, shows; not where a family takes the head's weight past the module, where nothing can be enlarged.

    Args:
        ids_1L: [1, L] token ids to read.
        product: our logits [1, L, V] before any soft-cap, of hidden states [1, L, D].
        capped: what we make of these.
    """
    hidden: list[torch.Tensor] = []
    factor, read, off = 1.0, [], []

    def enlarged(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        read.append(len(inputs))
        return tuple(one * factor for one in inputs)

    watch = model.base_model.register_forward_hook(lambda _, __, output: hidden.append(output[0]))
    enlarge = model.get_output_embeddings().register_forward_pre_hook(enlarged)
    try:
        for size in (None, _LARGE_LOGIT):
            if size is not None:
                if read != [1]:
                    break
                largest = product(hidden[-1]).nan_to_num(0, 0, 0).abs().max().item()
                factor = 2.0 ** round(math.log2(size / max(largest, 1e-3)))  # rounds as before
            hidden.clear()
            theirs = model(input_ids=ids_1L, use_cache=False).logits.float()
            if not hidden:  # a family whose whole model goes past its body
                model.base_model(input_ids=ids_1L, use_cache=False)
            ours = capped(product(hidden[-1] * factor))
            off.append(relative_difference(ours, theirs[..., : ours.shape[-1]]))
    finally:
        watch.remove()
        enlarge.remove()
    return max(off)


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference where both are finite, relative to the largest value of `theirs` there."""
    finite = torch.isfinite(ours) & torch.isfinite(theirs)
    if not bool(finite.any()):
        return 0.0
    ours, theirs = ours[finite].float(), theirs[finite].float()
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)).item()
