"""Budget-constrained choice of a way to decide, and the regret of the corpus that it ranks first.

Chosen is the way with the best decision accuracy of those within the budget, the cheapest of equal ones.
Regret is the target of the best corpus less that of the corpus which the way ranks first (their mean where it
ties several), in the target's own unit. The resampled regret is its mean over corpora resampled with
replacement, among which both are then chosen, and over the runs of a corpus where one run decides. It is of
corpora whose targets are known, and so not the ranking's expected regret, which is of targets not seen.

Which way is best is itself learned from these corpora. So the choice is also repeated in every resample, by
the resample's own decision accuracies, and the regret of what was then chosen is averaged:
`resampled_rechosen`. It still learns from the corpora it is evaluated on; where many ways are about equal it
is the less biased of the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.corpora.bootstrap import pair_weights, resampled_accuracy
from forecast.analysis.corpora.decision_accuracy import Array, pair_signs
from forecast.analysis.corpora.pareto_frontier import LEVEL, Way, cheap_first
from forecast.analysis.stats.figures import mean_known

_MOST_WAYS = 2_000  # with more, the choice is not repeated in resamples


@dataclass(frozen=True)
class Regret:
    """In the target's own unit; NaN without resamples."""

    observed: float  # on all corpora, mean over the runs that might decide
    resampled: float  # mean over resamples, of this way
    low: float  # percentile interval over resamples; NaN with fewer than 5 groups of corpora
    high: float
    random: float  # on all corpora, of a corpus taken at random
    first: tuple[str, ...]  # the corpus that it ranks first, for each run that might decide
    best: str  # by the target


@dataclass(frozen=True)
class BudgetChoice:
    """The choice for one budget and task."""

    task: str
    budget: float  # of one target run, for all runs of one corpus
    way: Way | None  # None: none is within the budget
    regret: Regret | None
    chosen_again: float | None  # share of resamples in which the same way is chosen
    resampled_rechosen: float | None  # resampled regret where the choice is repeated in every resample


class BudgetChooser:
    """The ways to decide about one task, with their figures in every resample."""

    def __init__(
        self,
        task: str,
        ways: Sequence[Way],
        goal: Array,
        corpora: Sequence[str],
        weights: Array,
        enough: bool = True,
    ) -> None:
        """Args:
        ways: those without a cost are never chosen.
        goal: [corpora] the target, higher is better, NaN where there is none.
        weights: [B, corpora] how often each corpus is in a resample.
        enough: whether there are groups of corpora enough for an interval.
        """
        self._enough = enough
        known = np.isfinite(goal)
        self._task = task
        self._ways = sorted((way for way in ways if way.cost is not None), key=cheap_first)
        self._goal = goal[known]
        self._names = [name for name, is_known in zip(corpora, known, strict=True) if is_known]
        self._known = known
        drawn = weights[:, known]
        self._weights = drawn[(drawn > 0).sum(axis=1) > 1]
        self._resampled: tuple[Array, Array] | None = None

    def choose(self, budget: float, confidence: float = 0.95) -> BudgetChoice:
        """The most accurate way within a budget, and its regret."""
        within = [i for i, way in enumerate(self._ways) if (way.cost or 0.0) <= budget * (1 + LEVEL)]
        if not within:
            return BudgetChoice(self._task, budget, None, None, None, None)
        chosen = min(within, key=lambda i: (-round(self._ways[i].accuracy, 9), i))
        way = self._ways[chosen]
        again = rechosen = None
        if len(self._weights) and len(self._ways) <= _MOST_WAYS:
            accuracy, regret = self._figures()
            rounded = np.where(np.isnan(accuracy[within]), -1.0, np.round(accuracy[within], 9))
            best = np.asarray(within)[np.nanargmax(rounded, axis=0)]
            again = float((best == chosen).mean())
            rechosen = float(np.nanmean(regret[best, np.arange(len(best))]))
        return BudgetChoice(self._task, budget, way, self.regret_of(way, confidence), again, rechosen)

    def regret_of(self, way: Way, confidence: float = 0.95) -> Regret | None:
        """None where the way has no standing of any corpus with a target."""
        standings = way.standings[:, self._known]
        if not np.isfinite(standings).any():
            return None
        everyone = np.ones((1, len(self._goal)), bool)
        observed = float(np.nanmean([_regrets(run, self._goal, everyone)[0] for run in standings]))
        resampled = low = high = float("nan")
        if len(self._weights):
            by_run = np.array([_regrets(run, self._goal, self._weights > 0) for run in standings])
            resampled = float(np.nanmean(by_run))
            tail = (1 - confidence) / 2
            if self._enough:
                low, high = (float(end) for end in np.nanquantile(by_run, [tail, 1 - tail]))
        first = tuple(self._names[int(np.nanargmax(run))] for run in standings if np.isfinite(run).any())
        random = float(self._goal.max() - self._goal.mean())
        return Regret(observed, resampled, low, high, random, first, self._names[int(self._goal.argmax())])

    def _figures(self) -> tuple[Array, Array]:
        """Decision accuracy and regret of every way in every resample: [ways, B] each."""
        if self._resampled is None:
            goal = pair_signs(self._goal)
            weights = pair_weights(self._weights)
            accuracy, regret = [], []
            for way in self._ways:
                standings = way.standings[:, self._known]
                accuracy.append(mean_known(resampled_accuracy(pair_signs(standings), goal, weights), axis=1))
                runs = [_regrets(run, self._goal, self._weights > 0) for run in standings]
                regret.append(mean_known(np.array(runs), axis=0))
            self._resampled = np.array(accuracy), np.array(regret)
        return self._resampled


def _regrets(standing: Array, goal: Array, among: NDArray[np.bool_]) -> Array:
    """[B] best target less the chosen one's, among the corpora of each row of [B, corpora]."""
    usable = among & np.isfinite(standing)
    held = np.where(usable, standing, -np.inf)
    top = usable & (held == held.max(axis=1, keepdims=True))
    n = top.sum(axis=1)
    best = np.where(among, goal, -np.inf).max(axis=1)
    chosen = np.where(top, goal, 0.0).sum(axis=1) / np.maximum(n, 1)
    return np.where(n > 0, best - chosen, np.nan)
