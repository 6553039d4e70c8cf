"""Output head and statistics together, a block of rows at a time, in bounded memory.

Why the arithmetic is safe: with `m = max l` and `s = sum exp(l - m)`, the maximum itself contributes exp(0) = 1, so
`s >= 1` and `log s >= 0`; hence `logprob = (l[y] - m) - log s` and `top1_logprob = -log s` can never be positive, in
any precision. Sums run in fp32 whatever the dtype of the product. `exp(-inf) = 0`, and a masked entry's shifted logit is
raised to a finite number before it is multiplied with that 0, so masked entries contribute exactly nothing.
"""

import torch

from forecast.tokenstats.types import TokenStats

# Memory for the logits of one block and the temporaries of the reductions over them (about three fp32 copies).
DEFAULT_BUDGET_BYTES = 96 << 20


def token_stats(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
) -> TokenStats:
    """Exact full-vocabulary statistics of `softcap(logit_scale * (hidden @ head.T + bias))`.

    Args:
        hidden: [N, D] final hidden states at the positions that predict the scored tokens.
        head: [V, D] output matrix, rows of padding left out; same dtype as `hidden`.
        targets: [N] ids of the scored tokens, each below V.
        bias: [V] added to the logits before scaling.
        logit_scale: factor on the logits (Cohere's `logit_scale`, one over Granite's `logits_scaling`).
        softcap: `c` of `c * tanh(logits / c)` (Gemma 2's final soft-cap).
        budget_bytes: bound on the memory used beyond inputs and outputs.

    Returns:
        TokenStats of [N] tensors on the device of `hidden`. Logits with NaN or +inf give NaN; callers check.

    Raises:
        ValueError: shapes that do not fit, or a target outside the vocabulary.
    """
    n, d = hidden.shape
    v = head.shape[0]
    if head.shape[1] != d or targets.shape != (n,):
        raise ValueError(f"hidden [{n}, {d}], head {list(head.shape)} and targets {list(targets.shape)} do not fit")
    if n and (int(targets.min()) < 0 or int(targets.max()) >= v):
        raise ValueError(f"a target lies outside the vocabulary of {v}")
    result = TokenStats(
        logprob=torch.empty(n, dtype=torch.float32, device=hidden.device),
        entropy=torch.empty(n, dtype=torch.float32, device=hidden.device),
        rank=torch.empty(n, dtype=torch.int32, device=hidden.device),
        ties=torch.empty(n, dtype=torch.int32, device=hidden.device),
        top1_logprob=torch.empty(n, dtype=torch.float32, device=hidden.device),
    )
    rows = max(1, budget_bytes // (3 * 4 * v))
    for start in range(0, n, rows):
        block = slice(start, start + rows)
        logits_BV = torch.nn.functional.linear(hidden[block], head, bias).float()
        if logit_scale != 1.0:
            logits_BV *= logit_scale
        if softcap is not None:
            logits_BV.div_(softcap).tanh_().mul_(softcap)
        for out, value in zip(result, _block_stats(logits_BV, targets[block]), strict=True):
            out[block] = value
    return result


def _block_stats(logits_BV: torch.Tensor, targets_B: torch.Tensor) -> TokenStats:
    target_B1 = logits_BV.gather(1, targets_B[:, None].long())
    rank_B = (logits_BV > target_B1).sum(dim=1).add_(1)
    ties_B = (logits_BV == target_B1).sum(dim=1).sub_(1)
    max_B1 = logits_BV.max(dim=1, keepdim=True).values
    shifted_BV = logits_BV.sub_(max_B1)
    exp_BV = shifted_BV.exp()
    sum_B = exp_BV.sum(dim=1)
    weighted_B = exp_BV.mul_(shifted_BV.clamp_(min=-1e30)).sum(dim=1)
    log_sum_B = sum_B.log()
    return TokenStats(
        logprob=(target_B1 - max_B1).squeeze(1) - log_sum_B,
        # -sum p log p = log s - (sum e (l - m)) / s
        entropy=(log_sum_B - weighted_B / sum_B).clamp_(min=0),
        rank=rank_B,
        ties=ties_B,
        top1_logprob=-log_sum_B,
    )
