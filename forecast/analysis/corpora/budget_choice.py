"""What to buy for a budget, and what its choice of corpus is expected to give away.

Bought is the way to decide with the best decision accuracy of those within the budget, the cheapest of equal
ones. Regret is the target of the best corpus less that of the corpus which the way puts first (their mean
where it ties several), in the target's own unit. Its expectation is over corpora drawn again with
replacement, among which both are then chosen, and over which of a corpus' runs was made where one run
decides.

Which way is best is itself learned from these corpora. So the purchase is also made anew in every draw, by
the draw's own decision accuracies, and the regret of what was then bought is averaged: `expected_anew`. It
still learns from the corpora it is judged on; with a budget's worth of equal ways it is the safer number of
the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.corpora.bootstrap import pair_weights
from forecast.analysis.corpora.decision_accuracy import pair_signs
from forecast.analysis.corpora.pareto_frontier import LEVEL, Way, cheap_first

Array = NDArray[np.float64]
_MOST_WAYS = 2_000  # with more, no purchase is made anew


@dataclass(frozen=True)
class Regret:
    """In the target's own unit; NaN with no draws."""

    observed: float  # on all corpora, mean over the runs that might decide
    expected: float  # over draws, of this way
    low: float  # interval of the draws
    high: float
    random: float  # on all corpora, of a corpus taken at random
    first: tuple[str, ...]  # the corpus that it puts first, for each run that might decide
    best: str  # by the target


@dataclass(frozen=True)
class Purchase:
    """For one budget and task."""

    task: str
    budget: float  # of one target run, for all runs of one corpus
    way: Way | None  # None: nothing is that cheap
    regret: Regret | None
    bought_again: float | None  # share of draws in which the same way is bought
    expected_anew: float | None  # expected regret where the purchase is made anew in every draw


class Market:
    """The ways to decide about one task, with their figures in every draw."""

    def __init__(
        self, task: str, ways: Sequence[Way], goal: Array, corpora: Sequence[str], weights: Array
    ) -> None:
        """Args:
        ways: with a cost; others cannot be bought.
        goal: [corpora] the target, higher is better, NaN where there is none.
        weights: [B, corpora] how often each corpus is drawn.
        """
        known = np.isfinite(goal)
        self._task = task
        self._ways = sorted((way for way in ways if way.cost is not None), key=cheap_first)
        self._goal = goal[known]
        self._names = [name for name, is_known in zip(corpora, known, strict=True) if is_known]
        self._known = known
        drawn = weights[:, known]
        self._weights = drawn[(drawn > 0).sum(axis=1) > 1]
        self._anew: tuple[Array, Array] | None = None

    def buy(self, budget: float, confidence: float = 0.95) -> Purchase:
        """What a budget buys."""
        within = [i for i, way in enumerate(self._ways) if (way.cost or 0.0) <= budget * (1 + LEVEL)]
        if not within:
            return Purchase(self._task, budget, None, None, None, None)
        chosen = min(within, key=lambda i: (-round(self._ways[i].accuracy, 9), i))
        way = self._ways[chosen]
        again = anew = None
        if len(self._weights) and len(self._ways) <= _MOST_WAYS:
            accuracy, regret = self._drawn()
            bought = np.nanargmax(
                np.where(np.isnan(accuracy[within]), -1.0, np.round(accuracy[within], 9)), axis=0
            )
            bought = np.asarray(within)[bought]
            again = float((bought == chosen).mean())
            anew = float(np.nanmean(regret[bought, np.arange(len(bought))]))
        return Purchase(self._task, budget, way, self.regret_of(way, confidence), again, anew)

    def regret_of(self, way: Way, confidence: float = 0.95) -> Regret | None:
        """None where the way has no standing of any corpus with a target."""
        standings = way.standings[:, self._known]
        if not np.isfinite(standings).any():
            return None
        everyone = np.ones((1, len(self._goal)), bool)
        observed = float(np.nanmean([_given_away(run, self._goal, everyone)[0] for run in standings]))
        expected = low = high = float("nan")
        if len(self._weights):
            by_run = np.array([_given_away(run, self._goal, self._weights > 0) for run in standings])
            expected = float(np.nanmean(by_run))
            tail = (1 - confidence) / 2
            low, high = (float(end) for end in np.nanquantile(by_run, [tail, 1 - tail]))
        first = tuple(self._names[int(np.nanargmax(run))] for run in standings if np.isfinite(run).any())
        random = float(self._goal.max() - self._goal.mean())
        return Regret(observed, expected, low, high, random, first, self._names[int(self._goal.argmax())])

    def _drawn(self) -> tuple[Array, Array]:
        """Decision accuracy and regret of every way in every draw: [ways, B] each."""
        if self._anew is None:
            goal = pair_signs(self._goal)
            weights = pair_weights(self._weights)
            accuracy, regret = [], []
            for way in self._ways:
                signs = pair_signs(way.standings[:, self._known])
                counts = np.isfinite(signs) & (goal != 0)
                agreement = np.where(counts, signs * goal, 0.0)
                with np.errstate(invalid="ignore", divide="ignore"):
                    figures = (
                        1 + (agreement @ weights.T) / (counts.astype(float) @ weights.T)
                    ) / 2  # [runs, B]
                accuracy.append(_mean(figures))
                runs = [
                    _given_away(run, self._goal, self._weights > 0) for run in way.standings[:, self._known]
                ]
                regret.append(_mean(np.array(runs)))
            self._anew = np.array(accuracy), np.array(regret)
        return self._anew


def _mean(values: Array) -> Array:
    """Over the first axis, of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    n = known.sum(axis=0)
    return np.where(n > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)


def _given_away(standing: Array, goal: Array, among: NDArray[np.bool_]) -> Array:
    """[B] best target less the chosen one's, among the corpora of each row of [B, corpora]."""
    usable = among & np.isfinite(standing)
    held = np.where(usable, standing, -np.inf)
    top = usable & (held == held.max(axis=1, keepdims=True))
    n = top.sum(axis=1)
    best = np.where(among, goal, -np.inf).max(axis=1)
    chosen = np.where(top, goal, 0.0).sum(axis=1) / np.maximum(n, 1)
    return np.where(n > 0, best - chosen, np.nan)
