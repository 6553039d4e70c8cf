"""What is known of a token's distribution after a part of the vocabulary: mergeable, in any order.

With `m = max l`, `s = sum exp(l - m)` and `w = sum (l - m) exp(l - m)` over a part, two parts merge by moving
both to the larger maximum `M`: with `d = m - M <= 0`, `s' = e^d s` and `w' = e^d (w + d s)`, and then adding.
Counts add. Of ids with the largest logit the lowest stays, wherever the vocabulary is cut.

Why the arithmetic is safe: a part whose entries are all masked (-inf) has m = -inf and s = w = 0; its `d`
is raised to a finite number, so it contributes exactly nothing. NaN and +inf make `s` NaN where they are met,
and NaN survives every sum. In the end the maximum itself has contributed exp(0) = 1, so `s >= 1` up to
rounding, which `finish` holds it to: hence `log s >= 0`, and neither `logprob = (l[y] - m) - log s` nor
`top1_logprob = -log s` can be positive.

Legend: N tokens, P parts.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from forecast.tokenstats.types import TokenStats

# exp() of anything below is 0 in fp32; finite, so that its product with that 0 is 0.
EXP_IS_ZERO = -1e4
NO_ID = 2**31 - 1  # above all ids, so that the lowest of several is one that exists


class Partials(NamedTuple):
    """State of N tokens after a part of the vocabulary; each [N], or [P, N] for several parts.

    max: largest logit of the part, -inf if all are masked, float32.
    sum_exp: `sum exp(l - max)`, float32.
    weighted: `sum (l - max) exp(l - max)`, nats, float32.
    greater: entries with a logit strictly greater than the target's, int32.
    equal: entries with the target's logit, the target itself included, int32.
    top1: lowest id, in the whole vocabulary, of those with the largest logit; NO_ID where all are masked,
        int32.
    """

    max: torch.Tensor
    sum_exp: torch.Tensor
    weighted: torch.Tensor
    greater: torch.Tensor
    equal: torch.Tensor
    top1: torch.Tensor


def nothing(n: int, device: torch.device) -> Partials:
    """The state of `n` tokens before anything was seen; merging with it changes nothing."""
    zeros = torch.zeros(n, device=device)
    counts = torch.zeros(n, dtype=torch.int32, device=device)
    no_id = torch.full_like(counts, NO_ID)
    return Partials(torch.full_like(zeros, -math.inf), zeros, zeros.clone(), counts, counts.clone(), no_id)


def combine(parts: Partials) -> Partials:
    """Merge over the first axis: [P, N] -> [N]."""
    maximum = parts.max.amax(dim=0)
    down = torch.where(parts.max == maximum, 0.0, parts.max - maximum).clamp(min=EXP_IS_ZERO)
    factor = down.exp()
    return Partials(
        max=maximum,
        sum_exp=(parts.sum_exp * factor).sum(dim=0),
        weighted=((parts.weighted + down * parts.sum_exp) * factor).sum(dim=0),
        greater=parts.greater.sum(dim=0, dtype=torch.int32),
        equal=parts.equal.sum(dim=0, dtype=torch.int32),
        top1=torch.where(parts.max == maximum, parts.top1, NO_ID).amin(dim=0),
    )


def concatenate(parts: Sequence[Partials]) -> Partials:
    """States of different tokens, one behind the other."""
    return Partials(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def finish(whole: Partials, target_N: torch.Tensor, vocab_size: int) -> TokenStats:
    """Statistics once every entry of the vocabulary was seen.

    Args:
        whole: [N] state after all parts.
        target_N: fp32 logits of the targets, the very values that were counted against.
        vocab_size: V, which bounds the entropy.

    Returns:
        TokenStats; NaN in logprob, entropy and top1_logprob where a logit was NaN or +inf, or where all were
        masked; then rank and ties are 0 and top1_id is -1, which no token with a distribution has.
    """
    seen = whole.max > -math.inf
    sum_exp = torch.where(seen, whole.sum_exp.clamp(min=1.0), math.nan)
    log_sum = sum_exp.log()
    known = ~log_sum.isnan()
    return TokenStats(
        logprob=(target_N - whole.max) - log_sum,
        # -sum p log p = log s - w / s; rounding must not carry it out of its range
        entropy=(log_sum - whole.weighted / sum_exp).clamp(0, math.log(vocab_size)),
        rank=(whole.greater + 1) * known,
        ties=(whole.equal - 1) * known,
        top1_logprob=-log_sum,
        top1_id=torch.where(known, whole.top1, -1),
    )
