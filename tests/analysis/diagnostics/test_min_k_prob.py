import math

import numpy as np
import polars as pl
import pytest

from forecast.analysis.diagnostics.min_k_prob import compare_min_k, min_k


def tokens(**instances: list[float]) -> pl.DataFrame:
    rows = [("human", name, value) for name, values in instances.items() for value in values]
    return pl.DataFrame(rows, schema=["expert", "instance_id", "logprob"], orient="row").sample(
        fraction=1, shuffle=True, seed=1
    )


def test_min_k_of_known_tokens() -> None:
    ten = [-float(k) for k in range(1, 11)]
    assert min_k(tokens(a=ten), 20) == (-9.5, 1)
    assert min_k(tokens(a=ten), 21) == (-9.0, 1)  # three of ten
    assert min_k(tokens(a=ten), 100) == (pytest.approx(-5.5), 1)
    assert min_k(tokens(a=ten, b=[-1.0]), 20) == (pytest.approx(-5.25), 2)  # one token counts at least


@pytest.mark.parametrize("percent", [0.1, 5, 20, 33.3, 50, 100])
def test_against_a_slow_reference(percent: float) -> None:
    rng = np.random.default_rng(2)
    instances = {f"i{n}": list(-rng.exponential(2, size=n)) for n in (1, 2, 5, 19, 20, 21, 100)}
    means = []
    for values in instances.values():
        count = max(1, math.ceil(len(values) * percent / 100 - 1e-9))
        means.append(math.fsum(sorted(values)[:count]) / count)
    assert min_k(tokens(**instances), percent) == (pytest.approx(math.fsum(means) / len(means)), 7)


def test_excess_is_largest_for_the_memorised_task() -> None:
    values = {}
    for i, name in enumerate("abcd"):
        for task in ("t", "u", "v"):
            values[name, task] = -10.0 + i, 5
    values["a", "u"] = -5.0, 5  # the weakest candidate is the best on u
    found = {(m.candidate, m.task): m for m in compare_min_k(values, list("abcd"))}
    best = max(found.values(), key=lambda m: m.excess if m.excess is not None else -9)
    assert (best.candidate, best.task) == ("a", "u")
    column = np.array([values[name, "u"][0] for name in "abcd"])
    z = (column - column.mean()) / column.std()
    others = (np.arange(4) - 1.5) / np.arange(4).std()
    assert best.z == pytest.approx(z[0])
    assert best.others == pytest.approx(others[0])
    assert best.excess == pytest.approx(z[0] - others[0])


def test_missing_excess_has_a_reason() -> None:
    one = compare_min_k({(n, "t"): (-float(i), 1) for i, n in enumerate("abc")}, list("abc"))
    assert {m.excess for m in one} == {None}
    assert {m.reason for m in one} == {"there is no other task to compare with"}
    assert one[0].z is not None
    two = compare_min_k({(n, t): (-1.0, 1) for n in "ab" for t in "tu"}, list("ab"))
    assert all(m.z is None and m.reason and "takes 3" in m.reason for m in two)
    equal = compare_min_k({(n, t): (-1.0, 1) for n in "abc" for t in "tu"}, list("abc"))
    assert all(m.excess is None and m.reason == "all candidates have the same" for m in equal)
