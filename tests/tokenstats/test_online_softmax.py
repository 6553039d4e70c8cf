"""Parts of a vocabulary merge to the whole, however it is cut, and nothing broken is lost on the way."""

import itertools
import math
from functools import reduce
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenstats.cases import NATS, assert_same, normal

from forecast.tokenstats import logit_stats
from forecast.tokenstats.online_softmax import NO_ID, Partials, combine, concatenate, finish, nothing
from forecast.tokenstats.reference import reference_stats
from forecast.tokenstats.torch_tiles import block_partials
from forecast.tokenstats.types import LogitTransform

INF = math.inf
CPU = torch.device("cpu")


def part(logits: Any, target: Any = 0.0) -> Partials:
    """State of one token after these logits."""
    logits = torch.as_tensor(logits, dtype=torch.float32)
    return block_partials(logits[None], torch.tensor([float(target)]), LogitTransform(), 1)[0]


def moved(state: Partials, start: int) -> Partials:
    """The state of a part whose first entry is the vocabulary's number `start`."""
    return state._replace(top1=torch.where(state.top1 == NO_ID, NO_ID, state.top1 + start))


def merge(*parts: Partials) -> Partials:
    return combine(Partials(*(torch.stack(tensors) for tensors in zip(*parts, strict=True))))


def nats_of(whole: Partials, target: float = 0.0) -> tuple[float, float, float]:
    stats = finish(whole, torch.tensor([target]), 10)
    return stats.logprob.item(), stats.entropy.item(), stats.top1_logprob.item()


def test_a_part_says_what_its_definition_says() -> None:
    state = part([1.0, 3.0, 2.0, 2.0], target=2.0)
    e1, e2 = math.exp(-1), math.exp(-2)
    assert state.max.item() == 3 and state.greater.item() == 1 and state.equal.item() == 2
    assert state.sum_exp.item() == pytest.approx(1 + 2 * e1 + e2, rel=1e-6)
    assert state.weighted.item() == pytest.approx(-2 * e1 - 2 * e2, rel=1e-6)
    assert [t.dtype for t in state] == [torch.float32] * 3 + [torch.int32] * 3
    assert state.top1.item() == 1


