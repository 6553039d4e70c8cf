# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""Triton: product and statistics in one kernel; logits never reach memory.

A program takes a block of rows and a stretch of the vocabulary and goes through it tile by tile: product,
rounding to the product's dtype (so that the numbers are those of a model that keeps its logits in it),
transform, reduction. The states of the stretches are merged at the end, so that few rows still fill the GPU.

The counts compare with the target's logit, which must be known beforehand and equal the one that its tile
will compute to the last bit, or the target would not even tie with itself. Any other way of computing it (a
dot product, a tile of gathered rows) sums in an order of its own. Therefore a first launch of *the same
compiled kernel* goes, for each block of rows, through just those tiles that hold a target of the block, and
stores the targets' logits: same instructions, same rows, same columns, same bits. `find` tells the launches
apart at run time and is kept from being specialised, so there is one binary. The first launch costs at most
R * C / V of the second, less where targets share tiles.

Whether this beats products by cuBLAS with `triton_logits` is not measured; "auto" does not take it.

Legend: N tokens, D hidden size, V vocabulary; R rows, C columns, K inner steps of a tile; P stretches.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from forecast.tokenstats.head_products import product_dtype
from forecast.tokenstats.online_softmax import Partials, combine, nothing
from forecast.tokenstats.triton_logits import processors
from forecast.tokenstats.triton_reduce import take_in, transformed
from forecast.tokenstats.types import LogitTransform

_PROGRAMS_PER_PROCESSOR = 4
_TRITON_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class Tile(NamedTuple):
    """Shape of a tile, powers of two from 16 on, and how it is launched."""

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int


# Not measured on a GPU. Compiled for compute capability 8.0 and 9.0 a thread takes 127 to 210 registers and
# spills at most 16 bytes; with 4 warps it was 255 and up to 80 bytes.
HALF_TILE = Tile(64, 128, 64, 8, 3)
FLOAT_TILE = Tile(64, 64, 32, 8, 3)


def product_partials(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    bias: torch.Tensor | None,
    transform: LogitTransform,
    *,
    tile: Tile | None = None,
    stretches: int | None = None,
) -> tuple[Partials, torch.Tensor]:
    """State of N tokens after the whole head, and the logits [N] of their targets.

    Args:
        hidden: [N, D]; head: [V, D]; targets: [N]; bias: [V] or None. Dtypes float32, bfloat16 or float16,
            also mixed.
        transform: applied to the products, in fp32.
        tile: default by dtype.
        stretches: parts of the vocabulary that are reduced apart; default: enough to fill the GPU.

    Raises:
        ValueError: a dtype that the kernel does not know.
    """
    (n, d), v = hidden.shape, len(head)
    dtype = product_dtype(hidden, head)
    if dtype not in _TRITON_DTYPES:
        raise ValueError(f'path "triton_fused" knows no products in {dtype}; use path "torch"')
    tile = tile or (FLOAT_TILE if dtype == torch.float32 else HALF_TILE)
    tiles, row_blocks = triton.cdiv(v, tile.columns), triton.cdiv(n, tile.rows)
    if stretches is None:
        stretches = triton.cdiv(_PROGRAMS_PER_PROCESSOR * processors(hidden.device), max(row_blocks, 1))
    stretches = max(1, min(stretches, tiles))
    target_N = torch.empty(n, device=hidden.device)
    parts_PN = Partials(*(t.repeat(stretches, 1) for t in nothing(n, hidden.device)))
    if n == 0 or v == 0:
        return combine(parts_PN), target_N
    targets = targets.int().contiguous()
    bias = None if bias is None else bias.to(dtype).contiguous()
    for find in (1, 0):
        _reduce_products[(row_blocks, tile.rows if find else stretches)](
            hidden,
            head,
            hidden if bias is None else bias,
            targets,
            target_N,
            *parts_PN,
            n,
            v,
            d,
            hidden.stride(0),
            hidden.stride(1),
            head.stride(0),
            head.stride(1),
            triton.cdiv(tiles, stretches),
            find,
            transform.scale,
            transform.softcap or 0.0,
            HAS_BIAS=bias is not None,
            HAS_SCALE=transform.scale != 1.0,
            HAS_SOFTCAP=transform.softcap is not None,
            PRODUCT=_TRITON_DTYPES[dtype],
            R=tile.rows,
            C=tile.columns,
            K=tile.inner,
            num_warps=tile.warps,
            num_stages=tile.stages,
            enable_fp_fusion=False,
        )
    return combine(parts_PN), target_N


