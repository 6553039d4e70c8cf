"""The Triton kernels against the plain definitions: on a GPU, or with TRITON_INTERPRET=1 on a CPU.

Neither is there in an ordinary test run, which skips this module; `test_triton_interpreted` runs it in a
process of its own. Tiles are small here, so that small inputs have many.
"""

import math
import os
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenstats.cases import DTYPES as TOKEN_STATS
from tokenstats.cases import NATS, assert_same, integers, normal, targets_of

from forecast.tokenstats import TokenStats, logit_stats, token_stats
from forecast.tokenstats.online_softmax import finish
from forecast.tokenstats.reference import reference_stats
from forecast.tokenstats.types import LogitTransform

pytest.importorskip("triton", reason="Triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU: test_triton_interpreted runs these", allow_module_level=True)

import triton  # noqa: E402
import triton.language as tl  # noqa: E402

from forecast.tokenstats import triton_fused, triton_logits  # noqa: E402
from forecast.tokenstats.triton_reduce import tanh  # noqa: E402

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
INF = math.inf
SMALL = triton_fused.Tile(16, 32, 16, 4, 2)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True, scope="module")
def _interpreter() -> Any:
    """Small tiles, for it is slow. It keeps bfloat16 as integers and multiplies these: give it numbers."""
    if not INTERPRETED:
        yield
        return
    from triton.runtime import interpreter

    plain = interpreter.InterpreterBuilder.create_dot

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.view(np.uint16).astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return plain(self, widened(a), widened(b), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
        patch.setattr(triton_fused, "HALF_TILE", SMALL)
        patch.setattr(triton_fused, "FLOAT_TILE", SMALL)
        yield


def of_logits(
    logits: torch.Tensor, targets: torch.Tensor, tile_columns: int, stretches: int | None = None
) -> TokenStats:
    """The kernel over logits, in tiles of a given size."""
    logits, targets = logits.to(DEVICE), targets.to(DEVICE)
    raw = logits.gather(1, targets[:, None]).squeeze(1)
    partials, target = triton_logits.block_partials(
        logits, raw, LogitTransform(), tile_columns=tile_columns, stretches=stretches
    )
    return finish(partials, target, logits.shape[1])


def of_products(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    bias: torch.Tensor | None = None,
    transform: LogitTransform = LogitTransform(),
    **options: Any,
) -> TokenStats:
    """The fused kernel, in small tiles."""
    bias = None if bias is None else bias.to(DEVICE)
    partials, target = triton_fused.product_partials(
        hidden.to(DEVICE), head.to(DEVICE), targets.to(DEVICE), bias, transform, **{"tile": SMALL, **options}
    )
    return finish(partials, target, len(head))


@pytest.mark.parametrize("path", ["triton", "triton_fused"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "v", "d"), [(0, 123, 16), (1, 1, 1), (1, 123, 16), (17, 123, 7), (33, 65, 70)])
def test_the_entry_takes_these_paths(path: Any, dtype: torch.dtype, n: int, v: int, d: int) -> None:
    hidden, head = integers(n, d, seed=1, dtype=dtype), integers(v, d, seed=2, dtype=dtype)
    targets = targets_of(n, v)
    stats = token_stats(hidden.to(DEVICE), head.to(DEVICE), targets.to(DEVICE), path=path)
    assert [t.dtype for t in stats] == TOKEN_STATS
    assert all(t.shape == (n,) and t.device.type == DEVICE.type for t in stats)
    assert_same(stats, reference_stats((hidden.double() @ head.double().T).to(dtype), targets))


@pytest.mark.parametrize("path", ["triton", "triton_fused"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("with_bias", "scale", "softcap"), [(True, 1.0, None), (False, 0.0625, None), (True, 0.25, 5.0)]
)
def test_bias_scale_and_softcap(
    path: Any, dtype: torch.dtype, with_bias: bool, scale: float, softcap: float | None
) -> None:
    hidden, head = integers(17, 16, seed=1, dtype=dtype), integers(123, 16, seed=2, dtype=dtype)
    bias, targets = integers(123, seed=3, dtype=dtype) if with_bias else None, targets_of(17, 123)
    logits = (hidden.double() @ head.double().T + (0 if bias is None else bias.double())) * scale
    if softcap is not None:
        logits = (torch.tanh(logits.float() / softcap) * softcap).double()
    stats = token_stats(
        hidden.to(DEVICE),
        head.to(DEVICE),
        targets.to(DEVICE),
        bias=None if bias is None else bias.to(DEVICE),
        logit_scale=scale,
        softcap=softcap,
        path=path,
    )
    assert_same(stats, reference_stats(logits, targets))


@pytest.mark.parametrize("stretches", [1, 2])
@pytest.mark.parametrize("v", [16, 17, 31, 49])
def test_targets_at_the_edges_of_tiles(v: int, stretches: int | None) -> None:
    logits, targets = integers(v, v, seed=1), torch.arange(v)  # every entry is a target
    plain = reference_stats(logits, targets)
    assert_same(of_logits(logits, targets, 16, stretches), plain)
    fused = of_products(torch.eye(v), logits.T.contiguous(), targets, stretches=stretches)
    assert_same(fused, plain)


@pytest.mark.parametrize("path", ["triton", "triton_fused"])
def test_the_budget_changes_nothing(path: Any) -> None:
    hidden, head, targets = integers(33, 16, seed=1), integers(123, 16, seed=2), targets_of(33, 123)
    for budget in (1, 5 * 123 * 4, 1 << 20):
        stats = token_stats(
            hidden.to(DEVICE), head.to(DEVICE), targets.to(DEVICE), budget_bytes=budget, path=path
        )
        assert_same(stats, reference_stats(hidden @ head.T, targets))


@pytest.mark.parametrize("bad", [math.nan, INF])
@pytest.mark.parametrize("column", [0, 16, 122])
def test_broken_logits_give_nan(bad: float, column: int) -> None:
    logits, bias, targets = integers(5, 123, seed=1), torch.zeros(123), targets_of(5, 123)
    bias[column] = bad
    for stats in (
        of_logits(logits + bias, targets, 16),
        of_logits(logits + bias, targets, 256),
        of_logits(torch.where(bias == 0, -INF, logits + bias), targets, 16),
        of_products(torch.eye(5), logits.T.contiguous(), targets, bias),
    ):
        assert all(t.isnan().all() for t in (stats.logprob, stats.entropy, stats.top1_logprob))
        assert not stats.rank.any() and not stats.ties.any() and (stats.top1_id == -1).all()


@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
@pytest.mark.parametrize("softcap", [None, 30.0])
def test_broken_states_give_nan(bad: float, softcap: float | None) -> None:
    hidden, head, targets = integers(3, 16, seed=1), integers(123, 16, seed=2), targets_of(3, 123)
    hidden[1, 5], head[:, 5] = bad, head[:, 5].abs() + 1  # all products infinite, none NaN
    stats = of_products(hidden, head, targets, transform=LogitTransform(softcap=softcap))
    assert stats.logprob.isnan().tolist() == stats.entropy.isnan().tolist() == [False, True, False]
    assert (stats.rank == 0).tolist() == [False, True, False]


def test_a_broken_row_leaves_the_others_alone() -> None:
    hidden, head, targets = integers(9, 16, seed=1), integers(123, 16, seed=2), targets_of(9, 123)
    whole = of_products(hidden, head, targets)
    hidden[4] = math.nan
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    broken = of_products(hidden, head, targets)
    assert broken.logprob[4].isnan()
    for one, other in zip(whole, broken, strict=True):
        assert torch.equal(one[others], other[others])


def test_masked_entries_contribute_nothing() -> None:
    logits, targets = integers(9, 123, seed=1), targets_of(9, 60)
    bias = torch.zeros(123)
    bias[60:] = -INF
    plain = reference_stats(logits + bias, targets)
    assert_same(of_logits(logits + bias, targets, 16), plain)
    assert_same(of_products(torch.eye(9), logits.T.contiguous(), targets, bias), plain)
    masked_target = torch.full((9,), 122)
    for stats in (
        of_logits(logits + bias, masked_target, 16),
        of_products(torch.eye(9), logits.T.contiguous(), masked_target, bias),
    ):
        assert (stats.logprob == -INF).all() and stats.entropy.isfinite().all()
        assert (stats.rank == 61).all() and (stats.ties == 62).all()
    everything = of_logits(torch.full((2, 40), -INF), torch.tensor([0, 39]), 16)
    assert everything.logprob.isnan().all() and everything.top1_logprob.isnan().all()
    assert (everything.top1_id == -1).all()


def test_extreme_and_equal_logits() -> None:
    logits = torch.zeros(3, 40)
    logits[0], logits[0, 39], logits[1, 0], logits[1, 17], logits[2] = -1e4, 1e4, 3e38, -3e38, 1e4
    targets = torch.tensor([0, 0, 39])
    assert_same(of_logits(logits, targets, 16), reference_stats(logits, targets))
    equal = of_logits(torch.full((1, 123), 7.0), torch.tensor([122]), 16)
    assert (equal.rank.item(), equal.ties.item(), equal.top1_id.item()) == (1, 122, 0)
    assert equal.entropy.item() == pytest.approx(math.log(123), abs=1e-6)


def test_any_strides() -> None:
    wide, targets = normal(20, 130, seed=1), targets_of(20, 100)
    assert_same(of_logits(wide[:, 13:113], targets, 16), reference_stats(wide[:, 13:113], targets))
    assert_same(
        logit_stats(wide.T[:100, :20].T.to(DEVICE), targets.to(DEVICE), path="triton"),
        reference_stats(wide[:, :100], targets),
    )
    hidden, head = integers(16, 20, seed=1).T, integers(16, 123, seed=2).T
    fused = of_products(hidden, head, targets_of(20, 123))
    assert_same(fused, reference_stats(hidden @ head.T, targets_of(20, 123)))


def test_mixed_dtypes_multiply_in_the_wider_one() -> None:
    hidden, head = integers(9, 16, seed=1), integers(123, 16, seed=2, dtype=torch.bfloat16) + 0.5
    plain = reference_stats(hidden @ head.float().T, targets_of(9, 123))
    assert_same(of_products(hidden, head, targets_of(9, 123)), plain)
    assert_same(of_products(hidden.half(), head, targets_of(9, 123)), plain)
    with pytest.raises(ValueError, match=r"knows no products in torch\.float64"):
        of_products(hidden.double(), head, targets_of(9, 123))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_target_ties_with_itself_whatever_the_order_of_summation(dtype: torch.dtype) -> None:
    # Real numbers: another order of summation would give other bits, and ties of -1.
    hidden, head = normal(33, 100, seed=1).to(dtype), normal(123, 100, seed=2).to(dtype)
    targets = torch.arange(33) * 3 + 20
    stats = of_products(hidden, head, targets)
    assert (stats.ties >= 0).all()
    assert (stats.logprob <= stats.top1_logprob).all() and (stats.top1_logprob <= 0).all()
    assert ((stats.rank == 1) == (stats.logprob == stats.top1_logprob)).all()
    first = targets.to(stats.rank.device) == stats.top1_id
    assert (stats.rank[first] == 1).all() and (stats.rank[~first] + stats.ties[~first] > 1).all()
    torch.testing.assert_close(
        stats.logprob.cpu().double(),
        reference_stats(hidden.double() @ head.double().T, targets).logprob,
        rtol=0.02,
        atol=NATS if dtype == torch.float32 else 0.1,
    )


@triton.jit
def _tanh_of(x, out, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.arange(0, SIZE)
    tl.store(out + place, tanh(tl.load(x + place)))


def test_tanh() -> None:
    x = torch.cat([torch.linspace(-12, 12, 4088), torch.tensor([0.0, -0.0, 1e-30, INF, -INF, 90, -90, 1e-4])])
    out = torch.empty(4096, device=DEVICE)
    _tanh_of[(1,)](x.to(DEVICE), out, SIZE=4096, enable_fp_fusion=False)
    torch.testing.assert_close(out.cpu().double(), torch.tanh(x.double()), rtol=3e-7, atol=0)
    ordered = out[:4088]
    assert (ordered[1:] >= ordered[:-1]).all()
    _tanh_of[(1,)](torch.tensor([math.nan]).repeat(4096).to(DEVICE), out, SIZE=4096, enable_fp_fusion=False)
    assert out.isnan().all()


@st.composite
def logits_and_targets(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    n, v = draw(st.integers(1, 5)), draw(st.integers(1, 60))
    number = draw(
        st.sampled_from([st.integers(-2, 2), st.floats(-30, 30, width=32), st.floats(-1e4, 1e4, width=32)])
    )
    value = st.one_of(number, number, number, st.just(-INF))
    rows = draw(st.lists(st.lists(value, min_size=v, max_size=v), min_size=n, max_size=n))
    targets = draw(st.lists(st.integers(0, v - 1), min_size=n, max_size=n))
    return torch.tensor(rows, dtype=torch.float32), torch.tensor(targets)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(logits_and_targets(), st.integers(1, 4))
def test_definitions_hold_for_any_logits(case: tuple[torch.Tensor, torch.Tensor], stretches: int) -> None:
    logits, targets = case
    stats, plain = of_logits(logits, targets, 16, stretches), reference_stats(logits, targets)
    largest = float(logits[logits.isfinite()].abs().max()) if logits.isfinite().any() else 0.0
    assert_same(stats, plain, nats=NATS + 1e-6 * largest)
    seen = ~stats.logprob.isnan()
    assert (stats.logprob <= stats.top1_logprob)[seen].all() and (stats.top1_logprob <= 0)[seen].all()
    assert (stats.entropy >= 0)[seen].all() and (stats.entropy <= math.log(logits.shape[1]) + 1e-6)[
        seen
    ].all()


@pytest.mark.skipif(INTERPRETED, reason="thousands of programs: needs a GPU")
@pytest.mark.parametrize("path", ["torch", "triton", "triton_fused"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [255, 507, 4096])
def test_large_vocabularies_on_a_gpu(path: Any, dtype: torch.dtype, n: int) -> None:
    v, d = 128_256, 123
    hidden, head = (
        integers(n, d, seed=1, dtype=dtype).to(DEVICE),
        integers(v, d, seed=2, dtype=dtype).to(DEVICE),
    )
    targets = targets_of(n, v).to(DEVICE)
    stats = token_stats(hidden, head, targets, softcap=300.0, path=path)
    for rows in torch.arange(n).split(64):
        logits = torch.tanh((hidden[rows].double() @ head.double().T).to(dtype).float() / 300) * 300
        plain = reference_stats(logits, targets[rows])
        assert_same(TokenStats(*(t[rows] for t in stats)), TokenStats(*(t.cpu() for t in plain)), nats=1e-4)
