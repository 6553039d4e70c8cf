"""Which computation sequences can share: a tree of common beginnings, laid out for a model to read.

Solutions of several experts to one problem, the options of a question and all items under one few-shot header
begin alike, and what a causal model computes for a token depends on nothing that follows. So each common
beginning needs to be read once: several sequences stand in one row in which a token sees only its own
ancestors (a pack), or, where that would be too long, the states of the beginning are kept and the rest is
read against them (a path).

Legend: L tokens of a row, P tokens of the path before it, n nodes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]

# The longest row with a mask of its own, which takes L x (P + L) numbers.
_LONGEST_ROW = 4096
# Deeper trees hardly save anything more; their members are read apart from there on.
_DEEPEST = 64


@dataclass(frozen=True)
class Node:
    """Tokens `start..stop` of all its members, which agree up to `stop`; some end there, the rest part."""

    start: int
    stop: int
    members: tuple[int, ...]  # indices of the sequences that pass through or end here
    children: tuple["Node", ...] = ()

    def __len__(self) -> int:
        return self.stop - self.start

    @cached_property
    def tokens(self) -> int:
        """Of the whole subtree, each counted once."""
        return len(self) + sum(child.tokens for child in self.children)


@dataclass(frozen=True)
class KeptPrefix:
    """A beginning whose states are kept while `packs` and `paths` are read against them."""

    node: Node
    packs: tuple[tuple[Node, ...], ...]
    paths: tuple["KeptPrefix", ...]


@dataclass(frozen=True)
class PrefixPlan:
    """How to read a set of sequences: alone, as trees of one row each, or against kept beginnings."""

    alone: tuple[int, ...] = ()
    trees: tuple[Node, ...] = ()
    paths: tuple[KeptPrefix, ...] = ()


@dataclass(frozen=True)
class Costs:
    """What reading costs, in units of one token's way through a body without attention."""

    pair: float  # one token looking at another
    call: float  # a further call of the body, with its poor use of small batches
    longest: float = math.inf  # the most tokens of a row, with what comes before it

    def allow(self, tokens: int, before: int) -> bool:
        """Whether so many tokens may stand in one row after so many others."""
        return tokens <= _LONGEST_ROW and before + tokens <= self.longest

    def row(self, tokens: int, before: int) -> float:
        """Tokens with a mask of their own after so many others."""
        return tokens + self.pair * tokens * (before + tokens)

    def causal(self, tokens: int) -> float:
        """Tokens of a plain sequence, of which each looks at half the others on average."""
        return tokens + self.pair * tokens * tokens / 2


def plan_reading(sequences: Mapping[int, Tokens], costs: Costs) -> PrefixPlan:
    """The cheapest way to read these sequences; it does not depend on their order.

    Args:
        sequences: token ids by index, none empty.
        costs: see there; rows with a mask attend to more than they need, kept beginnings mean more calls.
    """
    found: dict[int, _Against] = {}
    return _joined([_cheapest(tree, costs, found)[1] for tree in common_beginnings(sequences)])


def _joined(plans: Sequence[PrefixPlan]) -> PrefixPlan:
    return PrefixPlan(
        tuple(i for plan in plans for i in plan.alone),
        tuple(tree for plan in plans for tree in plan.trees),
        tuple(path for plan in plans for path in plan.paths),
    )


_Against = tuple[float, tuple[tuple[Node, ...], ...], tuple[KeptPrefix, ...]]


def _cheapest(node: Node, costs: Costs, found: dict[int, _Against]) -> tuple[float, PrefixPlan]:
    """How to read a tree that follows nothing, and what that costs; `found` is for `_after`."""
    if len(node.members) == 1:
        return costs.causal(len(node)), PrefixPlan(alone=node.members)
    parted = [_cheapest(part, costs, found) for part in _parted(node)]
    best = sum(cost for cost, _ in parted), _joined([plan for _, plan in parted])
    if costs.allow(node.tokens, 0) and (cost := costs.row(node.tokens, 0)) < best[0]:
        best = cost, PrefixPlan(trees=(node,))
    if node.children:
        after, packs, paths = _after(node, costs, found)
        if (cost := costs.call + costs.causal(len(node)) + after) < best[0]:
            best = cost, PrefixPlan(paths=(KeptPrefix(node, packs, paths),))
    return best


def _after(start: Node, costs: Costs, found: dict[int, _Against]) -> _Against:
    """How to read a node's children against the states of all that comes before them, and what that costs.

    The same children are asked for again wherever a node above is tried out in parts, hence `found`.
    """
    if (key := id(start.children)) not in found:
        found[key] = _against(start.children, start.stop, costs, found)
    return found[key]


