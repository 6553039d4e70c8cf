"""The fast statistics against the plain definitions in fp64, on odd shapes and at the edges of arithmetic.

Logits reach `token_stats` as the product of `hidden` and `head`. Where a test needs given logits exactly,
the head is the identity.
"""

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenstats.cases import DTYPES, NATS, assert_same, integers, normal, targets_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from forecast.tokenstats import TokenStats, logit_stats, token_stats
from forecast.tokenstats.reference import reference_stats

INF = math.inf


def of_logits(logits: torch.Tensor, targets: torch.Tensor, **options: object) -> TokenStats:
    """Statistics of logits [N, V] that are given as they are."""
    return token_stats(logits, torch.eye(logits.shape[1]), targets, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("v", [123, 507, 1000])
@pytest.mark.parametrize("n", [0, 1, 255])
def test_equals_the_reference(n: int, v: int, dtype: torch.dtype) -> None:
    hidden, head, targets = (
        integers(n, 16, seed=1, dtype=dtype),
        integers(v, 16, seed=2, dtype=dtype),
        targets_of(n, v),
    )
    fast = token_stats(hidden, head, targets)
    assert [t.dtype for t in fast] == DTYPES
    assert all(t.shape == (n,) for t in fast)
    assert_same(fast, reference_stats(hidden.double() @ head.double().T, targets))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("bias", "logit_scale", "softcap"),
    [(True, 1.0, None), (False, 0.0625, None), (False, 1.0, 30.0), (True, 0.25, 5.0)],
)
def test_bias_scale_and_softcap(
    bias: bool, logit_scale: float, softcap: float | None, dtype: torch.dtype
) -> None:
    hidden, head = integers(255, 16, seed=1, dtype=dtype), integers(507, 16, seed=2, dtype=dtype)
    added = integers(507, seed=3, dtype=dtype) if bias else None
    logits = hidden.double() @ head.double().T + (0 if added is None else added.double())
    logits = logits * logit_scale
    if softcap is not None:
        # In fp32, as documented: large logits meet at the cap, and are tied there.
        logits = (torch.tanh(logits.float() / softcap) * softcap).double()
    targets = targets_of(255, 507)
    fast = token_stats(hidden, head, targets, bias=added, logit_scale=logit_scale, softcap=softcap)
    assert_same(fast, reference_stats(logits, targets))


def test_equals_the_reference_on_logits_of_ordinary_models() -> None:
    hidden, head, targets = normal(255, 64, seed=1), normal(1000, 64, seed=2) / 4, targets_of(255, 1000)
    fast, plain = token_stats(hidden, head, targets), reference_stats(hidden @ head.T, targets)
    for name in ("logprob", "entropy", "top1_logprob"):
        torch.testing.assert_close(getattr(fast, name).double(), getattr(plain, name), rtol=0, atol=NATS)
    # The products may differ in the last bit, which can swap neighbours but no more.
    assert (fast.rank - plain.rank).abs().max() <= 1
    assert (fast.rank == plain.rank).float().mean() > 0.95
    assert (fast.top1_id == plain.top1_id).float().mean() > 0.95


