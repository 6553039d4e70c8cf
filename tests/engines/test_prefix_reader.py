"""Reading with shared beginnings, with a body whose states spell out what each token was allowed to see."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from forecast.engines.prefix_reader import PrefixReader, batches, can_share
from forecast.engines.prefix_tree import Costs, common_beginnings, lay_out, plan_reading

TOKENS, LONGEST, WIDTH = 4, 40, 5
FREE = Costs(pair=0, call=0)


class Body(torch.nn.Module):
    """A state is the sum of random vectors, one for each (token, position) that may be looked at."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shape = (TOKENS + 5, LONGEST, WIDTH)
        self.table = torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        self.calls: list[tuple[int, int]] = []  # rows and length of each
        self.farthest = 0  # place in a row
        self.blind = False  # to what the mask says

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        use_cache: bool = False,
    ) -> tuple[torch.Tensor]:
        rows, length = input_ids.shape
        self.calls.append((rows, length))
        before = past_key_values.get_seq_length() if past_key_values is not None else 0
        self.farthest = max(self.farthest, before + length)
        if position_ids is None:
            position_ids = torch.arange(before, before + length).expand(rows, length)
        values = self.table[input_ids, position_ids][:, None]
        if past_key_values is not None:
            values, _ = past_key_values.update(values, values, 0)
        seen = torch.tril(torch.ones(length, before + length, dtype=torch.bool), before)
        if attention_mask is not None and not self.blind:
            assert attention_mask.shape == (rows, 1, length, before + length)
            seen = attention_mask[:, 0] == 0
            assert seen.any(-1).all()
        return (seen.double() @ values[:, 0],)


def assert_right(
    reader: PrefixReader, body: Body, sequences: Sequence[np.ndarray], first_scored: Sequence[int]
) -> None:
    """Each token asked for is predicted once, from the tokens before it and nothing else."""
    count: Counter[tuple[int, int]] = Counter()
    for found in reader.read(sequences, first_scored):
        for i, p, state in zip(found.sequence, found.position, found.hidden, strict=True):
            count[int(i), int(p)] += 1
            own = torch.from_numpy(sequences[i][:p])
            expected = body.table[own, torch.arange(p)].sum(0)
            torch.testing.assert_close(state, expected, rtol=0, atol=1e-9)
    wanted = {
        (i, p)
        for i, (ids, first) in enumerate(zip(sequences, first_scored, strict=True))
        for p in range(first, len(ids))
    }
    assert count == dict.fromkeys(wanted, 1)


@st.composite
def reading_cases(draw: st.DrawFn) -> tuple[list[np.ndarray], list[int], Costs, int, int | None]:
    """Sequences that often begin alike, some the same, some the beginning of others."""
    sequences: list[list[int]] = []
    token = st.integers(0, TOKENS - 1)
    for _ in range(draw(st.integers(1, 9))):
        beginning: list[int] = []
        if sequences and draw(st.booleans()):
            other = draw(st.sampled_from(sequences))
            beginning = other[: draw(st.integers(0, len(other)))]
        ids = [*beginning, *draw(st.lists(token, max_size=8))][:LONGEST]
        sequences.append(ids if len(ids) > 1 else [*ids, 0, 1])
    firsts = [draw(st.integers(1, len(ids) - 1)) for ids in sequences]
    costs = Costs(
        pair=draw(st.sampled_from([0, 1e-3, 0.1, 1])),
        call=draw(st.sampled_from([-100, 0, 1, 10])),
        longest=max(map(len, sequences)) + draw(st.sampled_from([0, 3, 1000])),
    )
    batch_tokens, reach = draw(st.integers(1, 60)), draw(st.sampled_from([None, 0, 6, 100]))
    return [np.asarray(ids, dtype=np.int64) for ids in sequences], firsts, costs, batch_tokens, reach


@settings(deadline=None, max_examples=300)
@given(reading_cases())
@torch.inference_mode()
def test_every_token_sees_its_own_past_only(
    case: tuple[list[np.ndarray], list[int], Costs, int, int | None],
) -> None:
    sequences, firsts, costs, batch_tokens, reach = case
    body = Body()
    reader = PrefixReader(body, torch.device("cpu"), batch_tokens, costs, reach)
    assert_right(reader, body, sequences, firsts)
    assert_right(reader, body, sequences[::-1], firsts[::-1])  # with what was kept from the first time
    assert body.farthest <= costs.longest


def arrays(*sequences: Sequence[int]) -> list[np.ndarray]:
    return [np.asarray(ids, dtype=np.int64) for ids in sequences]


def tokens_read(sequences: Sequence[np.ndarray], firsts: Sequence[int], costs: Costs | None) -> int:
    body = Body()
    with torch.inference_mode():
        assert_right(PrefixReader(body, torch.device("cpu"), 1, costs), body, sequences, firsts)
    return sum(rows * length for rows, length in body.calls)


PROMPT = [0, 1, 2, 3] * 5
EXPERTS = arrays([*PROMPT, 1, 1, 1, 0], [*PROMPT, 2, 2, 0], [*PROMPT, 3, 3, 3, 3, 0])


