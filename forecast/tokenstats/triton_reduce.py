# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""What the two Triton kernels share: a model's transform of a logit, and the step that takes in a tile.

The arithmetic is that of `online_softmax`: a tile is a part of the vocabulary, merged into its rows' state.
`tl.max` may ignore NaN; the comparisons below do not, so NaN reaches the sum, and that is what counts.

Both kernels are launched without fusing products and sums: a fused `scale * x - max` would be rounded once
where the maximum was rounded twice, and the maximum's own exp would no longer be 1.

Legend: R rows of a tile, C columns of a tile.
"""

import triton
import triton.language as tl

# exp() of anything below is 0; finite, so that its product with that 0 is 0 (`online_softmax.EXP_IS_ZERO`).
_FLOOR = tl.constexpr(-1e4)
_NO_ID = tl.constexpr(2**31 - 1)  # `online_softmax.NO_ID`


@triton.jit
def tanh(x):
    """Hyperbolic tangent within 4 units in the last place, with the same bits wherever a value stands.

    A polynomial below 0.625, where `1 - 2 / (exp(2x) + 1)` would cancel (coefficients of Cephes' tanhf).
    """
    square = x * x
    small = -5.70498872745e-3
    small = small * square + 2.06390887954e-2
    small = small * square - 5.37397155531e-2
    small = small * square + 1.33314422036e-1
    small = small * square - 3.33332819422e-1
    small = small * square * x + x
    size = tl.abs(x)
    large = 1.0 - 2.0 / (tl.exp(2.0 * size) + 1.0)
    large = tl.where(x < 0, -large, large)
    return tl.where(size < 0.625, small, large)


@triton.jit
def transformed(x, scale, softcap, HAS_SCALE: tl.constexpr, HAS_SOFTCAP: tl.constexpr):
    """`softcap * tanh(scale * x / softcap)`, or what a model has of it."""
    if HAS_SCALE:
        x = x * scale
    if HAS_SOFTCAP:
        # The cap would hide that infinite ones are no numbers.
        x = tl.where(tl.abs(x) == float("inf"), float("nan"), tanh(x / softcap) * softcap)
    return x


@triton.jit
def take_in(maximum, sum_exp, weighted, greater, equal, top1, x_RC, inside_RC, column_C, target_R):
    """The state of R rows, each tensor [R], after another tile of fp32 logits.

    `x_RC` must be -inf outside of the vocabulary, where `inside_RC` is false. Tiles come in the order of
    their ids, `column_C`, so of equal ones the first stays.
    """
    above_RC = inside_RC & (x_RC > target_R[:, None])
    same_RC = inside_RC & (x_RC == target_R[:, None])
    largest = tl.max(x_RC, axis=1)
    best_RC = inside_RC & (x_RC == largest[:, None])
    best = tl.min(tl.where(best_RC, column_C[None, :], _NO_ID), axis=1)
    larger = tl.maximum(maximum, largest)
    base = tl.where(larger == float("-inf"), 0.0, larger)
    down = maximum - base
    down = tl.where(down < _FLOOR, _FLOOR, down)
    factor = tl.exp(down)
    shifted_RC = x_RC - base[:, None]
    shifted_RC = tl.where(shifted_RC < _FLOOR, _FLOOR, shifted_RC)
    exp_RC = tl.exp(shifted_RC)
    return (
        larger,
        sum_exp * factor + tl.sum(exp_RC, axis=1),
        (weighted + down * sum_exp) * factor + tl.sum(exp_RC * shifted_RC, axis=1),
        greater + tl.sum(above_RC.to(tl.int32), axis=1),
        equal + tl.sum(same_RC.to(tl.int32), axis=1),
        tl.where(largest > maximum, best, top1),
    )
