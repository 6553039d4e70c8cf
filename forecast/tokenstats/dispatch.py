"""The public entries: check the arguments, choose a path, go through the tokens within the budget."""

import importlib.util
from collections.abc import Iterable
from typing import Literal, get_args

import torch

from forecast.tokenstats import torch_tiles
from forecast.tokenstats.head_products import block_rows, product_blocks, product_dtype
from forecast.tokenstats.online_softmax import Partials, concatenate, finish, nothing
from forecast.tokenstats.types import LogitTransform, TokenStats

KernelPath = Literal["auto", "torch", "triton", "triton_fused"]

# One thread of an AMD EPYC 9005, V 128,256, D 2,048, fp32: blocks of 96, 128, 192, 256 rows (47, 63, 94,
# 125 MiB) take 51, 47, 45, 44 ns per logit. (GPUs: not measured.)
DEFAULT_BUDGET_BYTES = 96 << 20


@torch.no_grad()
def token_stats(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    vocab_size: int | None = None,
    path: KernelPath = "auto",
) -> TokenStats:
    """Exact full-vocabulary statistics of `softcap(logit_scale * (hidden @ head.T + bias))`.

    The product comes in the wider dtype of `hidden` and `head`; all that follows is fp32. Low precision makes
    real ties: they are reported, not broken.

    Args:
        hidden: [N, D] final hidden states at the positions that predict the scored tokens; any floating
            dtype.
        head: [V, D] output matrix, any floating dtype. Best in that of `hidden`: a narrower one is widened a
            slice at a time, once for each block of tokens.
        targets: [N] ids of the scored tokens, each below the vocabulary's size.
        bias: [V] added to the logits before scaling, in the dtype of the product.
        logit_scale: positive factor on the logits (Cohere's `logit_scale`, 1 / Granite's `logits_scaling`).
        softcap: `c` of `c * tanh(logits / c)` (Gemma 2's final soft-cap).
        budget_bytes: bound on the memory for logits and temporaries; one row at a time is the least.
        vocab_size: entries of the real vocabulary; rows of `head` and `bias` from there on are padding and
            left out. Default: all V.
        path: "torch" tiles of plain operations; "triton" products in blocks, reduced by one kernel;
            "triton_fused" product and reduction in one kernel. "auto": torch on CPUs and where Triton is
            missing, else triton (its choice over triton_fused is not measured).

    Returns:
        TokenStats of [N] tensors on the device of `hidden`. Logits with NaN or +inf, or all masked, give NaN
        in logprob, entropy and top1_logprob, 0 in rank and ties and -1 in top1_id, and so does an infinite
        product under a soft-cap, which would make it finite. A masked target has logprob -inf.

    Raises:
        ValueError: shapes, dtypes or a path that do not fit, or a target outside the vocabulary.
        ImportError: a Triton path was asked for and Triton is not installed.
    """
    if vocab_size is not None:
        if not 0 <= vocab_size <= len(head):
            raise ValueError(f"vocab_size {vocab_size} does not fit a head of {len(head)} rows")
        head, bias = head[:vocab_size], None if bias is None else bias[:vocab_size]
    check_shapes(hidden, head, targets, bias)
    check_targets(targets, len(head))
    transform = LogitTransform(logit_scale, softcap)
    path = choose_path(path, hidden.device)
    if path == "triton_fused":
        from forecast.tokenstats import triton_fused

        return finish(*triton_fused.product_partials(hidden, head, targets, bias, transform), len(head))
    dtype = product_dtype(hidden, head)
    affordable, tile_rows = block_shape(path, len(head), dtype, hidden.device, budget_bytes)
    rows = block_rows(hidden, head, affordable)
    blocks = product_blocks(hidden, head, bias, rows, budget_bytes // 4)
    return finish(*_reduced(blocks, targets, transform, path, tile_rows, hidden.device), len(head))


@torch.no_grad()
def logit_stats(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    vocab_size: int | None = None,
    path: KernelPath = "auto",
) -> TokenStats:
    """Exact statistics of logits that are already there, as the model means them; they are left alone.

    Args:
        logits: [N, V], any floating dtype and strides; -inf marks a masked entry, which contributes nothing.
        targets: [N] ids of the scored tokens, each below the vocabulary's size.
        budget_bytes: bound on the memory for temporaries; one row at a time is the least.
        vocab_size: entries of the real vocabulary; columns from there on are padding. Default: all V.
        path: as for `token_stats`, without "triton_fused".

    Returns:
        TokenStats, as `token_stats`.

    Raises:
        ValueError: shapes, dtypes or a path that do not fit, or a target outside the vocabulary.
        ImportError: a Triton path was asked for and Triton is not installed.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(f"logits {list(logits.shape)} and targets {list(targets.shape)} do not fit")
    if not logits.dtype.is_floating_point:
        raise ValueError(f"logits must be of a floating dtype, not {logits.dtype}")
    v = logits.shape[1] if vocab_size is None else vocab_size
    if not 0 <= v <= logits.shape[1]:
        raise ValueError(f"vocab_size {v} does not fit logits of {logits.shape[1]} columns")
    if path == "triton_fused":
        raise ValueError('path "triton_fused" makes the logits itself: use token_stats, or path "triton"')
    check_targets(targets, v)
    path = choose_path(path, logits.device)
    _, tile_rows = block_shape(path, v, logits.dtype, logits.device, budget_bytes)
    blocks = [(slice(0, len(logits)), logits[:, :v])]
    return finish(*_reduced(blocks, targets, LogitTransform(), path, tile_rows, logits.device), v)


def _reduced(
    blocks: Iterable[tuple[slice, torch.Tensor]],
    targets: torch.Tensor,
    transform: LogitTransform,
    path: KernelPath,
    tile_rows: int,
    device: torch.device,
) -> tuple[Partials, torch.Tensor]:
    """State of N tokens and the logits of their targets, from blocks of their products."""
    parts, target_logits = [nothing(0, device)], [torch.empty(0, device=device)]
    for rows, product_BV in blocks:
        raw_target_B = product_BV.gather(1, targets[rows, None].long()).squeeze(1)
        if path == "triton":
            from forecast.tokenstats import triton_logits

            part, target_B = triton_logits.block_partials(product_BV, raw_target_B, transform)
        else:
            part, target_B = torch_tiles.block_partials(product_BV, raw_target_B, transform, tile_rows)
        parts.append(part)
        target_logits.append(target_B)
    return concatenate(parts), torch.cat(target_logits)


def block_shape(
    path: KernelPath, v: int, dtype: torch.dtype, device: torch.device, budget_bytes: int
) -> tuple[int, int]:
    """Rows of one product and of one tile on this path."""
    if path == "triton":  # reads the product and keeps nothing of its size
        rows = max(1, budget_bytes // (dtype.itemsize * max(v, 1)))
        return rows, rows
    return torch_tiles.block_shape(v, dtype.itemsize, device, budget_bytes)


def choose_path(path: KernelPath, device: torch.device) -> KernelPath:
    """The path to take; "auto" is resolved.

    Raises:
        ValueError: an unknown path, or a Triton path for tensors that Triton cannot reach.
        ImportError: a Triton path without Triton.
    """
    if path not in get_args(KernelPath):
        raise ValueError(f"unknown path {path!r}: one of {', '.join(get_args(KernelPath))}")
    has_triton = importlib.util.find_spec("triton") is not None
    if path == "auto":
        return "triton" if device.type == "cuda" and has_triton else "torch"
    if path == "torch":
        return path
    if not has_triton:
        raise ImportError(f'path {path!r} needs Triton, which is not installed; path "torch" needs nothing')
    if device.type != "cuda":
        import triton

        if not triton.knobs.runtime.interpret:
            raise ValueError(f'path {path!r} needs tensors on a GPU, not on {device}; use path "torch"')
    return path


def check_shapes(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, bias: torch.Tensor | None
) -> None:
    """Raise ValueError unless hidden [N, D], head [V, D], targets [N] and bias [V] belong together."""
    if (
        hidden.ndim != 2
        or head.ndim != 2
        or head.shape[1] != hidden.shape[1]
        or targets.shape != hidden.shape[:1]
        or (bias is not None and bias.shape != head.shape[:1])
    ):
        raise ValueError(
            f"hidden {list(hidden.shape)}, head {list(head.shape)}, targets {list(targets.shape)} and bias "
            f"{None if bias is None else list(bias.shape)} do not fit: [N, D], [V, D], [N], [V] are needed"
        )
    for name, tensor in (("hidden", hidden), ("head", head), ("bias", bias)):
        if tensor is not None and not tensor.dtype.is_floating_point:
            raise ValueError(f"{name} must be of a floating dtype, not {tensor.dtype}")


def check_targets(targets: torch.Tensor, vocab_size: int) -> None:
    """Raise ValueError unless every target is an id below `vocab_size`."""
    if len(targets) and (int(targets.min()) < 0 or int(targets.max()) >= vocab_size):
        raise ValueError(f"a target lies outside the vocabulary of {vocab_size}")
