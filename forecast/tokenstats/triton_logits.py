# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""Triton: statistics of logits that lie in memory, each read once.

A program takes one row, or a stretch of it where rows are too few to fill the GPU, and goes through it tile
by tile. Scale and soft-cap happen on the way. The target's logit comes as the product gave it and passes
through the same function as all others, so equal products stay equal.

Legend: B rows, V vocabulary, P stretches of a row, C columns of a tile.
"""

import torch
import triton
import triton.language as tl

from forecast.tokenstats.online_softmax import Partials, combine, nothing
from forecast.tokenstats.triton_reduce import take_in, transformed
from forecast.tokenstats.types import LogitTransform

# Not measured on a GPU: a tile of 16 entries a thread (with 32 one takes up to 167 registers, with 16 up to
# 79), and about 8 programs for each multiprocessor.
TILE_COLUMNS = 4096
NUM_WARPS = 8
_PROGRAMS_PER_PROCESSOR = 8


def block_partials(
    logits_BV: torch.Tensor,
    raw_target_B: torch.Tensor,
    transform: LogitTransform,
    *,
    tile_columns: int = TILE_COLUMNS,
    stretches: int | None = None,
) -> tuple[Partials, torch.Tensor]:
    """As `torch_tiles.block_partials`: state of B tokens, and the targets' logits that were counted against.

    Args:
        logits_BV: [B, V] as the product gave them, any floating dtype and strides; left alone.
        raw_target_B: [B], the targets' values among them.
        transform: applied to both, in fp32.
        tile_columns: a power of two.
        stretches: parts of a row that are reduced apart; default: enough to fill the GPU.
    """
    b, v = logits_BV.shape
    device = logits_BV.device
    target_B = torch.empty(b, device=device)
    tiles = triton.cdiv(v, tile_columns)
    if stretches is None:
        stretches = triton.cdiv(_PROGRAMS_PER_PROCESSOR * processors(device), max(b, 1))
    stretches = max(1, min(stretches, tiles))
    # Without entries one empty stretch is launched: the targets are still to be transformed.
    parts_PB = Partials(*(t.repeat(stretches, 1) for t in nothing(b, device)))
    if b:
        _reduce_rows[(b, stretches)](
            logits_BV,
            raw_target_B.float().contiguous(),
            target_B,
            *parts_PB,
            b,
            v,
            logits_BV.stride(0),
            logits_BV.stride(1),
            triton.cdiv(tiles, stretches),
            transform.scale,
            transform.softcap or 0.0,
            HAS_SCALE=transform.scale != 1.0,
            HAS_SOFTCAP=transform.softcap is not None,
            C=tile_columns,
            num_warps=NUM_WARPS,
            enable_fp_fusion=False,
        )
    return combine(parts_PB), target_B


def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 where there is none."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@triton.jit
def _reduce_rows(
    logits,
    raw_targets,
    targets,
    max_out,
    sum_out,
    weighted_out,
    greater_out,
    equal_out,
    top1_out,
    b,
    v,
    row_stride,
    column_stride,
    tiles_per_stretch,
    scale,
    softcap,
    HAS_SCALE: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    C: tl.constexpr,
):
    row_1 = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    stretch = tl.program_id(1)
    target_1 = transformed(tl.load(raw_targets + row_1), scale, softcap, HAS_SCALE, HAS_SOFTCAP)
    maximum = tl.full([1], float("-inf"), tl.float32)
    sum_exp = tl.zeros([1], tl.float32)
    weighted = tl.zeros([1], tl.float32)
    greater = tl.zeros([1], tl.int32)
    equal = tl.zeros([1], tl.int32)
    top1 = tl.full([1], 2**31 - 1, tl.int32)  # `online_softmax.NO_ID`
    first = stretch * tiles_per_stretch
    last = tl.minimum(first + tiles_per_stretch, tl.cdiv(v, C))
    for tile in range(first, last):
        column_C = tile * C + tl.arange(0, C)
        inside_1C = (column_C < v)[None, :]
        where_1C = (row_1 * row_stride)[:, None] + (column_C.to(tl.int64) * column_stride)[None, :]
        raw_1C = tl.load(logits + where_1C, mask=inside_1C, other=0.0).to(tl.float32)
        x_1C = transformed(raw_1C, scale, softcap, HAS_SCALE, HAS_SOFTCAP)
        x_1C = tl.where(inside_1C, x_1C, float("-inf"))
        maximum, sum_exp, weighted, greater, equal, top1 = take_in(
            maximum, sum_exp, weighted, greater, equal, top1, x_1C, inside_1C, column_C, target_1
        )
    out = stretch.to(tl.int64) * b + row_1
    tl.store(max_out + out, maximum)
    tl.store(sum_out + out, sum_exp)
    tl.store(weighted_out + out, weighted)
    tl.store(greater_out + out, greater)
    tl.store(equal_out + out, equal)
    tl.store(top1_out + out, top1)
    tl.store(targets + row_1, target_1, mask=(row_1 >= 0) & (stretch == 0))