class TestWhatIsRead:
    """The last token of each sequence need not be: nothing that is asked for follows it."""

    @pytest.mark.parametrize("call", [0, -100], ids=["as one row", "against kept states"])
    def test_a_prompt_once(self, call: float) -> None:
        assert tokens_read(EXPERTS, [20, 20, 20], Costs(0, call)) == 20 + 3 + 2 + 4

    def test_everything_apart_without_costs(self) -> None:
        assert tokens_read(EXPERTS, [20, 20, 20], None) == 3 * 20 + 3 + 2 + 4

    def test_nothing_shared_where_looking_is_dear(self) -> None:
        assert tokens_read(EXPERTS, [20, 20, 20], Costs(pair=1, call=1000)) == 3 * 20 + 3 + 2 + 4

    def test_the_same_twice_once(self) -> None:
        assert tokens_read([EXPERTS[0], EXPERTS[0]], [20, 3], FREE) == 23

    def test_a_header_and_the_prompts_behind_it(self) -> None:
        header = [3, 2, 1, 0] * 4
        items = arrays(*([*header, q, q, q, *option, 0] for q in (0, 1) for option in ([2], [3, 3])))
        firsts = [len(ids) - 1 for ids in items]
        for call in (0, -100):
            assert tokens_read(items, firsts, Costs(0, call)) == 16 + 2 * (3 + 1 + 2)

    def test_one_token_in_common_is_not_worth_a_row(self) -> None:
        sequences = arrays([0, *[1] * 30], [0, *[2] * 30])
        plan = plan_reading(dict(enumerate(sequences)), Costs(pair=1e-3, call=24))
        assert sorted(plan.alone) == [0, 1]


class TestKeptBetweenCalls:
    @torch.inference_mode()
    def test_a_header_is_read_once(self) -> None:
        body = Body()
        reader = PrefixReader(body, torch.device("cpu"), 1, Costs(0, -100))
        for _ in range(2):
            assert_right(reader, body, EXPERTS, [21, 21, 21])
        assert body.calls.count((1, 20)) == 1
        reader.forget()
        assert_right(reader, body, EXPERTS, [21, 21, 21])
        assert body.calls.count((1, 20)) == 2

    @torch.inference_mode()
    def test_not_where_it_predicts_something_or_differs(self) -> None:
        body = Body()
        reader = PrefixReader(body, torch.device("cpu"), 1, Costs(0, -100))
        assert_right(reader, body, EXPERTS, [21, 21, 21])
        assert_right(reader, body, EXPERTS, [4, 21, 21])
        assert_right(reader, body, [np.append(PROMPT[:-1], ids[20:]) for ids in EXPERTS], [20, 20, 20])

    @torch.inference_mode()
    def test_not_after_a_call_that_was_broken_off(self) -> None:
        body = Body()
        reader = PrefixReader(body, torch.device("cpu"), 1, Costs(0, -100))
        found = reader.read(EXPERTS, [21, 21, 21])
        next(found)
        found.close()
        assert_right(reader, body, EXPERTS, [21, 21, 21])


class TestWhetherABodyCanShare:
    @torch.inference_mode()
    def test_one_that_heeds_mask_and_positions(self) -> None:
        assert can_share(Body(), torch.device("cpu"), np.arange(7), 1e-6)

    @torch.inference_mode()
    def test_one_that_heeds_no_mask(self) -> None:
        body = Body()
        body.blind = True
        assert not can_share(body, torch.device("cpu"), np.arange(7), 1e-6)

    @torch.inference_mode()
    def test_one_that_takes_no_mask(self) -> None:
        class Plain(Body):
            def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:  # type: ignore[override]
                return super().forward(input_ids)

        assert not can_share(Plain(), torch.device("cpu"), np.arange(7), 1e-6)


def test_layout_puts_parents_before_children() -> None:
    sequences = dict(enumerate(arrays([5, 6, 7], [5, 6, 8, 9])))
    (tree,) = common_beginnings(sequences)
    row = lay_out([tree], list(sequences.values()))
    assert row.tokens.tolist() == [5, 6, 7, 8, 9]
    assert row.positions.tolist() == [0, 1, 2, 2, 3]
    assert row.seen.astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]
    assert [(len(node.members), begin) for node, begin in row.nodes] == [(2, 0), (1, 2), (1, 3)]


def test_batches_hold_what_fits_with_padding() -> None:
    found = list(batches([3, 10, 2, 9, 30], 20))
    assert found == [[4], [1, 3], [0, 2]]
    assert list(batches([], 20)) == []


@pytest.mark.parametrize("costs", [FREE, Costs(0, -100), Costs(1, 1000), Costs(1e-3, 24)])
def test_a_long_chain_of_beginnings_is_planned_at_once(costs: Costs) -> None:
    chain = arrays(*([*[0] * n, 1, 2] for n in range(1, 200)))
    plan = plan_reading(dict(enumerate(chain)), costs)
    assert plan == plan_reading(dict(enumerate(chain)), costs)


def test_a_long_chain_of_beginnings_is_read() -> None:
    chain = arrays(*([*[0] * n, 1, 2] for n in range(1, LONGEST - 2)))
    for costs in (FREE, Costs(1, 0)):
        assert tokens_read(chain, [1] * len(chain), costs) < sum(len(ids) - 1 for ids in chain)
