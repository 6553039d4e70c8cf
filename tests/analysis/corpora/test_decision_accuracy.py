"""Decision accuracy against pairs counted one by one, and against Kendall's tau."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from forecast.analysis.corpora.decision_accuracy import decide, decision_accuracy, levelled, pair_signs

values = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, float("nan")]), min_size=2, max_size=9)


def counted(predicted: list[float], target: list[float]) -> tuple[float, int, int, int]:
    """One pair after the other."""
    score, n, ties, predicted_ties = 0.0, 0, 0, 0
    for i in range(len(target)):
        for j in range(i):
            if any(np.isnan([predicted[i], predicted[j], target[i], target[j]])):
                continue
            if target[i] == target[j]:
                ties += 1
                continue
            n += 1
            if predicted[i] == predicted[j]:
                predicted_ties += 1
                score += 0.5
            else:
                score += (predicted[i] > predicted[j]) == (target[i] > target[j])
    return (score / n if n else float("nan")), n, ties, predicted_ties


@given(values, values)
def test_it_is_what_counting_pairs_gives(a: list[float], b: list[float]) -> None:
    n = min(len(a), len(b))
    found = decide(pair_signs(np.array(a[:n])), pair_signs(np.array(b[:n])))
    accuracy, pairs, ties, predicted_ties = counted(a[:n], b[:n])
    assert (int(found.n_pairs), int(found.n_ties), int(found.n_predicted_ties)) == (
        pairs,
        ties,
        predicted_ties,
    )
    assert float(found.accuracy) == pytest.approx(accuracy, nan_ok=True)


def test_a_table_by_hand() -> None:
    """Pairs ab, ac, ad, bc, bd, cd; b and c are tied in the target, c and d by the proxy."""
    target = np.array([0.4, 0.3, 0.3, 0.1])
    proxy = np.array([0.9, 0.95, 0.2, 0.2])
    found = decide(pair_signs(proxy), pair_signs(target))
    # ab wrong, ac right, ad right, bd right, cd tied: 3.5 of 5.
    assert (float(found.accuracy), int(found.n_pairs), int(found.n_ties)) == (0.7, 5, 1)
    assert int(found.n_predicted_ties) == 1


def test_without_ties_it_is_kendalls_tau() -> None:
    rng = np.random.default_rng(0)
    for n in (3, 7, 25):
        x, y = rng.normal(size=(2, n))
        assert decision_accuracy(x, y) == pytest.approx((kendalltau(x, y).statistic + 1) / 2, abs=1e-12)


def test_a_mean_over_seeds_does_not_break_a_tie_by_rounding() -> None:
    a = np.mean([0.1, 0.2, 0.3])
    assert a != 0.2
    assert pair_signs(np.array([a, 0.2])) == [0.0]
    assert pair_signs(np.array([0.2 + 1e-9, 0.2])) == [1.0]
    values = np.array([a, 0.2, -3e-7, 1.5e9, 0.0, np.nan])
    assert levelled(values).tolist()[:5] == [0.2, 0.2, -3e-7, 1.5e9, 0.0]