def _against(nodes: Sequence[Node], before: int, costs: Costs, found: dict[int, _Against]) -> _Against:
    packed: list[Node] = []
    paths: list[KeptPrefix] = []
    total = 0.0
    waiting = list(reversed(nodes))
    while waiting:
        node = waiting.pop()
        if not node.children:
            packed.append(node)
            continue
        whole = costs.call + costs.row(node.tokens, before)
        inner, packs, deeper = _after(node, costs, found)
        kept = costs.call + costs.row(len(node), before) + inner
        parts = _parted(node)
        apart = sum(costs.call + costs.row(part.tokens, before) for part in parts)
        if costs.allow(node.tokens, before) and whole <= min(kept, apart):
            packed.append(node)
        elif kept <= apart:
            total += kept
            paths.append(KeptPrefix(node, packs, deeper))
        else:
            waiting += reversed(parts)
    rows: list[list[Node]] = []
    filled = 0
    for node in sorted(packed, key=lambda one: one.tokens):
        # Neighbours in a row look at each other in vain, which small ones may, for one call less.
        joins = bool(rows) and 2 * costs.pair * filled * node.tokens < costs.call
        if joins and costs.allow(filled + node.tokens, before):
            rows[-1].append(node)
            filled += node.tokens
        else:
            rows.append([node])
            filled = node.tokens
    total += sum(costs.call + costs.row(sum(node.tokens for node in row), before) for row in rows)
    return total, tuple(tuple(row) for row in rows), tuple(paths)


def common_beginnings(sequences: Mapping[int, Tokens]) -> list[Node]:
    """The forest of common beginnings: one tree per first token, in the order of the tokens."""
    # Big-endian bytes sort like the numbers that they hold.
    order = sorted(sequences, key=lambda i: (sequences[i].astype(">i8").tobytes(), i))
    shared = [_agreement(sequences[a], sequences[b]) for a, b in pairwise(order)]
    return _parts(order, shared, {i: len(s) for i, s in sequences.items()}, start=0, depth=0)


def _agreement(a: Tokens, b: Tokens) -> int:
    """How many tokens at the beginning are the same."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def _parts(
    order: Sequence[int], shared: Sequence[int], lengths: Mapping[int, int], start: int, depth: int
) -> list[Node]:
    """Nodes that begin at `start`; neighbours in `order` agree on `shared` tokens, all on `start`."""
    if not order:
        return []
    cuts = [i + 1 for i, agreed in enumerate(shared) if agreed <= start or depth == _DEEPEST]
    nodes = []
    for a, b in pairwise([0, *cuts, len(order)]):
        members, inner = order[a:b], shared[a : b - 1]
        stop = min(inner, default=lengths[members[0]])
        ending = sum(lengths[i] == stop for i in members)  # the shortest stand first
        children = _parts(members[ending:], inner[ending:], lengths, stop, depth + 1)
        nodes.append(Node(start, stop, tuple(members), tuple(children)))
    return nodes


def _parted(node: Node) -> list[Node]:
    """The children of a node that is not worth its while, each with the node's own tokens."""
    inner = {i for child in node.children for i in child.members}
    ended = [Node(node.start, node.stop, (i,)) for i in node.members if i not in inner]
    return [*ended, *(replace(child, start=node.start) for child in node.children)]


@dataclass(frozen=True)
class PackedRow:
    """Trees as one row: what the model reads, and where each node stands in it."""

    tokens: Tokens  # [L]
    positions: NDArray[np.int64]  # [L], place of each token in its own sequence
    seen: NDArray[np.bool_]  # [L, L], which tokens of the row a token (first axis) may look at
    nodes: tuple[tuple[Node, int], ...]  # each with the index of its first token in the row


def lay_out(trees: Sequence[Node], sequences: Sequence[Tokens]) -> PackedRow:
    """One row of all nodes, parents before children; a token sees what its own sequences have up to it."""
    nodes: list[Node] = []
    parents: list[int] = []

    def add(node: Node, parent: int) -> None:
        own = len(nodes)
        nodes.append(node)
        parents.append(parent)
        for child in node.children:
            add(child, own)

    for tree in trees:
        add(tree, -1)
    lengths = [len(node) for node in nodes]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    related_nn = np.eye(len(nodes), dtype=bool)
    for own, parent in enumerate(parents):
        if parent >= 0:
            related_nn[own] |= related_nn[parent]
    node_L = np.repeat(np.arange(len(nodes)), lengths)
    seen = related_nn[node_L][:, node_L] & np.tri(len(node_L), dtype=bool)
    return PackedRow(
        tokens=np.concatenate([sequences[n.members[0]][n.start : n.stop] for n in nodes]),
        positions=np.concatenate([np.arange(n.start, n.stop) for n in nodes]),
        seen=seen,
        nodes=tuple(zip(nodes, (int(s) for s in starts), strict=True)),
    )
