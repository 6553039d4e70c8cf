"""What reading costs a body on a device, against which sharing beginnings is weighed."""

from typing import Any

import torch
from torch import nn

from forecast.engines.prefix_tree import Costs

# What sharing beginnings has to be weighed against, see `prefix_tree.Costs`: how much slower
# than a matrix product attention runs per operation, and what a further call of the body costs, in tokens.
# AMD EPYC 9005, one thread, torch 2.13, 512 tokens, heads of 64: products 190 (fp32, oneDNN) and 485 (bf16)
# GFLOP/s, attention with a mask 87 and 84. (GPUs: guessed.)
_ATTENTION_SLOWNESS = {("cpu", torch.float32): 2.2, ("cpu", torch.bfloat16): 5.8}
_CALL_TOKENS = {"cpu": 24, "cuda": 500}


def reading_costs(body: nn.Module, text_config: Any, device: torch.device, longest: float) -> Costs:
    """Of a body whose rows have at most `longest` tokens.

    Attention takes four operations per pair of tokens and channel, all else two per weight and token.
    """
    layers = text_config.num_hidden_layers
    embedded = sum(m.weight.numel() for m in body.modules() if isinstance(m, nn.Embedding))
    weights = sum(p.numel() for p in body.parameters()) - embedded
    slowness = _ATTENTION_SLOWNESS.get((device.type, next(body.parameters()).dtype), 4.0)
    return Costs(
        pair=slowness * 4 * text_config.hidden_size * layers / (2 * max(weights, 1)),
        call=_CALL_TOKENS.get(device.type, 100),
        longest=longest,
    )
