"""Matrix products in fp32 on CPUs, by the library that is fast there.

torch gives fp32 products to MKL, which on AMD's processors reaches less than half of what they can do;
oneDNN, which torch carries as well and uses for bfloat16, reaches most of it. AMD EPYC 9005, one thread,
torch 2.13, GFLOP/s of MKL and oneDNN: 512 x 576 x 1536: 87 and 184; 256 x 576 x 49152: 67 and 152;
512 x 2048 x 8192: 89 and 210; 8 x 576 x 1536: 61 and 93; a single row: 30 and 28. SmolLM2-135M on GSM8K
solutions: 327 tokens/s with MKL, 541 with oneDNN. Against fp64 both are off by rounding.
"""

import functools
from pathlib import Path
from types import MethodType

import torch
from torch import nn


def linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`inputs @ weight.T + bias`: inputs [..., D], weight [V, D], bias [V]; without gradients."""
    if not prefers_onednn(inputs, weight):
        return nn.functional.linear(inputs, weight, bias)
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return product


def prefers_onednn(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a product goes to oneDNN."""
    return (
        inputs.dtype == weight.dtype == torch.float32
        and inputs.device.type == weight.device.type == "cpu"
        and inputs.numel() > 0
        and _onednn_is_faster()
    )


def speed_up(model: nn.Module) -> None:
    """Let the linear layers of a model that is on its device, and needs no gradients, use `linear`."""
    for module in model.modules():
        if type(module) is nn.Linear and prefers_onednn(module.weight, module.weight):
            # An attribute of the instance: what others do with the class stays theirs.
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]


def _forward(self: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    return linear(inputs, self.weight, self.bias)


@functools.cache
def _onednn_is_faster() -> bool:
    """By the processor's maker, not by a stopwatch: the same machine must give the same bits every time."""
    try:
        maker = "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    if not (maker and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return False
    inputs, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    try:  # not part of torch's public interface
        product = torch.ops.mkldnn._linear_pointwise(inputs, weight, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool(torch.equal(product, inputs @ weight.T))
