"""Decision accuracy against compute: ways to decide, and which of them are on the Pareto frontier.

A way to decide is a size, a checkpoint and a metric with one run of each corpus, the same with the mean over
k seeds (at k times the cost), or a scaling law fitted to several sizes (at the cost of all of them). A way is
on the frontier where none of the same cost or less has a higher decision accuracy. Ways equal in both are one
point: they order as many pairs of corpora as the target does, for the same compute, and these corpora do not
tell which is better. The point is named after the plainest metric.

What a point gains on the one before it has an interval of its own: the percentiles of the difference over
the same resamples of corpora, groups whole. Simulated (5 to 25 groups of 1 or 4, two ways that correlate by
0.3 to 0.9 with the target, 200 worlds each, tests/analysis/corpora/simulations.py): 95 % intervals held the
true gain in 89 to 98 % of worlds, and in 82 % in one setting of 5 corpora.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from forecast.analysis.corpora.bootstrap import pair_weights, resampled_accuracy
from forecast.analysis.corpora.decision_accuracy import Array, pair_signs
from forecast.analysis.corpora.metric_order import plainness
from forecast.analysis.corpora.observation_arrays import Step
from forecast.analysis.stats.figures import mean_known

LEVEL = 1e-9


@dataclass(frozen=True)
class Way:
    """One way to decide about all corpora."""

    metric: str
    size: str  # of a scaling law: its sizes
    step: Step
    n_runs: int  # of each corpus and size
    kind: str  # accuracy, cross-entropy, proxy, scaling law
    cost: float | None  # compute of all runs of one corpus, as a share of one target run
    accuracy: float
    standings: Array  # [runs, corpora], higher is better: one row, or one for each run that might decide


@dataclass(frozen=True)
class FrontierPoint:
    """A way on the frontier, and those that are equal to it."""

    way: Way
    equal: tuple[Way, ...] = ()  # of the same cost and accuracy, the plainest metrics first
    gain: float | None = None  # of accuracy on the point before
    gain_low: float | None = (
        None  # None at the first, with fewer than 5 groups, and where all resamples agree
    )
    gain_high: float | None = None


def comes_first(way: Way, target_size: str | None) -> bool:
    """Whether deciding so saves compute: not at the target's own size, and cheaper than a target run."""
    return way.size != target_size and (way.cost is None or way.cost < 1)


def frontier_of(ways: Sequence[Way]) -> list[FrontierPoint]:
    """The points of the frontier, cheapest first; ways without a cost are not on it."""
    priced = sorted((way for way in ways if way.cost is not None), key=cheap_first)
    kept: list[FrontierPoint] = []
    for way in priced:
        if not kept or way.accuracy > kept[-1].way.accuracy + LEVEL:
            kept.append(FrontierPoint(way))
        elif _level(way, kept[-1].way):
            kept[-1] = replace(kept[-1], equal=(*kept[-1].equal, way))
    return kept


def with_gains(
    points: Sequence[FrontierPoint], goal: Array, weights: Array, confidence: float, enough: bool
) -> list[FrontierPoint]:
    """The same points with what each gains on the one before it.

    Args:
        goal: [corpora] the target, higher is better, NaN where there is none.
        weights: [B, corpora] how often each corpus is in a resample.
        enough: whether there are groups enough for an interval.
    """
    target, by_pair = pair_signs(goal), pair_weights(weights)
    tail = (1 - confidence) / 2
    done: list[FrontierPoint] = []
    before: Array | None = None
    for point in points:
        drawn = mean_known(resampled_accuracy(pair_signs(point.way.standings), target, by_pair), axis=1)
        if done and before is not None:
            apart = drawn - before
            low, high = None, None
            if enough and len(weights) and np.isfinite(apart).mean() > 1 - tail:
                ends = np.nanquantile(apart, [tail, 1 - tail])
                # Draws that all agree, as where both ways are right on every pair, know no width.
                low, high = map(float, ends) if np.ptp(ends) > LEVEL else (None, None)
            gain = point.way.accuracy - done[-1].way.accuracy
            point = replace(point, gain=gain, gain_low=low, gain_high=high)
        done.append(point)
        before = drawn
    return done


def frontiers_by_metric(ways: Sequence[Way]) -> dict[str, list[FrontierPoint]]:
    """The frontier of each metric by itself, of all scaling laws together under `scaling laws`."""
    names = sorted({_group(way) for way in ways})
    return {name: frontier_of([way for way in ways if _group(way) == name]) for name in names}


def _group(way: Way) -> str:
    return "scaling laws" if way.kind == "scaling law" else way.metric


def cheap_first(way: Way) -> tuple[object, ...]:
    """What ways with a cost are sorted by."""
    assert way.cost is not None
    return way.cost, -round(way.accuracy, 9), plainness(way.metric), way.size, str(way.step), way.n_runs


def _level(a: Way, b: Way) -> bool:
    return a.cost == b.cost and abs(a.accuracy - b.accuracy) <= LEVEL
