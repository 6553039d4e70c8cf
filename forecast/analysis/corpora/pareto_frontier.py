"""Decision accuracy against compute: ways to decide, and which of them are on the Pareto frontier.

A way to decide is a size, a checkpoint and a metric with one run of each corpus, the same with the mean over
k seeds (at k times the cost), or a scaling law fitted to several sizes (at the cost of all of them). A way is
on the frontier where none of the same cost or less has a higher decision accuracy; of ways equal in both,
all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from forecast.analysis.corpora.decision_accuracy import Array
from forecast.analysis.corpora.observation_arrays import Step

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


def comes_first(way: Way, target_size: str | None) -> bool:
    """Whether deciding so saves compute: not at the target's own size, and cheaper than a target run."""
    return way.size != target_size and (way.cost is None or way.cost < 1)


def frontier_of(ways: Sequence[Way]) -> list[Way]:
    """The ways on the frontier, cheapest first; those without a cost are not on it."""
    priced = sorted((way for way in ways if way.cost is not None), key=cheap_first)
    kept: list[Way] = []
    for way in priced:
        if not kept or way.accuracy > kept[-1].accuracy + LEVEL or _level(way, kept[-1]):
            kept.append(way)
    return kept


def frontiers_by_metric(ways: Sequence[Way]) -> dict[str, list[Way]]:
    """The frontier of each metric by itself, of all scaling laws together under `scaling laws`."""
    names = sorted({_group(way) for way in ways})
    return {name: frontier_of([way for way in ways if _group(way) == name]) for name in names}


def _group(way: Way) -> str:
    return "scaling laws" if way.kind == "scaling law" else way.metric


def cheap_first(way: Way) -> tuple[float, float, str, str, str, int]:
    """What ways with a cost are sorted by."""
    assert way.cost is not None
    return way.cost, -way.accuracy, way.metric, way.size, str(way.step), way.n_runs


def _level(a: Way, b: Way) -> bool:
    return a.cost == b.cost and abs(a.accuracy - b.accuracy) <= LEVEL
