"""Differences between two setups: known answers, and a slow reference on random tokens."""

import math
import statistics

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from forecast.analysis.parity.token_diff import (
    UNITS,
    TokenParity,
    pair_tokens,
    pooled_parity,
    statistics_of,
    token_parity,
)
from forecast.errors import CandidateError
from forecast.inputs.trajectories import Trajectory
from forecast.scoring import TOKEN_ROW

PLAIN = {
    "token_id": 7,
    "n_bytes": 1,
    "logprob": -1.0,
    "entropy": 1.0,
    "rank": 2,
    "ties": 0,
    "top1_logprob": -0.5,
}
TEXTS = {("t", "x", i): Trajectory("t", i, "x", "p", "abcdefgh") for i in "ijk"}


def table(*tokens: dict[str, float], instance: str = "i", first: int = 0, candidate: str = "id") -> pa.Table:
    """Rows of one instance; what a token does not say is plain."""
    place = {"candidate_id": candidate, "task": "t", "expert": "x", "instance_id": instance}
    rows = [{**place, "position": first + n, **PLAIN, **token} for n, token in enumerate(tokens)]
    return pl.DataFrame(rows, schema=TOKEN_ROW).to_arrow()


def both(base: list[dict[str, float]], against: list[dict[str, float]]) -> TokenParity:
    pairs = pair_tokens("m", table(*base, candidate="1"), table(*against, candidate="2"), ())
    return token_parity("m", pairs, TEXTS)


def test_known_differences() -> None:
    found = both(
        [{"logprob": -1.0}, {"logprob": -2.0}, {"logprob": -3.0}, {}],
        [{"logprob": -1.5}, {"logprob": -1.0}, {"logprob": -3.0}, {"entropy": 3.0}],
    )
    d = found.of("logprob")
    assert (d.largest, d.median, d.mean, d.signed_mean, d.differing) == (1.0, 0.25, 0.375, 0.125, 2)
    assert d.p99 == pytest.approx(0.5 + 0.97 * 0.5)
    assert d.unit == "nats"
    assert d.place is not None
    assert (d.place.candidate, d.place.task, d.place.expert, d.place.instance_id) == ("m", "t", "x", "i")
    assert (d.place.position, d.place.token, d.place.base, d.place.against) == (1, "f", -2.0, -1.0)
    entropy = found.of("entropy")
    assert (entropy.largest, entropy.signed_mean, entropy.differing) == (2.0, 0.5, 1)
    same = found.of("top1_logprob")
    assert (same.largest, same.median, same.p99, same.signed_mean, same.differing) == (0, 0, 0, 0, 0)
    assert same.place is None
    assert (found.tokens, found.instances, found.candidate) == (4, 1, "m")


def test_place_counts_from_the_start_of_the_window() -> None:
    base = table({}, {"n_bytes": 2, "token_id": 9}, {}, first=11)
    against = table({}, {"n_bytes": 2, "token_id": 9, "logprob": -8.0}, {}, first=11)
    place = token_parity("m", pair_tokens("m", base, against, ()), TEXTS).of("logprob").place
    assert place is not None
    assert (place.position, place.token, place.token_id) == (12, "fg", 9)


@pytest.mark.parametrize(
    ("base", "against", "explained"),
    [
        ((5, 0), (3, 3), True),  # 5 is among the places 3..6 that the tie leaves open
        ((5, 0), (3, 2), True),  # 3..5
        ((5, 0), (3, 1), False),  # 3..4
        ((3, 3), (5, 0), True),
        ((3, 0), (5, 2), False),  # 5..7: two entries have moved strictly past
        ((3, 4), (5, 4), True),  # 3..7 and 5..9
        ((1, 1), (2, 0), True),
        ((1, 0), (2, 9), False),
    ],
)
def test_ranks_explained_by_ties_or_real(
    base: tuple[int, int], against: tuple[int, int], explained: bool
) -> None:
    a, b = ({"rank": rank, "ties": ties} for rank, ties in (base, against))
    for one, other in ((a, b), (b, a)):
        ranks = both([one], [other]).ranks
        assert (ranks.differing, ranks.by_ties, ranks.real) == (1, int(explained), int(not explained))


def test_equal_ranks_with_ties_do_not_differ() -> None:
    found = both([{"rank": 4, "ties": 0}], [{"rank": 4, "ties": 7}])
    assert (found.ranks.differing, found.ranks.by_ties, found.ranks.real) == (0, 0, 0)
    assert (found.tied_base, found.tied_against) == (0, 1)
    assert found.of("ties").largest == 7


def test_first_choice_counts_rank_1_in_one_setup() -> None:
    ranks = both(
        [{"rank": 1}, {"rank": 1}, {"rank": 2}, {"rank": 2}],
        [{"rank": 1}, {"rank": 2}, {"rank": 1}, {"rank": 3}],
    ).ranks
    assert (ranks.differing, ranks.first_choice) == (3, 2)


