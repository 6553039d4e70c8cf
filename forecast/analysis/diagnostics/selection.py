"""Which orders the diagnostics are about: a few proxies, and the measured targets that they forecast."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.single_proxy import rank_candidates, target_scores
from forecast.analysis.stats.figures import Compared, OrderRho, Rho, rho_of
from forecast.analysis.stats.rank_correlation import spearman
from forecast.config.schema import RankingConfig
from forecast.errors import ConfigError, did_you_mean
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES
from forecast.warehouse.population import Population

Array = NDArray[np.float64]
Features = Callable[[Sequence[str]], Array]  # of some tasks, [candidates, 80]
PLACES = {proxy.name: k for k, proxy in enumerate(PROXIES)}


@dataclass(frozen=True)
class Question:
    """A measured target and the tasks whose proxies forecast it; without one, an order of all tasks."""

    target: str | None
    tasks: tuple[str, ...]
    scores: Array  # [candidates], NaN where there is none


@dataclass(frozen=True)
class Selection:
    """Proxies and targets that every diagnostic is about."""

    proxies: tuple[str, ...]
    questions: tuple[Question, ...]  # the first is what the run's order is learned from
    confidence: float
    seed: int

    def order_rhos(self, x: Array, y: Array) -> tuple[OrderRho, ...]:
        """Rho between two sets of features [candidates, 80], for each proxy."""
        return tuple(
            OrderRho(proxy, rho_of(x[:, PLACES[proxy]], y[:, PLACES[proxy]], self.confidence))
            for proxy in self.proxies
        )

    def compared(self, proxy: str, whole: Features, part: Features) -> tuple[Compared, ...]:
        """Rho with each measured target, by all that there is and by a part of it."""

        def rho(of: Features, question: Question) -> Rho:
            return rho_of(of(question.tasks)[:, PLACES[proxy]], question.scores, self.confidence)

        return tuple(
            Compared(proxy, q.target, rho(whole, q), rho(part, q))
            for q in self.questions
            if q.target is not None
        )


def median_rho(x: Array, y: Array) -> float | None:
    """Median of the rhos that all 80 proxies have between two sets of features [candidates, 80]."""
    rhos = spearman(x.T, y.T)
    known = rhos[np.isfinite(rhos)]
    return float(np.median(known)) if len(known) else None


def select(population: Population, settings: RankingConfig, proxies: Sequence[str] = ()) -> Selection:
    """The proxies named; by default plain cross-entropy and the one that agrees best with the scores.

    Raises:
        ConfigError: no such proxy; names the nearest.
    """
    for name in proxies:
        if name not in PLACES:
            raise ConfigError(f"no proxy {name!r}; {did_you_mean(name, tuple(PLACES))}")
    # Nothing here reads its intervals and permutation nulls.
    plain = settings.model_copy(update={"bootstraps": 0, "permutations": 0})
    ranking = rank_candidates(population, plain)
    questions = [
        Question(report.target, report.tasks, target_scores(population, report)[0])
        for report in ranking.reports
    ]
    if not questions:
        nothing = np.full(len(population.candidates), np.nan)
        questions = [Question(None, tuple(population.proxies), nothing)]
    best = ranking.reports[0].best() if ranking.reports else None
    chosen = tuple(dict.fromkeys(proxies or (PLAIN_CROSS_ENTROPY, *([best.proxy] if best else []))))
    return Selection(chosen, tuple(questions), settings.confidence, settings.seed)