@pytest.mark.parametrize("budget", [1, 96 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_first_choice_of_tied_logits_is_the_lowest_id(dtype: torch.dtype, budget: int) -> None:
    logits = torch.full((4, 9000), -1.0, dtype=dtype)
    logits[0, [17, 18, 8999]], logits[1, [8998, 8999]], logits[2, 1:], logits[3, 5] = 2.0, 0.0, -INF, -0.0
    logits[3, 4] = 0.0
    stats = logit_stats(logits, torch.tensor([18, 0, 0, 5]), budget_bytes=budget)
    assert stats.top1_id.tolist() == [17, 8998, 0, 4]
    assert_same(stats, reference_stats(logits, torch.tensor([18, 0, 0, 5])))


@pytest.mark.parametrize("rows", [1, 2, 7, 100, 254, 255, 10_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_block_size_changes_nothing(rows: int, dtype: torch.dtype) -> None:
    hidden, head = integers(255, 16, seed=1, dtype=dtype), integers(507, 16, seed=2, dtype=dtype)
    targets = targets_of(255, 507)
    blocked = token_stats(hidden, head, targets, budget_bytes=rows * 507 * 4)
    assert_same(blocked, reference_stats(hidden.double() @ head.double().T, targets))


class Allocations(TorchDispatchMode):
    """Notes the size of every new tensor in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def storages(tree: Any) -> dict[int, int]:
            found = [t.untyped_storage() for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]
            return {storage.data_ptr(): storage.nbytes() for storage in found}

        result = func(*args, **(kwargs or {}))
        old = storages((args, kwargs))
        self.sizes += [size for place, size in storages(result).items() if place not in old]
        return result


@pytest.mark.parametrize("budget", [20_000, 100_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_tensor_is_larger_than_the_budget(budget: int, dtype: torch.dtype) -> None:
    hidden, targets = integers(255, 16, seed=1), targets_of(255, 507)
    head = integers(507, 16, seed=2, dtype=dtype)  # in bfloat16: narrower than hidden, so it is widened
    with Allocations() as seen:
        token_stats(hidden, head, targets, budget_bytes=budget)
        logit_stats(torch.zeros(255, 507), targets, budget_bytes=budget)
    seen.sizes.remove(255 * 507 * 4)  # the given logits
    assert max(seen.sizes) <= budget


def test_one_row_at_a_time_is_the_least() -> None:
    hidden, head, targets = integers(9, 16, seed=1), integers(507, 16, seed=2), targets_of(9, 507)
    with Allocations() as seen:
        stats = token_stats(hidden, head, targets, budget_bytes=1)
    assert max(seen.sizes) == 2 * 507 * 4  # tile and work
    assert_same(stats, reference_stats(hidden @ head.T, targets))


_PEAK = """
import resource, torch
from forecast.tokenstats import token_stats
torch.set_num_threads(1)
n, v = 2048, 50_257  # 412 MB of logits
hidden, head = torch.randn(n, 8), torch.randn(v, 8)
targets = torch.randint(v, (n,))
token_stats(hidden[:9], head, targets[:9], budget_bytes=16 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
token_stats(hidden, head, targets, budget_bytes=16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_of_the_process_stays_within_reach_of_the_budget() -> None:
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 48 << 10  # KiB


def test_the_order_of_rows_changes_nothing() -> None:
    hidden, head, targets = integers(255, 16, seed=1), integers(507, 16, seed=2), targets_of(255, 507)
    order = torch.randperm(255, generator=torch.Generator().manual_seed(3))
    straight, shuffled = token_stats(hidden, head, targets), token_stats(hidden[order], head, targets[order])
    for one, other in zip(straight, shuffled, strict=True):
        torch.testing.assert_close(one[order], other)


def test_equal_logits_are_uniform_and_all_tied() -> None:
    stats = token_stats(torch.zeros(3, 8), integers(507, 8, seed=1), torch.tensor([0, 200, 506]))
    assert stats.rank.tolist() == [1, 1, 1]
    assert stats.ties.tolist() == [506, 506, 506]
    for value, expected in ((stats.entropy, math.log(507)), (stats.logprob, -math.log(507))):
        torch.testing.assert_close(value, torch.full((3,), expected), rtol=0, atol=1e-6)


def test_masked_entries_contribute_nothing() -> None:
    hidden, head, targets = integers(255, 16, seed=1), integers(507, 16, seed=2), targets_of(255, 400)
    bias = torch.zeros(507)
    bias[400:] = -INF
    masked = token_stats(hidden, head, targets, bias=bias)
    assert_same(masked, reference_stats(hidden.double() @ head.double().T + bias, targets))
    for with_mask, without in zip(masked, token_stats(hidden, head[:400], targets), strict=True):
        torch.testing.assert_close(with_mask, without)


def test_a_masked_target_is_impossible_not_nan() -> None:
    bias = torch.tensor([0.0, -INF, 1.0, -INF])
    stats = token_stats(torch.zeros(1, 2), torch.zeros(4, 2), torch.tensor([1]), bias=bias)
    assert (stats.logprob.item(), stats.rank.item(), stats.ties.item()) == (-INF, 3, 1)
    assert math.isfinite(stats.entropy.item())


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]])
    targets = torch.tensor([1, 0, 2])
    stats = of_logits(logits, targets)
    assert_same(stats, reference_stats(logits, targets))
    assert stats.logprob.tolist()[0] == -2e4


def test_one_entry_is_certain() -> None:
    stats = of_logits(torch.tensor([[3.0]]), torch.tensor([0]))
    assert [float(t[0]) for t in stats] == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("bad", [math.nan, INF])
@pytest.mark.parametrize("column", [0, 250, 506])
def test_broken_logits_give_nan(bad: float, column: int) -> None:
    bias = torch.zeros(507)
    bias[column] = bad
    stats = token_stats(integers(9, 16, seed=1), integers(507, 16, seed=2), targets_of(9, 507), bias=bias)
    assert all(t.isnan().all() for t in (stats.logprob, stats.entropy, stats.top1_logprob))
    assert not stats.rank.any() and not stats.ties.any() and (stats.top1_id == -1).all()


@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
@pytest.mark.parametrize("softcap", [None, 30.0])
def test_broken_states_give_nan(bad: float, softcap: float | None) -> None:
    hidden, head, targets = integers(3, 16, seed=1), integers(507, 16, seed=2), targets_of(3, 507)
    hidden[1, 5], head[:, 5] = bad, head[:, 5].abs() + 1  # all products infinite, none NaN
    stats = token_stats(hidden, head, targets, softcap=softcap)
    assert stats.logprob.isnan().tolist() == stats.entropy.isnan().tolist() == [False, True, False]
    assert (stats.rank == 0).tolist() == [False, True, False] and stats.ties[1] == 0


def test_a_broken_row_leaves_the_others_alone() -> None:
    hidden, head, targets = integers(9, 16, seed=1), integers(507, 16, seed=2), targets_of(9, 507)
    whole = token_stats(hidden, head, targets)
    hidden[4] = math.nan
    broken = token_stats(hidden, head, targets)
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert broken.logprob[4].isnan() and broken.entropy[4].isnan()
    for one, other in zip(whole, broken, strict=True):
        torch.testing.assert_close(one[others], other[others])


def test_fp16_overflow_gives_nan() -> None:
    hidden, head = (
        torch.full((1, 4), 200.0, dtype=torch.float16),
        torch.full((3, 4), 200.0, dtype=torch.float16),
    )
    assert token_stats(hidden, head, torch.tensor([0])).logprob.isnan().all()


def test_inputs_are_left_alone() -> None:
    hidden, head, targets = integers(5, 4, seed=1), integers(9, 4, seed=2), targets_of(5, 9)
    before = hidden.clone(), head.clone(), targets.clone()
    token_stats(hidden, head, targets, logit_scale=0.5, softcap=3.0)
    assert all(torch.equal(a, b) for a, b in zip(before, (hidden, head, targets), strict=True))


@pytest.mark.parametrize(
    ("targets", "message"),
    [([0, 9], "outside the vocabulary of 9"), ([-1, 0], "outside the vocabulary of 9"), ([0], "do not fit")],
)
def test_targets_that_do_not_fit(targets: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_stats(torch.zeros(2, 4), torch.zeros(9, 4), torch.tensor(targets))


@pytest.mark.parametrize("padding", [1, 5, 506])
def test_rows_of_padding_are_left_out(padding: int) -> None:
    hidden, head, bias = integers(9, 16, seed=1), integers(507, 16, seed=2), integers(507, seed=3)
    v = 507 - padding
    targets = targets_of(9, v)
    head[v:], bias[v:] = 100.0, math.nan
    plain = token_stats(hidden, head[:v], targets, bias=bias[:v])
    cut = token_stats(hidden, head, targets, bias=bias, vocab_size=v)
    of_given = logit_stats(hidden @ head.T + bias, targets, vocab_size=v)
    for one, other, third in zip(plain, cut, of_given, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        torch.testing.assert_close(one, third, rtol=0, atol=0)
    with pytest.raises(ValueError, match=f"outside the vocabulary of {v}"):
        token_stats(hidden, head, torch.full((9,), v), vocab_size=v)


@pytest.mark.parametrize("vocab_size", [-1, 508])
def test_a_vocabulary_that_does_not_fit(vocab_size: int) -> None:
    with pytest.raises(ValueError, match=f"vocab_size {vocab_size} does not fit"):
        token_stats(torch.zeros(1, 4), torch.zeros(507, 4), torch.tensor([0]), vocab_size=vocab_size)
    with pytest.raises(ValueError, match=f"vocab_size {vocab_size} does not fit"):
        logit_stats(torch.zeros(1, 507), torch.tensor([0]), vocab_size=vocab_size)


_DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("budget", [1, 30_000, 1 << 20])
@pytest.mark.parametrize("head_dtype", _DTYPES, ids=str)
@pytest.mark.parametrize("hidden_dtype", _DTYPES, ids=str)
def test_mixed_dtypes_multiply_in_the_wider_one(
    hidden_dtype: torch.dtype, head_dtype: torch.dtype, budget: int
) -> None:
    # Halves beside integers: the sums need more bits than bfloat16 has, and fewer than fp16 has.
    hidden = integers(15, 16, seed=1, dtype=hidden_dtype)
    head = integers(123, 16, seed=2, dtype=head_dtype) + 0.5
    bias, targets = integers(123, seed=3, dtype=torch.bfloat16), targets_of(15, 123)
    product = hidden.double() @ head.double().T + bias.double()
    logits = product.to(torch.promote_types(hidden_dtype, head_dtype))
    stats = token_stats(hidden, head, targets, bias=bias, budget_bytes=budget)
    assert_same(stats, reference_stats(logits, targets))


def test_parameters_that_want_gradients() -> None:
    head = torch.nn.Parameter(integers(9, 4, seed=2))
    assert not token_stats(integers(5, 4, seed=1), head, targets_of(5, 9)).logprob.requires_grad


@pytest.mark.parametrize(
    ("hidden", "head", "bias"),
    [((2, 4), (9, 5), (9,)), ((2, 4), (9, 4), (8,)), ((4,), (9, 4), (9,)), ((3, 4), (9, 4), (9,))],
)
def test_shapes_that_do_not_fit(hidden: tuple[int], head: tuple[int], bias: tuple[int]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        token_stats(torch.zeros(hidden), torch.zeros(head), torch.tensor([0, 1]), bias=torch.zeros(bias))


def test_integers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden must be of a floating dtype, not torch\.int64"):
        token_stats(torch.zeros(1, 2, dtype=torch.long), torch.zeros(3, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match="logits must be of a floating dtype"):
        logit_stats(torch.zeros(1, 2, dtype=torch.long), torch.tensor([0]))


def test_paths_that_cannot_be_taken() -> None:
    arguments = torch.zeros(1, 2), torch.zeros(3, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="unknown path 'cuda': one of auto, torch"):
        token_stats(*arguments, path="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="makes the logits itself"):
        logit_stats(torch.zeros(1, 2), torch.tensor([0]), path="triton_fused")
    with pytest.raises((ValueError, ImportError), match=r'use path "torch"|path "torch" needs nothing'):
        token_stats(*arguments, path="triton")


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize("n", [0, 1, 255])
def test_given_logits(n: int, dtype: torch.dtype) -> None:
    logits, targets = (normal(n, 507, seed=1) * 3).to(dtype), targets_of(n, 507)
    before = logits.clone()
    for budget in (1, 40_000, 1 << 24):
        assert_same(logit_stats(logits, targets, budget_bytes=budget), reference_stats(logits, targets))
    assert torch.equal(logits, before)


def test_given_logits_of_any_strides() -> None:
    logits, targets = normal(507, 255, seed=1).T, targets_of(255, 507)
    assert_same(logit_stats(logits, targets), reference_stats(logits, targets))
    wide = normal(255, 600, seed=2)
    assert_same(logit_stats(wide[:, 7:514], targets), reference_stats(wide[:, 7:514], targets))


def test_given_logits_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"logits \[2, 9\] and targets \[3\] do not fit"):
        logit_stats(torch.zeros(2, 9), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="outside the vocabulary of 9"):
        logit_stats(torch.zeros(2, 9), torch.tensor([0, 9]))


def test_all_masked_is_nan() -> None:
    stats = logit_stats(torch.full((2, 9), -INF), torch.tensor([0, 8]))
    assert all(t.isnan().all() for t in (stats.logprob, stats.entropy, stats.top1_logprob))


@pytest.mark.parametrize("v", [15, 16, 17, 507, 1000])
def test_soft_caps_keep_ties_wherever_they_stand(v: int) -> None:
    # Vector units treat the end of a row apart; equal logits must stay equal there too.
    row = (normal(3, seed=1) * 20).repeat(v)[:v]
    plain = logit_stats(row.expand(v, v), torch.arange(v))
    capped = token_stats(torch.ones(v, 1), row[:, None], torch.arange(v), softcap=30.0)
    assert capped.ties.min() >= (v - 2) // 3 - 1
    assert torch.equal(capped.ties, plain.ties) and torch.equal(capped.rank, plain.rank)


def test_planning_needs_no_torch() -> None:
    code = "import sys, forecast.tokenstats.version; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_has_no_other_names() -> None:
    import forecast.tokenstats

    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        forecast.tokenstats.nonsense  # noqa: B018


@st.composite
def logits_and_targets(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    n, v = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    # Few distinct values make ties, wide ones make certainty.
    value = draw(
        st.sampled_from([st.integers(-2, 2), st.floats(-30, 30, width=32), st.floats(-1e4, 1e4, width=32)])
    )
    rows = draw(st.lists(st.lists(value, min_size=v, max_size=v), min_size=n, max_size=n))
    targets = draw(st.lists(st.integers(0, v - 1), min_size=n, max_size=n))
    return torch.tensor(rows, dtype=torch.float32), torch.tensor(targets)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(logits_and_targets())
def test_definitions_hold_for_any_logits(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = case
    v = logits.shape[1]
    stats = of_logits(logits, targets)
    # logprob is a difference of numbers as large as the logits, in fp32.
    assert_same(stats, reference_stats(logits, targets), nats=NATS + 1e-6 * float(logits.abs().max()))
    assert (stats.logprob <= stats.top1_logprob).all() and (stats.top1_logprob <= 0).all()
    assert (stats.entropy >= 0).all() and (stats.entropy <= torch.tensor(math.log(v)) + 1e-6).all()
    assert (stats.logprob == stats.top1_logprob)[stats.rank == 1].all()
    assert (stats.rank >= 1).all() and (stats.ties >= 0).all() and (stats.rank + stats.ties <= v).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(logits_and_targets(), st.randoms(use_true_random=False))
def test_names_of_entries_do_not_matter(case: tuple[torch.Tensor, torch.Tensor], random: object) -> None:
    logits, targets = case
    order = list(range(logits.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    place = torch.tensor(order).argsort()
    straight, renamed = of_logits(logits, targets), of_logits(logits[:, order], place[targets])
    for one, other in zip(straight[:-1], renamed[:-1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    first, first_renamed = straight.top1_id[:, None].long(), renamed.top1_id[:, None].long()
    assert torch.equal(logits.gather(1, first), logits[:, order].gather(1, first_renamed))
