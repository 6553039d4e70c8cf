"""Which orders the diagnostics look at: a few proxies, and what each was asked to forecast."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.single_proxy import target_scores
from forecast.analysis.ranking.univariate import rank_candidates
from forecast.config.schema import RankingConfig
from forecast.errors import ConfigError, did_you_mean
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES
from forecast.warehouse.population import Population

Array = NDArray[np.float64]
PLACES = {proxy.name: k for k, proxy in enumerate(PROXIES)}


@dataclass(frozen=True)
class Question:
    """A measured target and the tasks whose proxies forecast it; without one, an order of all tasks."""

    target: str | None
    tasks: tuple[str, ...]
    scores: Array  # [candidates], NaN where there is none

    @property
    def label(self) -> str:
        """For tables."""
        return "nothing is measured" if self.target is None else self.target


@dataclass(frozen=True)
class Looked:
    """What is looked at."""

    proxies: tuple[str, ...]
    questions: tuple[Question, ...]  # the first is what the run's order is learned from
    confidence: float
    seed: int


def looked_at(population: Population, settings: RankingConfig, proxies: Sequence[str] = ()) -> Looked:
    """The proxies named; by default plain cross-entropy and the one that leads the run's own ranking.

    Raises:
        ConfigError: no such proxy; names the nearest.
    """
    for name in proxies:
        if name not in PLACES:
            raise ConfigError(f"no proxy {name!r}; {did_you_mean(name, tuple(PLACES))}")
    ranking = rank_candidates(population, replace_settings(settings))
    questions = [
        Question(report.target, report.tasks, target_scores(population, report)[0])
        for report in ranking.reports
    ]
    if not questions:
        nothing = np.full(len(population.candidates), np.nan)
        questions = [Question(None, tuple(population.proxies), nothing)]
    chosen = tuple(dict.fromkeys(proxies or (PLAIN_CROSS_ENTROPY, ranking.shown[0])))
    return Looked(chosen, tuple(questions), settings.confidence, settings.seed)


def replace_settings(settings: RankingConfig) -> RankingConfig:
    """The same ranking without its intervals and nulls, which nothing here reads."""
    return settings.model_copy(update={"bootstraps": 0, "permutations": 0})
