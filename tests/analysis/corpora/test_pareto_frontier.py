"""The frontier: equal ways are one point, and gains have intervals."""

import numpy as np
import pytest
from analysis.corpora.simulations import gain_coverage

from forecast.analysis.corpora.bootstrap import corpus_weights
from forecast.analysis.corpora.decision_accuracy import decision_accuracy
from forecast.analysis.corpora.pareto_frontier import Way, frontier_of, with_gains


def way(metric: str, cost: float, accuracy: float, standings: list[float] | None = None) -> Way:
    return Way(metric, "4M", None, 1, "proxy", cost, accuracy, np.array([standings or [0.0]]))


def test_equal_ways_are_one_point_named_after_the_plainest_metric() -> None:
    proxies = [way(f"margin__w{k}", 0.1, 0.9) for k in range(24)]
    equal = [way("accuracy", 0.1, 0.9), *proxies, way("cross_entropy__uniform", 0.1, 0.9)]
    dearer = way("byte_cross_entropy__uniform", 0.2, 0.9)  # as good for more
    points = frontier_of([*equal, dearer, way("nll", 0.01, 0.6), way("nll", 0.3, 0.95)])
    assert [p.way.metric for p in points] == ["nll", "cross_entropy__uniform", "nll"]
    assert [len(p.equal) for p in points] == [0, 25, 0]
    assert points[1].equal[-1].metric == "accuracy"


def test_gain_is_on_the_point_before_with_the_same_resamples() -> None:
    rng = np.random.default_rng(0)
    goal = rng.normal(size=12)
    noisy, better = goal + 2 * rng.normal(size=12), goal + 0.1 * rng.normal(size=12)
    ways = [
        way("nll", cost, decision_accuracy(x, goal), x.tolist()) for cost, x in ((0.1, noisy), (0.2, better))
    ]
    weights = corpus_weights(np.arange(12), 300, 0)
    first, second = with_gains(frontier_of(ways), goal, weights, 0.95, True)
    assert (first.gain, first.gain_low) == (None, None)
    assert second.gain == pytest.approx(ways[1].accuracy - ways[0].accuracy)
    assert second.gain_low is not None and second.gain_high is not None
    assert 0 < second.gain_low < second.gain < second.gain_high
    _, few = with_gains(frontier_of(ways), goal, weights, 0.95, False)
    assert few.gain == second.gain and few.gain_low is None
    same = [way("a", 0.1, 0.5, noisy.tolist()), way("a", 0.2, 0.6, noisy.tolist())]
    assert with_gains(frontier_of(same), goal, weights, 0.95, True)[1].gain_high is None


def test_interval_of_a_gain_covers_the_true_one() -> None:
    for groups in (np.arange(25), np.repeat(np.arange(7), 4)):
        assert gain_coverage(groups, (0.8, 0.9), 0.5, 100) >= 0.87