@triton.jit(do_not_specialize=["find"])
def _reduce_products(
    hidden,
    head,
    bias,
    targets,
    target_logits,
    max_out,
    sum_out,
    weighted_out,
    greater_out,
    equal_out,
    top1_out,
    n,
    v,
    d,
    hidden_stride,
    hidden_inner,
    head_stride,
    head_inner,
    tiles_per_stretch,
    find,
    scale,
    softcap,
    HAS_BIAS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    PRODUCT: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
):
    lane_R = tl.arange(0, R)
    row_R = tl.program_id(0).to(tl.int64) * R + lane_R
    exists_R = row_R < n
    part = tl.program_id(1)
    target_R = tl.load(targets + row_R, mask=exists_R, other=0)
    target_tile_R = target_R // C
    if find != 0:
        # The tile with the target of row `part`, unless an earlier row of the block goes through it.
        first = tl.sum(tl.where(lane_R == part, target_tile_R, 0), axis=0)
        seen = tl.max(tl.where((lane_R < part) & (target_tile_R == first), 1, 0), axis=0)
        last = first + 1 - seen
    else:
        first = part * tiles_per_stretch
        last = tl.minimum(first + tiles_per_stretch, tl.cdiv(v, C))
    # The first launch fills these and counts for nothing.
    target_logit_R = tl.load(target_logits + row_R, mask=exists_R & (find == 0), other=0.0)
    maximum = tl.full([R], float("-inf"), tl.float32)
    sum_exp = tl.zeros([R], tl.float32)
    weighted = tl.zeros([R], tl.float32)
    greater = tl.zeros([R], tl.int32)
    equal = tl.zeros([R], tl.int32)
    top1 = tl.full([R], 2**31 - 1, tl.int32)  # `online_softmax.NO_ID`
    for tile in range(first, last):
        column_C = tile * C + tl.arange(0, C)
        inside_C = column_C < v
        inside_RC = inside_C[None, :] & exists_R[:, None]
        product_RC = tl.zeros([R, C], tl.float32)
        for inner in range(0, d, K):
            inner_K = inner + tl.arange(0, K)
            rows_RK = tl.load(
                hidden + row_R[:, None] * hidden_stride + inner_K[None, :] * hidden_inner,
                mask=exists_R[:, None] & (inner_K < d)[None, :],
                other=0.0,
            )
            head_KC = tl.load(
                head + column_C.to(tl.int64)[None, :] * head_stride + inner_K[:, None] * head_inner,
                mask=inside_C[None, :] & (inner_K < d)[:, None],
                other=0.0,
            )
            product_RC = tl.dot(rows_RK.to(PRODUCT), head_KC.to(PRODUCT), product_RC, input_precision="ieee")
        if HAS_BIAS:
            product_RC += tl.load(bias + column_C, mask=inside_C, other=0.0).to(tl.float32)[None, :]
        x_RC = product_RC.to(PRODUCT).to(tl.float32)
        x_RC = transformed(x_RC, scale, softcap, HAS_SCALE, HAS_SOFTCAP)
        x_RC = tl.where(inside_RC, x_RC, float("-inf"))
        hit_RC = inside_RC & (column_C[None, :] == target_R[:, None])
        tl.store(
            target_logits + row_R,
            tl.sum(tl.where(hit_RC, x_RC, 0.0), axis=1),
            mask=exists_R & (target_tile_R == tile) & (find != 0),
        )
        maximum, sum_exp, weighted, greater, equal, top1 = take_in(
            maximum, sum_exp, weighted, greater, equal, top1, x_RC, inside_RC, column_C, target_logit_R
        )
    out = part.to(tl.int64) * n + row_R
    keep = exists_R & (find == 0)
    tl.store(max_out + out, maximum, mask=keep)
    tl.store(sum_out + out, sum_exp, mask=keep)
    tl.store(weighted_out + out, weighted, mask=keep)
    tl.store(greater_out + out, greater, mask=keep)
    tl.store(equal_out + out, equal, mask=keep)
    tl.store(top1_out + out, top1, mask=keep)
