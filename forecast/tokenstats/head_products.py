"""Hidden states times output head, a block of rows at a time, into one buffer.

Legend: N tokens, D hidden size, V vocabulary, B rows of a block.
"""

from collections.abc import Iterator

import torch

from forecast.tokenstats.onednn_linear import linear, prefers_onednn


def product_dtype(hidden: torch.Tensor, head: torch.Tensor) -> torch.dtype:
    """The wider dtype of the two: the product rounds to it once, its sums run in fp32 or wider."""
    return torch.promote_types(hidden.dtype, head.dtype)


def block_rows(hidden: torch.Tensor, head: torch.Tensor, affordable: int) -> int:
    """Rows of a block where memory is there for `affordable` rows: half, if two stand side by side."""
    return max(1, affordable // 2) if prefers_onednn(hidden, head) else affordable


def product_blocks(
    hidden: torch.Tensor, head: torch.Tensor, bias: torch.Tensor | None, rows: int, head_bytes: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Blocks of `hidden @ head.T + bias` with the rows that they stand for.

    A block is valid until the next one is asked for, and its reader may overwrite it. All are views of one
    buffer (a new block each time costs 0.4 ns per logit in page faults), except where oneDNN,
    which writes to no buffer of ours, gains more than that; then two blocks stand side by side for a moment.

    Args:
        hidden: [N, D], any floating dtype.
        head: [V, D], any floating dtype. A head narrower than `hidden` is widened a slice at a time, once
            for each block.
        bias: [V] or None.
        rows: the most rows of a block, see `block_rows`; blocks are of even height.
        head_bytes: bound on the memory of a widened slice of the head; one row is the least.
    """
    n, v = len(hidden), len(head)
    if n == 0:
        return
    dtype = product_dtype(hidden, head)
    count = -(-n // rows)
    rows = -(-n // count)
    bias = None if bias is None else bias.to(dtype)
    if prefers_onednn(hidden, head):
        for start in range(0, n, rows):
            block = hidden[start : start + rows]
            yield slice(start, start + len(block)), linear(block, head, bias)
        return
    buffer_BV = torch.empty(rows, v, dtype=dtype, device=hidden.device)
    columns = max(1, v if head.dtype == dtype else head_bytes // max(1, head.shape[1] * dtype.itemsize))
    for start in range(0, n, rows):
        hidden_BD = hidden[start : start + rows].to(dtype)
        block_BV = buffer_BV[: len(hidden_BD)]
        for left in range(0, v, columns):
            part = slice(left, left + columns)
            head_T = head[part].to(dtype).T
            if bias is None:
                torch.mm(hidden_BD, head_T, out=block_BV[:, part])
            else:
                torch.addmm(bias[part], hidden_BD, head_T, out=block_BV[:, part])
        yield slice(start, start + len(hidden_BD)), block_BV
