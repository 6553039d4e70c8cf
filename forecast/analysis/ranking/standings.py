"""The standings: every candidate's rank by the leader, its interval, and P(above the next).

Where enough candidates of enough families are measured, intervals are over candidates and families: how far
such forecasts miss (`rank_uncertainty`). Else they are over instances: the rank by the leader under endless
instances, which says nothing of how well the leader forecasts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.leader import DEFAULT_PROXY, Leader
from forecast.analysis.ranking.rank_uncertainty import Order, order_of
from forecast.analysis.stats.figures import number
from forecast.analysis.stats.rank_correlation import ranks
from forecast.config.schema import RankingConfig
from forecast.proxies.token_proxies import PROXIES
from forecast.warehouse.features import features, mean_scores
from forecast.warehouse.population import Population, Target

if TYPE_CHECKING:
    from forecast.analysis.ranking.single_proxy import TargetCorrelations

Array = NDArray[np.float64]
_PLACES = {proxy.name: k for k, proxy in enumerate(PROXIES)}
_CHUNK = 50  # resamples at a time, for memory


@dataclass(frozen=True)
class Standing:
    """One candidate; None where a figure does not exist."""

    candidate: str
    family: str | None
    parameters: int | None
    step: int | None  # of a checkpoint of a training run
    rank: float  # by the leader, 1 is best, ties share
    rank_low: float | None
    rank_high: float | None
    p_above_next: float | None  # None for the last
    interval_over: str | None  # what the interval and the probability are over
    value: float | None  # by the leader: a proxy's mean over tasks, or a scorer's forecast
    measured: float | None
    measured_stderr: float | None
    measured_rank: float | None
    values: dict[str, float]  # the shown proxies, mean over the tasks
    ranks: dict[str, float]  # by the shown proxies, 1 is best


def standings_of(
    population: Population,
    settings: RankingConfig,
    leader: Leader,
    report: "TargetCorrelations | None",
    leading: Sequence[Target],
    shown: Sequence[str],
    turned: frozenset[str],
    order: Order | None,
) -> tuple[tuple[Standing, ...], str | None]:
    """Best first, or along the steps of one run; and why intervals are not over candidates and families.

    Args:
        report: what the evidence is about; None where nothing is measured.
        leading: its measured targets.
        shown: proxies whose values stand beside.
        turned: proxies of learned direction of which less is better.
        order: of the held-out evaluation; needed where a scorer leads.
    """
    tasks = report.tasks if report else tuple(population.proxies)
    columns = features(population, tasks)
    means = np.mean([population.proxies[task].means() for task in tasks], axis=0)
    own_ranks = {name: ranks((-1 if name in turned else 1) * columns[:, _PLACES[name]]) for name in shown}
    measured = errors = np.full(len(population.candidates), np.nan)
    if leading:
        measured, errors = mean_scores(leading)
    measured_ranks = ranks(measured)
    if leader.proxy is not None:
        k = _PLACES[leader.proxy]
        order = _order_by_proxy(population, settings, leader.proxy, tasks, leading, leader.proxy in turned)
        value = dict(zip(population.candidates, map(number, means[:, k]), strict=True))
    else:
        assert order is not None, "a scorer leads by its held-out forecasts"
        value = {place.candidate: place.forecast for place in order.places}
    places = {place.candidate: (i, place) for i, place in enumerate(order.places)}
    first = {identity: name for name, identity in reversed(_identities(population)) if name in places}
    found = []
    for i, (name, identity) in enumerate(_identities(population)):
        # A second name of one model was not held out by itself: it stands where the first one does.
        known = name if name in places else first.get(identity)
        position, place = places[known] if known is not None else (len(places), None)
        low, high = (place.rank_low, place.rank_high) if place else (None, None)
        standing = Standing(
            candidate=name,
            family=population.families[i],
            parameters=population.parameters[i],
            step=population.steps[i] if population.steps else None,
            rank=place.rank if place else float(len(places) + 1),
            rank_low=low,
            rank_high=high,
            p_above_next=place.p_above_next if place else None,
            interval_over=place.interval_over if place else None,
            value=None if known is None else value[known],
            measured=number(measured[i]),
            measured_stderr=number(errors[i]),
            measured_rank=number(measured_ranks[i]),
            values={proxy: float(means[i, _PLACES[proxy]]) for proxy in shown},
            ranks={proxy: float(own_ranks[proxy][i]) for proxy in shown},
        )
        along = standing.step if population.one_run is not None else None
        found.append((position if along is None else along, name, standing))
    return tuple(standing for *_, standing in sorted(found, key=lambda row: row[:2])), order.reason


def _identities(population: Population) -> list[tuple[str, str]]:
    return list(zip(population.candidates, population.identities, strict=True))


def _order_by_proxy(
    population: Population,
    settings: RankingConfig,
    proxy: str,
    tasks: Sequence[str],
    leading: Sequence[Target],
    turned: bool,
) -> Order:
    """The order by one proxy. The default was selected on no scores, so its misses on them are honest."""
    k, sign = _PLACES[proxy], -1 if turned else 1
    column = sign * features(population, tasks)[:, k]
    scores = [target.values for target in leading] or [np.full(len(column), np.nan)]
    several = settings.bootstraps > 1 and all(len(population.proxies[task].instances) > 1 for task in tasks)
    redrawn = sign * _redrawn(population, tasks, k, settings) if several else None
    return order_of(
        proxy,
        population.candidates,
        tuple(
            family or name for family, name in zip(population.families, population.candidates, strict=True)
        ),
        column[None],
        np.stack(scores),
        confidence=settings.confidence,
        draws=settings.bootstraps,
        seed=settings.seed,
        unseen=proxy == DEFAULT_PROXY,
        redrawn=redrawn,
    )


def _redrawn(population: Population, tasks: Sequence[str], k: int, settings: RankingConfig) -> Array:
    """The feature [D, C] under D drawings of each task's instances, for all candidates alike."""
    return np.concatenate(
        [
            features(population, tasks, weights, columns=[k])[:, :, 0]
            for weights in _weights(population, tasks, settings)
        ]
    )


def _weights(
    population: Population, tasks: Sequence[str], settings: RankingConfig
) -> Iterator[Mapping[str, Array]]:
    rng = np.random.default_rng(settings.seed)
    for start in range(0, settings.bootstraps, _CHUNK):
        size = min(_CHUNK, settings.bootstraps - start)
        counts = {task: len(population.proxies[task].instances) for task in tasks}
        yield {
            task: rng.multinomial(n, np.full(n, 1 / n), size=size).astype(float) for task, n in counts.items()
        }
