"""Tensor-parallel heads: each rank holds a stretch of the vocabulary, and no logit leaves its rank.

Three things are shared: the targets' products, which only the ranks that own them know (all-reduce max, once
for each block of tokens), the maxima, and the sums and counts moved to the common maximum. All ranks end
with the same statistics.

Legend: N tokens, D hidden size, V vocabulary, S rows of a rank's stretch of the head, B tokens of a block.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist

from forecast.tokenstats.dispatch import (
    DEFAULT_BUDGET_BYTES,
    Path,
    block_shape,
    check_shapes,
    check_targets,
    choose_path,
    reduce_block,
)
from forecast.tokenstats.head_products import block_rows, product_blocks, product_dtype
from forecast.tokenstats.online_softmax import Partials, concatenate, finish, merge, moved_to, nothing
from forecast.tokenstats.types import LogitTransform, TokenStats


@torch.no_grad()
def sharded_token_stats(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    *,
    start: int,
    vocab_size: int,
    bias: torch.Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    path: Path = "auto",
    group: dist.ProcessGroup | None = None,
) -> TokenStats:
    """`token_stats` where this rank holds rows [start, start + S) of the head; every rank calls it.

    Args:
        hidden: [N, D], the same on every rank.
        head: [S, D], this rank's rows; stretches may be uneven, and empty.
        targets: [N] ids of the whole vocabulary, the same on every rank.
        start: id of the first of these rows.
        vocab_size: entries of the real vocabulary; rows whose id is `vocab_size` or more are padding.
        bias: [S] for these rows.
        logit_scale, softcap, budget_bytes: as for `token_stats`; the budget is each rank's own.
        path: as for `token_stats`, without "triton_fused".
        group: default: all processes.

    Returns:
        TokenStats of [N] tensors, the same on every rank.

    Raises:
        ValueError: shapes, dtypes, targets or a path that do not fit, or stretches that overlap or leave
            gaps. What only one rank sees (its own head's shape) is raised there alone: the others wait.
    """
    check_shapes(hidden, head, targets, bias)
    check_targets(targets, vocab_size)
    if path == "triton_fused":
        raise ValueError('path "triton_fused" cannot share its targets: use path "triton"')
    path = choose_path(path, hidden.device)
    stop = min(start + len(head), vocab_size)
    size = max(0, stop - start)
    head, bias = head[:size], None if bias is None else bias[:size]
    dtype = product_dtype(hidden, head)
    affordable, tile_rows = block_shape(path, size, dtype, hidden.device, budget_bytes)
    # Agreed on after `block_rows`, which may answer otherwise on another rank's processor.
    own_rows = block_rows(hidden, head, affordable)
    agreed = _agreed_rows(start, size, own_rows, vocab_size, hidden.device, group)
    transform = LogitTransform(logit_scale, softcap)
    own_N = (targets >= start) & (targets < start + size)
    parts, target_logits = [nothing(0, hidden.device)], [torch.empty(0, device=hidden.device)]
    for rows, product_BS in product_blocks(hidden, head, bias, agreed, budget_bytes // 4):
        raw_B = _owned(product_BS, targets[rows] - start, own_N[rows])
        dist.all_reduce(raw_B, dist.ReduceOp.MAX, group)
        part, target_B = reduce_block(product_BS, raw_B, transform, path, tile_rows)
        parts.append(part)
        target_logits.append(target_B)
    whole = _all_combined(concatenate(parts), group)
    return finish(whole, torch.cat(target_logits), vocab_size)


def stats_of_shards(
    shards: Sequence[torch.Tensor],
    targets: torch.Tensor,
    *,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    tile_rows: int = 64,
) -> TokenStats:
    """The same in one process, from products [N, S_i] that lie in order of the vocabulary and stay whole."""
    n, vocab_size = len(targets), sum(shard.shape[1] for shard in shards)
    check_targets(targets, vocab_size)
    raw_N = torch.full((n,), -math.inf, device=targets.device)
    start = 0
    for shard in shards:
        own_N = (targets >= start) & (targets < start + shard.shape[1])
        raw_N = torch.where(own_N, _owned(shard, targets - start, own_N), raw_N)
        start += shard.shape[1]
    whole, target_N = nothing(n, targets.device), raw_N
    for shard in shards:
        part, target_N = reduce_block(shard, raw_N, LogitTransform(logit_scale, softcap), "torch", tile_rows)
        whole = merge(whole, part)
    return finish(whole, target_N, vocab_size)


def _owned(product_BS: torch.Tensor, local_B: torch.Tensor, own_B: torch.Tensor) -> torch.Tensor:
    """fp32 products of the targets that stand in this stretch, -inf for the others."""
    if product_BS.shape[1] == 0:
        return torch.full(local_B.shape, -math.inf, device=product_BS.device)
    index_B1 = torch.where(own_B, local_B, 0)[:, None].long()
    return product_BS.gather(1, index_B1).squeeze(1).float().masked_fill(~own_B, -math.inf)


def _agreed_rows(
    start: int,
    size: int,
    own_rows: int,
    vocab_size: int,
    device: torch.device,
    group: dist.ProcessGroup | None,
) -> int:
    """The rows of a block that every rank can afford: blocks are shared, so they must be the same.

    Raises:
        ValueError: the stretches do not make up the vocabulary; raised on every rank.
    """
    mine = torch.tensor([start, size, own_rows], device=device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyone, mine, group)
    ranks = [tuple(one.tolist()) for one in everyone]
    covered = 0
    for first, length, _ in sorted(rank for rank in ranks if rank[1]):
        if first != covered:
            break
        covered += length
    if covered != vocab_size:
        stretches = ", ".join(f"[{first}, {first + length})" for first, length, _ in ranks)
        raise ValueError(
            f"the ranks hold {stretches} of the vocabulary; together they must hold each of its {vocab_size} "
            "entries once"
        )
    return min(rows for _, _, rows in ranks)


def _all_combined(own: Partials, group: dist.ProcessGroup | None) -> Partials:
    """Merge over the ranks. Sums and counts travel together, in fp64, which holds both exactly enough."""
    maximum = own.max.clone()
    dist.all_reduce(maximum, dist.ReduceOp.MAX, group)
    sums = torch.stack([t.double() for t in (*moved_to(maximum, own), own.greater, own.equal)])
    dist.all_reduce(sums, dist.ReduceOp.SUM, group)
    return Partials(maximum, sums[0].float(), sums[1].float(), sums[2].int(), sums[3].int())
