"""Hidden states of many sequences from a causal transformer, each common beginning computed once.

Sequences that share nothing are padded on the right and read without a mask: earlier positions cannot see
what follows them. Those that share a beginning are read as planned by `forecast.engines.prefix_tree`.

Legend: R rows of a batch, L its longest length, P tokens whose states are kept, D hidden size, N predicted
tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from forecast.engines.prefix_tree import (
    Costs,
    KeptPrefix,
    PackedRow,
    PrefixPlan,
    Tokens,
    lay_out,
    plan_reading,
)


@dataclass(frozen=True)
class PredictorStates:
    """Hidden states that predict tokens: `hidden[k]` predicts token `position[k]` of `sequence[k]`."""

    sequence: NDArray[np.int64]  # [N]
    position: NDArray[np.int64]  # [N]
    hidden: torch.Tensor  # [N, D]


class PrefixReader:
    """Runs a transformer's body; see the module's text."""

    def __init__(
        self,
        body: Any,
        device: torch.device,
        batch_tokens: int,
        costs: Costs | None = None,
        reach: int | None = None,
    ) -> None:
        """Set up for a body.

        Args:
            body: a decoder without its output head, as transformers makes them.
            batch_tokens: the most tokens of a batch, padding included; a longer sequence is one by itself.
            costs: what reading costs, to find what is worth sharing; None to share nothing.
            reach: longer sequences are read apart, for the body sees fewer tokens of them than a mask would
                allow.
        """
        self._body, self._device = body, device
        self.batch_tokens = batch_tokens
        self._costs, self._reach = costs, reach
        self.whole = False  # read last tokens too, for models that encode positions by the length of a text
        self._kept: tuple[bytes, DynamicCache] | None = None  # tokens and states of the path read last
        # Of what was read last in shared rows: the last place of a token, after kept ones, and its sequence.
        self.farthest = (0, 0)

    def read(self, sequences: Sequence[Tokens], first_scored: Sequence[int]) -> Iterator[PredictorStates]:
        """Hidden states for the tokens from `first_scored` on of every sequence, in no particular order.

        Args:
            sequences: token ids, each of at least two.
            first_scored: index of the first token to predict in each sequence, at least 1.
        """
        self.farthest = (0, 0)
        # The last token predicts nothing that is asked for, so it need not be read, see `whole`.
        inputs = [ids[:-1] for ids in sequences]
        first_predictor = [first - 1 for first in first_scored]
        reach = max(map(len, inputs), default=0) if self._reach is None else self._reach
        within = {i: ids for i, ids in enumerate(inputs) if self._costs is not None and len(ids) <= reach}
        plan = PrefixPlan() if self._costs is None else plan_reading(within, self._costs)
        apart = set(range(len(inputs))).difference(within)
        texts = sequences if self.whole else inputs
        yield from self._read_alone(sorted(apart.union(plan.alone)), texts, inputs, first_predictor)
        rows = [lay_out([tree], inputs) for tree in plan.trees]
        for batch in batches([len(row.tokens) for row in rows], self.batch_tokens):
            chosen = [rows[i] for i in batch]
            yield self._predicted(chosen, self._run(chosen, None), first_predictor)
        for path in plan.paths:
            yield from self._read_path(path, None, inputs, first_predictor)

    def stop_sharing(self) -> bool:
        """Read every sequence apart from now on, which takes the least memory; False if it was so before."""
        before, self._costs = self._costs, None
        return before is not None

    def stop_batching(self) -> bool:
        """Read one sequence at a time from now on; False if it was so before."""
        before, self.batch_tokens = self.batch_tokens, 1
        return before > 1

    def forget(self) -> None:
        """Give back the states that are kept between calls."""
        self._kept = None

    def _read_alone(
        self,
        chosen: Sequence[int],
        texts: Sequence[Tokens],
        inputs: Sequence[Tokens],
        first_predictor: Sequence[int],
    ) -> Iterator[PredictorStates]:
        for batch in batches([len(texts[i]) for i in chosen], self.batch_tokens):
            members = [chosen[i] for i in batch]
            ids_RL = _padded([texts[i] for i in members])
            hidden_RLD = self._body(input_ids=self._tensor(ids_RL), use_cache=False)[0]
            counts = [len(inputs[i]) - first_predictor[i] for i in members]
            column = np.concatenate([np.arange(first_predictor[i], len(inputs[i])) for i in members])
            row = np.repeat(np.arange(len(members)), counts)
            yield PredictorStates(
                sequence=np.repeat(np.asarray(members, dtype=np.int64), counts),
                position=column + 1,
                hidden=hidden_RLD[self._tensor(row), self._tensor(column)],
            )

    def _read_path(
        self,
        path: KeptPrefix,
        cache: DynamicCache | None,
        inputs: Sequence[Tokens],
        first_predictor: Sequence[int],
    ) -> Iterator[PredictorStates]:
        """Read what begins with a path; `cache` holds what comes before it, and does so again at the end."""
        node = path.node
        row = lay_out([replace(node, children=())], inputs)
        predicts = any(first_predictor[i] < node.stop for i in node.members)
        kept = None if predicts or cache is not None else self._kept_cache(row.tokens)
        if kept is not None:
            cache = kept
        else:
            outermost = cache is None
            cache = DynamicCache() if cache is None else cache
            hidden_1LD = self._run([row], cache)
            if outermost:
                self._kept = row.tokens.tobytes(), cache
            if predicts:
                yield self._predicted([row], hidden_1LD, first_predictor)
        for pack in path.packs:
            packed, before = lay_out(pack, inputs), cache.get_seq_length()
            yield self._predicted([packed], self._run([packed], cache), first_predictor, before)
            cache.crop(-len(packed.tokens))
        for inner in path.paths:
            yield from self._read_path(inner, cache, inputs, first_predictor)
            cache.crop(-len(inner.node))

    def _kept_cache(self, tokens: Tokens) -> DynamicCache | None:
        """The states of these very tokens from the call before.

        A longer or shorter beginning could serve in part, but then numbers would depend, in their last bits,
        on what was read earlier.
        """
        if self._kept is None or self._kept[0] != tokens.tobytes():
            return None
        cache = self._kept[1]
        # Longer where the call before was broken off.
        return cache if cache.get_seq_length() == len(tokens) else None

    def _run(self, rows: Sequence[PackedRow], cache: DynamicCache | None) -> torch.Tensor:
        """Hidden states [R, L, D] of rows that follow what is in the cache (one row then), which grows."""
        before = 0 if cache is None else cache.get_seq_length()
        if cache is not None and before == 0:  # a beginning: plainly causal
            ids_1L = self._tensor(rows[0].tokens[None])
            return cast(torch.Tensor, self._body(input_ids=ids_1L, past_key_values=cache, use_cache=True)[0])
        ids_RL = _padded([row.tokens for row in rows])
        positions_RL = _padded([row.positions for row in rows])
        longest = ids_RL.shape[1]
        seen_RLK = np.zeros((len(rows), longest, before + longest), dtype=bool)
        seen_RLK[:, :, before:] = np.eye(longest, dtype=bool)  # padding, too: a softmax over nothing is NaN
        for r, row in enumerate(rows):
            size = len(row.tokens)
            seen_RLK[r, :size, :before] = True
            seen_RLK[r, :size, before : before + size] = row.seen
        dtype = next(self._body.parameters()).dtype
        mask_R1LK = torch.zeros(len(rows), 1, longest, before + longest, dtype=dtype, device=self._device)
        mask_R1LK.masked_fill_(~self._tensor(seen_RLK)[:, None], torch.finfo(dtype).min)
        output = self._body(
            input_ids=self._tensor(ids_RL),
            attention_mask=mask_R1LK,
            position_ids=self._tensor(positions_RL),
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return cast(torch.Tensor, output[0])

    def _predicted(
        self,
        rows: Sequence[PackedRow],
        hidden_RLD: torch.Tensor,
        first_predictor: Sequence[int],
        before: int = 0,
    ) -> PredictorStates:
        found = []  # of each sequence of each node: index, position, place in all rows one after the other
        for r, row in enumerate(rows):
            for node, begin in row.nodes:
                self.farthest = max(self.farthest, (before + begin + len(node), node.members[0]))
                for i in node.members:
                    places = np.arange(max(first_predictor[i], node.start), node.stop)
                    flat = places - node.start + begin + r * hidden_RLD.shape[1]
                    found.append((np.full(len(places), i), places + 1, flat))
        sequence, position, place = (np.concatenate(each) for each in zip(*found, strict=True))
        return PredictorStates(sequence, position, hidden_RLD.flatten(0, 1)[self._tensor(place)])

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def _padded(rows: Sequence[Tokens]) -> Tokens:
    """Rows as one array [R, L], each with its own last entry repeated.

    Attention weighs padding with 0, but 0 times NaN or infinity is NaN, so a token that the sequence does not
    hold could spoil it.
    """
    longest = max(map(len, rows))
    return np.stack([np.pad(row, (0, longest - len(row)), "edge") for row in rows])


def fits_no_table(error: BaseException) -> bool:
    """Whether a model has looked behind the end of one of its tables."""
    words = ("size of tensor", "out of range", "out of bounds", "must match", "invalid for input of size")
    return isinstance(error, IndexError) or any(each in str(error) for each in words)


def can_share(body: Any, device: torch.device, ids: Tokens, tolerance: float) -> bool:
    """Whether a body gives the same hidden states when beginnings are shared, tried out on a few tokens.

    Bodies that are no plain transformers (state spaces, biases by distance in the row, caches of their own)
    give others, or fail.

    Args:
        ids: token ids, all different, seven or more.
        tolerance: relative to the largest state.
    """
    middle = len(ids) // 2
    fork = np.concatenate([ids[:middle], ids[: middle - 1 : -1]])  # what follows the other way round
    sequences, firsts = [ids, fork, ids[:-2]], [1, 2, 4]
    plain = _states(PrefixReader(body, device, batch_tokens=1), sequences, firsts)
    try:
        # As one row, where looking costs nothing, and against kept states, where further calls do not.
        for costs in (Costs(pair=0, call=0), Costs(pair=1, call=-100)):
            shared = _states(PrefixReader(body, device, 2 * len(ids), costs), sequences, firsts)
            if not bool(((shared - plain).abs().max() <= tolerance * plain.abs().max()).item()):
                return False
    except Exception:  # what a model's code raises on arguments that it does not know
        return False
    return True


def _states(reader: PrefixReader, sequences: Sequence[Tokens], first_scored: Sequence[int]) -> torch.Tensor:
    """Hidden states in the order of the sequences and their tokens."""
    found = list(reader.read(sequences, first_scored))
    keys = np.concatenate([one.sequence * 1000 + one.position for one in found])
    return torch.cat([one.hidden for one in found])[torch.from_numpy(np.argsort(keys))].float()


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, each of at most `budget` tokens with padding, or one sequence."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
