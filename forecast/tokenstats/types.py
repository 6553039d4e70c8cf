"""The records that statistics come in, and what lies between a product and its logits."""

import math
from typing import NamedTuple

import torch


class TokenStats(NamedTuple):
    """Statistics of N tokens, each tensor of shape [N]; logits `l` [V], `p = softmax(l)`, target token `y`.

    logprob: `l[y] - logsumexp(l)`, nats, <= 0, float32.
    entropy: `-sum p log p` with `0 log 0 = 0`, nats, 0..log V, float32.
    rank: `1 + #{v : l[v] > l[y]}`, strictly greater, best is 1, int32.
    ties: `#{v != y : l[v] == l[y]}`, int32.
    top1_logprob: `max l - logsumexp(l)`, nats, <= 0, float32.
    top1_id: the first choice, `argmax l`; of equally large ones the lowest id, int32.

    Where the logits are no distribution the nats are NaN, rank and ties 0, and top1_id -1.
    """

    logprob: torch.Tensor
    entropy: torch.Tensor
    rank: torch.Tensor
    ties: torch.Tensor
    top1_logprob: torch.Tensor
    top1_id: torch.Tensor


class LogitTransform(NamedTuple):
    """What a model does to the product of hidden states and head: `softcap(scale * product)`.

    scale: positive factor (Cohere's `logit_scale`, 1 / Granite's `logits_scaling`).
    softcap: `c` of `c * tanh(x / c)` (Gemma 2's final soft-cap), None where there is none.
    """

    scale: float = 1.0
    softcap: float | None = None

    def apply_(self, logits: torch.Tensor) -> torch.Tensor:
        """Transform fp32 values in place. A value's result does not depend on where it stands."""
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            infinite = logits.isinf()  # the cap would hide that these are no numbers
            logits.div_(self.softcap).tanh_().mul_(self.softcap).masked_fill_(infinite, math.nan)
        return logits