def test_nothing_changes_nothing() -> None:
    some = block_partials(normal(7, 20, seed=1), torch.zeros(7), LogitTransform(), 3)[0]
    for merged in (merge(some, nothing(7, CPU)), merge(nothing(7, CPU), some)):
        for one, other in zip(merged, some, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("masked", [[-INF], [-INF] * 5])
def test_masked_parts_contribute_nothing(masked: list[float]) -> None:
    some, mask = part([1.0, 0.0]), part(masked)
    assert (mask.max.item(), mask.sum_exp.item(), mask.weighted.item()) == (-INF, 0, 0)
    for merged in (merge(some, mask), merge(mask, merge(mask, some))):
        assert all(torch.equal(one, other) for one, other in zip(merged, some, strict=True))


def test_all_masked_is_nan_and_never_infinite() -> None:
    assert all(math.isnan(x) for x in nats_of(merge(part([-INF]), part([-INF, -INF]))))
    assert all(math.isnan(x) for x in nats_of(nothing(1, CPU)))


@pytest.mark.parametrize("others", [[0.0], [-INF], [1e4], [3e38], [-3e38]])
@pytest.mark.parametrize("bad", [math.nan, INF])
def test_nan_and_infinity_survive_merging(bad: float, others: list[float]) -> None:
    broken, whole = part([0.0, bad]), part(others)
    for merged in (merge(broken, whole), merge(whole, broken), merge(broken, broken)):
        assert all(math.isnan(x) for x in nats_of(merged))


def test_far_apart_parts() -> None:
    for high, low in ((1e4, -1e4), (3e38, -3e38)):
        merged = merge(part([low, low]), part([high]))
        assert nats_of(merged, high) == (0, 0, 0)


def test_rounding_cannot_make_a_probability_above_one() -> None:
    state = Partials(
        torch.tensor([5.0]),
        torch.tensor([0.9999999]),
        torch.tensor([1e-7]),
        torch.zeros(1, dtype=torch.int32),
        torch.ones(1, dtype=torch.int32),
        torch.zeros(1, dtype=torch.int32),
    )
    assert nats_of(state, 5.0) == (0, 0, 0)


def test_the_order_of_parts_does_not_matter() -> None:
    parts = [
        block_partials(normal(5, v, seed=v) * 9, torch.zeros(5), LogitTransform(), 2)[0]
        for v in (1, 3, 50, 7)
    ]
    at_once = merge(*parts)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        for one, other in zip(reduce(merge, [parts[i] for i in order]), at_once, strict=True):
            torch.testing.assert_close(one, other)


def test_first_choice_of_parts_is_the_lowest_id_of_the_largest() -> None:
    low, high, masked = part([0.0, 2.0, 2.0]), moved(part([2.0, 1.0]), 3), moved(part([-INF]), 5)
    for parts in ((low, high, masked), (masked, high, low)):
        assert merge(*parts).top1.item() == 1
    assert merge(part([0.0, 1.0]), high, masked).top1.item() == 3
    nowhere = merge(masked, part([-INF]))
    assert (nowhere.top1.item(), finish(nowhere, torch.tensor([0.0]), 10).top1_id.item()) == (NO_ID, -1)


def test_concatenation_keeps_tokens_apart() -> None:
    logits, target = normal(9, 20, seed=1), torch.zeros(9)
    whole = block_partials(logits, target, LogitTransform(), 4)[0]
    pieces = [block_partials(logits[a:b], target[a:b], LogitTransform(), 4)[0] for a, b in ((0, 4), (4, 9))]
    for one, other in zip(concatenate(pieces), whole, strict=True):
        torch.testing.assert_close(one, other)


@st.composite
def cut_logits(draw: st.DrawFn) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Logits of 1 to 4 tokens in 1 to 5 parts, some of them empty; -inf here and there."""
    n, sizes = draw(st.integers(1, 4)), draw(st.lists(st.integers(0, 12), min_size=1, max_size=5))
    if sum(sizes) == 0:
        sizes[0] = 1
    number = draw(
        st.sampled_from([st.integers(-2, 2), st.floats(-30, 30, width=32), st.floats(-1e4, 1e4, width=32)])
    )
    value = st.one_of(number, number, number, st.just(-INF))
    parts = [
        torch.tensor(
            draw(st.lists(st.lists(value, min_size=v, max_size=v), min_size=n, max_size=n)),
            dtype=torch.float32,
        ).reshape(n, v)
        for v in sizes
    ]
    v = sum(sizes)
    targets = torch.tensor(draw(st.lists(st.integers(0, v - 1), min_size=n, max_size=n)))
    return parts, targets


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cut_logits(), st.integers(1, 5))
def test_parts_make_the_whole(case: tuple[list[torch.Tensor], torch.Tensor], tile_rows: int) -> None:
    pieces, targets = case
    logits = torch.cat(pieces, dim=1)
    target_N = logits.gather(1, targets[:, None]).squeeze(1)
    parts = [block_partials(piece, target_N, LogitTransform(), tile_rows)[0] for piece in pieces]
    starts = itertools.accumulate((piece.shape[1] for piece in pieces), initial=0)
    stats = finish(merge(*map(moved, parts, starts)), target_N, logits.shape[1])
    scale = float(logits[logits.isfinite()].abs().max()) if logits.isfinite().any() else 0.0
    assert_same(stats, reference_stats(logits, targets), nats=NATS + 1e-6 * scale)
    assert_same(stats, logit_stats(logits, targets), nats=NATS)
    seen = ~stats.logprob.isnan()
    assert (stats.logprob <= stats.top1_logprob)[seen].all() and (stats.top1_logprob <= 0)[seen].all()
    assert (stats.entropy >= 0)[seen].all()
    assert (stats.entropy <= torch.tensor(math.log(logits.shape[1])) + 1e-6)[seen].all()
