"""The definitions of method section 1 written down plainly in fp64; what the fast path is compared with."""

import torch

from forecast.tokenstats.types import TokenStats


def reference_stats(logits: torch.Tensor, targets: torch.Tensor) -> TokenStats:
    """Statistics of given logits.

    Args:
        logits: [N, V], any floating dtype; -inf marks a masked entry, which contributes nothing.
        targets: [N] token ids.
    """
    x_NV = logits.double()
    x_N = x_NV.gather(1, targets[:, None].long()).squeeze(1)
    p_NV = torch.softmax(x_NV, dim=1)
    log_p_NV = torch.log_softmax(x_NV, dim=1)
    known = ~log_p_NV.isnan().any(dim=1)
    return TokenStats(
        logprob=log_p_NV.gather(1, targets[:, None].long()).squeeze(1),
        entropy=-torch.where(p_NV == 0, 0.0, p_NV * log_p_NV).sum(dim=1),
        rank=known * (1 + (x_NV > x_N[:, None]).sum(dim=1)),
        ties=known * ((x_NV == x_N[:, None]).sum(dim=1) - 1),
        top1_logprob=log_p_NV.max(dim=1).values,
        top1_id=torch.where(known, _first_true(x_NV == x_NV.amax(dim=1, keepdim=True)), -1),
    )


def _first_true(mask_NV: torch.Tensor) -> torch.Tensor:
    """Index [N] of the first true entry of each row; 0 where there is none."""
    return (mask_NV.cumsum(dim=1) == 0).sum(dim=1) * mask_NV.any(dim=1)
