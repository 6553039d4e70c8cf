"""Permutations of candidates that leave families together, for permutation nulls.

Models of one family are alike, in their proxies as in their scores. Were candidates permuted one by one, that
likeness alone would look like a tie between proxies and scores: with independent proxies and scores of an
intra-class correlation of 0.5 and 0.9 the best of 80 had p <= 0.05 in 13 to 86 % of simulated populations of
2 to 9 families. So a family's values go to another family as a whole, in a random order within; one that is
larger than the family they come from takes some of them twice, one that is smaller leaves some out. So made,
p <= 0.05 came in 1 to 8 % (seven populations of 1 to 9 families, intra-class correlations 0, 0.5 and 0.9, 300
runs each; shorter in tests/analysis/stats).
"""

import itertools
import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_ALL_ORDERS = 8  # candidates of which every order may be taken


def family_codes(families: Sequence[Hashable]) -> Ints:
    """A number [n] for the family of each candidate, by first appearance: names have no influence."""
    codes: dict[Hashable, int] = {}
    return np.array([codes.setdefault(family, len(codes)) for family in families], int)


def family_orders(families: Sequence[Hashable], permutations: int, seed: int) -> Ints:
    """Orders of n candidates, [B, n]: place i gets the value of candidate `orders[b, i]`.

    With one candidate in each family, or one family, every order has the same chance; of few candidates each
    but the one as it is is then taken once, if that is less than `permutations`.

    Args:
        families: [n], equal ones are one family.
    """
    names = list(dict.fromkeys(families))
    groups = [np.array([i for i, one in enumerate(families) if one == name]) for name in names]
    n, free = len(families), len(groups) in (1, len(families))
    if free and n <= _ALL_ORDERS and math.factorial(n) - 1 <= permutations:
        return np.array(list(itertools.permutations(range(n))), int)[1:]
    rng = np.random.default_rng(seed)
    orders = np.empty((permutations, n), int)
    for order in orders:
        if free:
            order[:] = rng.permutation(n)
            continue
        for group, source in zip(groups, rng.permutation(len(groups)), strict=True):
            order[group] = np.resize(rng.permutation(groups[source]), len(group))
    return orders