def random_tokens(rng: np.random.Generator, n: int) -> list[dict[str, float]]:
    return [
        {
            "logprob": -float(rng.integers(0, 64)) / 8,
            "entropy": float(rng.integers(0, 64)) / 8,
            "rank": int(rng.integers(1, 6)),
            "ties": int(rng.integers(0, 3)),
            "top1_logprob": -float(rng.integers(0, 8)) / 8,
        }
        for _ in range(n)
    ]


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_equals_a_slow_reference(n: int) -> None:
    rng = np.random.default_rng(n)
    a = {i: random_tokens(rng, n) for i in "ijk"}
    b = {i: random_tokens(rng, n) for i in "ijk"}
    shuffled = pa.concat_tables([table(*b[i], instance=i) for i in "kji"])
    shuffled = shuffled.take(pa.array(rng.permutation(shuffled.num_rows)))
    pairs = pair_tokens("m", pa.concat_tables([table(*a[i], instance=i) for i in "ijk"]), shuffled, ())
    found = token_parity("m", pairs, TEXTS)
    tokens = [(i, p, x, y) for i in "ijk" for p, (x, y) in enumerate(zip(a[i], b[i], strict=True))]
    assert (found.tokens, found.instances) == (3 * n, 3)
    for statistic in UNITS:
        deltas = [y[statistic] - x[statistic] for _, _, x, y in tokens]
        sizes = sorted(map(abs, deltas))
        at = 0.99 * (len(sizes) - 1)
        low, high = sizes[math.floor(at)], sizes[math.ceil(at)]
        d = found.of(statistic)
        assert d.largest == sizes[-1]
        assert d.median == statistics.median(sizes)
        assert d.mean == pytest.approx(statistics.fmean(sizes))
        assert d.p99 == pytest.approx(low + (at - math.floor(at)) * (high - low))
        assert d.signed_mean == pytest.approx(statistics.fmean(deltas))
        assert d.differing == sum(delta != 0 for delta in deltas)
        first = next((t for t in tokens if abs(t[3][statistic] - t[2][statistic]) == sizes[-1]), None)
        if sizes[-1]:
            assert d.place is not None and first is not None
            assert (d.place.instance_id, d.place.position) == first[:2]
            assert (d.place.base, d.place.against) == (first[2][statistic], first[3][statistic])
    ranks = {"by_ties": 0, "real": 0}
    for _, _, x, y in tokens:
        if x["rank"] != y["rank"]:
            places = [set(range(int(s["rank"]), int(s["rank"] + s["ties"]) + 1)) for s in (x, y)]
            ranks["by_ties" if places[0] & places[1] else "real"] += 1
    assert (found.ranks.by_ties, found.ranks.real) == (ranks["by_ties"], ranks["real"])
    assert found.ranks.differing == sum(ranks.values())


def test_pooled_is_all_tokens_together() -> None:
    rng = np.random.default_rng(1)
    frames, parts = [], []
    for name, n in (("m", 3), ("n", 8), ("o", 1)):
        pairs = pair_tokens(name, table(*random_tokens(rng, n)), table(*random_tokens(rng, n)), ())
        frames.append(pairs)
        parts.append(token_parity(name, pairs, TEXTS))
    pooled = pooled_parity(parts, [statistics_of(pairs) for pairs in frames])
    assert (pooled.candidate, pooled.tokens, pooled.instances) == (None, 12, 3)
    for statistic in UNITS:
        joined = pl.concat(frames)
        sizes = [abs(y - x) for x, y in joined.select(statistic, f"{statistic}_against").iter_rows()]
        d = pooled.of(statistic)
        assert (d.largest, d.median) == (max(sizes), statistics.median(sizes))
        place = next((p.of(statistic).place for p in parts if p.of(statistic).largest == max(sizes)), None)
        assert d.place == place
    assert pooled.ranks.real == sum(part.ranks.real for part in parts)
    assert pooled.tied_against == sum(part.tied_against for part in parts)


@pytest.mark.parametrize(
    ("base", "against", "expected"),
    [
        ([{}, {}], [{}, {"token_id": 8}], "at solution token 1 id 7 (1 bytes) in the base and id 8"),
        ([{}, {}], [{}], "at solution token 1 id 7 (1 bytes) in the base and no token in the other"),
        ([{}], [{}, {}], "at solution token 1 no token in the base"),
        ([{"n_bytes": 2}], [{}], "at solution token 0 id 7 (2 bytes) in the base and id 7 (1 bytes)"),
    ],
)
def test_different_tokens_raise(
    base: list[dict[str, float]], against: list[dict[str, float]], expected: str
) -> None:
    with pytest.raises(CandidateError) as error:
        pair_tokens("m", table(*base), table(*against), ())
    assert "candidate 'm', task 't', instance 'i' by 'x'" in str(error.value)
    assert expected in str(error.value)


def test_instances_unread_in_one_setup_are_left_out() -> None:
    base = pa.concat_tables([table({}, {}, instance="i"), table({}, instance="j")])
    against = table({"token_id": 7}, instance="j")
    assert pair_tokens("m", base, against, [("t", "x", "i")]).height == 1
    with pytest.raises(CandidateError, match="instance 'i'"):
        pair_tokens("m", base, against, [("t", "y", "i")])
