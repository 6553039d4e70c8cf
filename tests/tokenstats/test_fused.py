"""The fast statistics against the plain definitions in fp64, on odd shapes and at the edges of arithmetic.

Logits reach `token_stats` as the product of `hidden` and `head`. Where a test needs given logits exactly,
the head is the identity; where it needs the same logits whatever the order of summation, all factors are
small integers.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast.tokenstats.fused import token_stats
from forecast.tokenstats.reference import reference_stats
from forecast.tokenstats.types import TokenStats

INF = math.inf
# fp32 sums of a thousand terms; logits up to about 60.
NATS = 2e-5


def integers(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=generator).to(dtype)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def targets_of(n: int, v: int) -> torch.Tensor:
    """Ids from all over the vocabulary, the first and the last among them."""
    return torch.linspace(0, v - 1, n).round().long()


def of_logits(logits: torch.Tensor, targets: torch.Tensor, **options: object) -> TokenStats:
    """Statistics of logits [N, V] that are given as they are."""
    return token_stats(logits, torch.eye(logits.shape[1]), targets, **options)  # type: ignore[arg-type]


def assert_same(fast: TokenStats, plain: TokenStats, nats: float = NATS) -> None:
    torch.testing.assert_close(fast.rank.long(), plain.rank, rtol=0, atol=0)
    torch.testing.assert_close(fast.ties.long(), plain.ties, rtol=0, atol=0)
    for name in ("logprob", "entropy", "top1_logprob"):
        torch.testing.assert_close(
            getattr(fast, name).double(),
            getattr(plain, name),
            rtol=1e-6,
            atol=nats,
            msg=lambda m, n=name: f"{n}: {m}",
        )


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
    assert [t.dtype for t in fast] == [torch.float32, torch.float32, torch.int32, torch.int32, torch.float32]
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


@pytest.mark.parametrize("rows", [1, 2, 7, 100, 254, 255, 10_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_block_size_changes_nothing(rows: int, dtype: torch.dtype) -> None:
    hidden, head = integers(255, 16, seed=1, dtype=dtype), integers(507, 16, seed=2, dtype=dtype)
    targets = targets_of(255, 507)
    blocked = token_stats(hidden, head, targets, budget_bytes=rows * 507 * 4)
    assert_same(blocked, reference_stats(hidden.double() @ head.double().T, targets))


@pytest.mark.parametrize("budget", [1, 20_000, 100_000])
def test_logits_stay_within_the_budget(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    linear = torch.nn.functional.linear

    def measured(*arguments: torch.Tensor) -> torch.Tensor:
        logits = linear(*arguments)
        sizes.append(logits.numel() * logits.element_size())
        return logits

    monkeypatch.setattr(torch.nn.functional, "linear", measured)
    token_stats(
        integers(255, 16, seed=1), integers(507, 16, seed=2), targets_of(255, 507), budget_bytes=budget
    )
    assert sum(sizes) == 255 * 507 * 4
    assert max(sizes) <= max(budget, 507 * 4)


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
    assert [float(t[0]) for t in stats] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("bad", [math.nan, INF])
@pytest.mark.parametrize("column", [0, 250, 506])
def test_broken_logits_give_nan(bad: float, column: int) -> None:
    bias = torch.zeros(507)
    bias[column] = bad
    stats = token_stats(integers(9, 16, seed=1), integers(507, 16, seed=2), targets_of(9, 507), bias=bias)
    assert all(t.isnan().all() for t in (stats.logprob, stats.entropy, stats.top1_logprob))


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
    for one, other in zip(
        of_logits(logits, targets), of_logits(logits[:, order], place[targets]), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
