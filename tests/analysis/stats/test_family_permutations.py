"""Which orders of candidates a permutation null takes, and whether its p holds where families are alike."""

import numpy as np
import pytest

from forecast.analysis.stats.family_permutations import family_orders
from forecast.analysis.stats.rank_correlation import best_of_many_p

ALL = np.ones(80, bool)


def test_a_family_gets_the_values_of_one_family_as_a_whole() -> None:
    families = list("aaabbbbcd")
    orders = family_orders(families, 200, 0)
    assert orders.shape == (200, 9)
    for order in orders:
        sources = [
            {families[i] for i in order[[j for j, f in enumerate(families) if f == name]]} for name in "abcd"
        ]
        assert all(len(one) == 1 for one in sources)
        assert set.union(*sources) == set("abcd")  # and no two families those of the same
        # As many different values as there can be.
        assert len(set(order[:3])) == min(3, families.count(min(sources[0])))
    # Within a family too the order changes.
    assert len({tuple(order[:3]) for order in orders if set(order[:3]) == {0, 1, 2}}) == 6
    np.testing.assert_array_equal(orders, family_orders(families, 200, 0))


@pytest.mark.parametrize("families", ["abcd", "aaaa"], ids=["each alone", "one family"])
def test_of_few_candidates_each_other_order_is_taken_once(families: str) -> None:
    orders = family_orders(families, 100, 0)
    assert len(orders) == 23 == len({tuple(order) for order in orders})
    assert (0, 1, 2, 3) not in {tuple(order) for order in orders}
    assert len(family_orders(families, 22, 0)) == 22


@pytest.mark.parametrize("sizes", [[4] * 5, [10, 2, 2, 2, 2], [1] * 6 + [4] * 3], ids=str)
def test_p_is_no_smaller_than_it_says_where_families_are_alike(sizes: list[int]) -> None:
    """Proxies and scores are independent, both are alike within families: taken one by one, 54 to 86 %."""
    rng = np.random.default_rng(1)
    family = np.repeat(np.arange(len(sizes)), sizes)

    def alike(columns: int) -> np.ndarray:
        shared = rng.normal(size=(columns, len(sizes)))[:, family]
        return np.sqrt(0.9) * shared + np.sqrt(0.1) * rng.normal(size=(columns, len(family)))

    found = []
    for seed in range(200):
        features = rng.normal(size=(80, 8)) @ alike(8) + 0.5 * rng.normal(size=(80, len(family)))
        found.append(best_of_many_p(features, alike(1)[0], ALL, family.tolist(), 99, seed)[0])
    # Of 200 draws at a true 0.05 the share has a standard error of 0.015.
    assert np.mean(np.array(found) <= 0.05) <= 0.095
