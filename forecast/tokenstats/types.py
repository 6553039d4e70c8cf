"""The record that statistics come in."""

from typing import NamedTuple

import torch


class TokenStats(NamedTuple):
    """Statistics of N tokens, each tensor of shape [N]; logits `l` [V], `p = softmax(l)`, target token `y`.

    logprob: `l[y] - logsumexp(l)`, nats, <= 0, float32.
    entropy: `-sum p log p` with `0 log 0 = 0`, nats, 0..log V, float32.
    rank: `1 + #{v : l[v] > l[y]}`, strictly greater, best is 1, int32.
    ties: `#{v != y : l[v] == l[y]}`, int32.
    top1_logprob: `max l - logsumexp(l)`, nats, <= 0, float32.
    """

    logprob: torch.Tensor
    entropy: torch.Tensor
    rank: torch.Tensor
    ties: torch.Tensor
    top1_logprob: torch.Tensor
