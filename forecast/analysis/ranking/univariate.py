"""Univariate ranking: every proxy by itself against measured scores, with intervals over the texts.

Sign convention: a proxy for which low is better enters with its sign turned, so a positive rho always means
that the proxy ranks good candidates high. Entropy's direction is not known beforehand: its rho is printed as
it is, its candidates are ranked in the direction that the scores show, and it is chosen by |rho|, the others
by rho. (The paper chooses all by |rho|; with few scores chance would turn known directions round.)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.results import Correlation, Ranking, Standing, TargetReport
from forecast.analysis.ranking.text_bootstrap import interval
from forecast.analysis.ranking.warnings import cautions
from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES, best_of_many_p, kendall, ranks, spearman
from forecast.config.schema import RankingConfig
from forecast.errors import NoDataError
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES
from forecast.warehouse.features import features, mean_scores
from forecast.warehouse.population import Population, Target

Array = NDArray[np.float64]
MEAN_TARGET = "mean of measured tasks"
_LEARNED = np.array([proxy.learned for proxy in PROXIES])
_PLACES = {proxy.name: k for k, proxy in enumerate(PROXIES)}


def rank_candidates(population: Population, settings: RankingConfig) -> Ranking:
    """Rank by the proxy that agrees best with what is measured, without scores by plain cross-entropy.

    Raises:
        NoDataError: no task has proxies.
    """
    if not population.proxies:
        raise NoDataError("no task has proxies")
    targets, warnings = _usable(population, settings)
    reports = [_report(population, [target], settings, target.task) for target in targets]
    leading = targets
    if len(targets) > 1:
        mean = _report(population, targets, settings, MEAN_TARGET)
        widest = max(reports, key=lambda report: report.n_candidates)
        if mean.n_candidates < MIN_CANDIDATES <= widest.n_candidates:
            warnings.append(
                f"{mean.n_candidates} candidates have a score of every measured task, too few for a mean of "
                f"the tasks: the order is learned from {widest.target}, which the most candidates have"
            )
            leading = [targets[reports.index(widest)]]
            reports.remove(widest)
            reports.insert(0, widest)
        else:
            reports.insert(0, mean)
    report = reports[0] if reports else None
    shown = _shown(report)
    warnings += cautions(population, report, leading)
    return Ranking(
        standings=_standings(population, report, leading, shown),
        shown=shown,
        reports=tuple(reports),
        n_instances={task: len(proxies.instances) for task, proxies in population.proxies.items()},
        confidence=settings.confidence,
        warnings=tuple(warnings),
    )


def _usable(population: Population, settings: RankingConfig) -> tuple[list[Target], list[str]]:
    """Targets that there are proxies for, and what is wrong with the others."""
    targets, warnings = [], []
    for target in population.targets:
        if population.tasks_for(target.task, settings.targets):
            targets.append(target)
        else:
            warnings.append(
                f"{target.task}: no task that ranking.targets names for it was read, so it is left out"
            )
    measured = [target.task for target in population.targets]
    for task in settings.targets:
        if task not in measured:
            warnings.append(f"ranking.targets names {task}, of which no candidate has a score")
    return targets, warnings


def _report(
    population: Population, targets: Sequence[Target], settings: RankingConfig, name: str
) -> TargetReport:
    wanted = [population.tasks_for(target.task, settings.targets) for target in targets]
    tasks = tuple(dict.fromkeys(task for one in wanted for task in one))
    scores, _ = mean_scores(targets)
    have = np.isfinite(scores)
    n = int(have.sum())
    columns = features(population, tasks)[have].T  # [80, n]
    rho = spearman(columns, scores[have])
    low, high = interval(population, targets, tasks, have, rho, settings)
    p, null_mean = best_of_many_p(columns, scores[have], _LEARNED, settings.permutations, settings.seed)
    correlations = tuple(
        Correlation(
            target=name,
            proxy=proxy.name,
            metric=proxy.metric.name,
            weighting=proxy.weighting.name,
            spearman=_number(rho[k]),
            kendall=_number(kendall(columns[k], scores[have])),
            ci_low=_number(low[k]),
            ci_high=_number(high[k]),
            n_candidates=n,
        )
        for k, proxy in enumerate(PROXIES)
    )
    counts = [target.n_items for target in targets if target.n_items is not None]
    return TargetReport(
        target=name,
        measured=tuple(target.task for target in targets),
        tasks=tasks,
        n_candidates=n,
        n_items=sum(counts) if counts else None,
        correlations=correlations,
        best_p=_number(p),
        best_null_mean=_number(null_mean),
    )


def _shown(report: TargetReport | None) -> tuple[str, ...]:
    """The leading proxies of three different metrics, then plain cross-entropy."""
    if report is None:
        return (PLAIN_CROSS_ENTROPY, "reciprocal_rank__uniform", "top5_accuracy__frequency")
    leading: dict[str, str] = {}
    for c in sorted(report.correlations, key=lambda c: -c.agreement):
        if c.agreement > 0:
            leading.setdefault(c.metric, c.proxy)
    return tuple(dict.fromkeys([*list(leading.values())[:3], PLAIN_CROSS_ENTROPY]))


def _turned(report: TargetReport | None) -> frozenset[str]:
    """Proxies of learned direction of which, by the scores, less is better."""
    known = report.correlations if report else ()
    learned = {proxy.name for proxy in PROXIES if proxy.learned}
    return frozenset(c.proxy for c in known if c.proxy in learned and (c.spearman or 0.0) < 0)


def _standings(
    population: Population,
    report: TargetReport | None,
    leading: Sequence[Target],
    shown: Sequence[str],
) -> tuple[Standing, ...]:
    tasks = report.tasks if report else tuple(population.proxies)
    columns = features(population, tasks)
    means = np.mean([population.proxies[task].means() for task in tasks], axis=0)
    turned = _turned(report)
    own_ranks = {name: ranks((-1 if name in turned else 1) * columns[:, _PLACES[name]]) for name in shown}
    measured = errors = np.full(len(population.candidates), np.nan)
    if leading:
        measured, errors = mean_scores(leading)
    measured_ranks = ranks(measured)
    found = [
        Standing(
            candidate=name,
            family=population.families[i],
            parameters=population.parameters[i],
            measured=_number(measured[i]),
            measured_stderr=_number(errors[i]),
            measured_rank=_number(measured_ranks[i]),
            forecast_rank=float(own_ranks[shown[0]][i]),
            values={proxy: float(means[i, _PLACES[proxy]]) for proxy in shown},
            ranks={proxy: float(own_ranks[proxy][i]) for proxy in shown},
        )
        for i, name in enumerate(population.candidates)
    ]
    return tuple(sorted(found, key=lambda standing: (standing.forecast_rank, standing.candidate)))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
