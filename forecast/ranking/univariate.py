"""Univariate ranking: every proxy by itself against measured scores, with intervals over instances.

Sign convention: a proxy for which low is better enters with its sign turned, so a positive rho always means that the
proxy ranks good candidates high; entropy's direction is not known beforehand and its rho is printed as it is.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forecast.config import RankingConfig
from forecast.proxies import PLAIN_CROSS_ENTROPY, PROXIES
from forecast.ranking.population import Population, Target
from forecast.ranking.statistics import best_of_many_p, kendall, spearman

Array = NDArray[np.float64]
MEAN_TARGET = "mean of measured tasks"
_SIGNS = np.array([p.sign for p in PROXIES], float)


@dataclass(frozen=True)
class Correlation:
    """One proxy against one target; None where n or a constant column leaves a figure without meaning."""

    target: str
    proxy: str
    metric: str
    weighting: str
    spearman: float | None
    kendall: float | None
    ci_low: float | None
    ci_high: float | None
    n_candidates: int

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TargetReport:
    """All 80 proxies against one target."""

    target: str
    tasks: tuple[str, ...]  # whose proxies forecast it
    n_candidates: int
    n_items: int | None
    correlations: tuple[Correlation, ...]  # in the order of PROXIES
    best_p: float | None
    best_null_mean: float | None

    def best(self) -> Correlation | None:
        """The proxy with the highest |rho|; picked after looking, so read it with `best_p`."""
        known = [c for c in self.correlations if c.spearman is not None]
        return max(known, key=lambda c: abs(c.spearman or 0.0), default=None)

    def plain_cross_entropy(self) -> Correlation:
        """Unweighted cross-entropy on the trajectories, the baseline."""
        return next(c for c in self.correlations if c.proxy == PLAIN_CROSS_ENTROPY)


@dataclass(frozen=True)
class Standing:
    """One candidate in the ranking."""

    candidate: str
    family: str | None
    parameters: int | None
    measured: float | None
    measured_stderr: float | None
    measured_rank: float | None
    forecast_rank: float
    values: dict[str, float]  # the shown proxies, mean over the tasks
    ranks: dict[str, float]  # of the shown proxies, 1 is best

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Ranking:
    """The result of `forecast rank`."""

    standings: tuple[Standing, ...]  # best forecast first
    shown: tuple[str, ...]  # proxies in the table; the first one orders it
    reports: tuple[TargetReport, ...]  # the mean of the targets first, where there are several
    n_instances: dict[str, int]
    confidence: float
    warnings: tuple[str, ...]


def rank_candidates(population: Population, settings: RankingConfig) -> Ranking:
    """Rank candidates by the proxy that agrees best with what is measured, or by plain cross-entropy without scores."""
    warnings: list[str] = []
    targets = list(population.targets)
    reports = [_report(population, [target], settings, target.task) for target in targets]
    if len(targets) > 1:
        reports.insert(0, _report(population, targets, settings, MEAN_TARGET))
    shown = _shown(reports[0] if reports else None)
    tasks = reports[0].tasks if reports else tuple(population.proxies)
    if not reports:
        warnings.append("no measured scores: candidates stand in the order of plain cross-entropy, unchecked")
    elif (best := reports[0].best()) is None:
        warnings.append(f"rho is undefined with {reports[0].n_candidates} measured candidates; it takes 3 that differ")
    else:
        warnings += _cautions(reports[0], best)
    lead = next((c for r in reports[:1] for c in r.correlations if c.proxy == shown[0]), None)
    turn = -1.0 if lead is not None and (lead.spearman or 0.0) < 0 else 1.0
    features = _features(population, tasks)
    means = np.mean([population.proxies[task].means() for task in tasks], axis=0)
    index = {p.name: k for k, p in enumerate(PROXIES)}
    ranks = {name: _ranks(features[:, index[name]]) for name in shown}
    order_by = _ranks(turn * features[:, index[shown[0]]])
    measured = np.mean([t.values for t in targets], axis=0) if targets else np.full(len(population.candidates), np.nan)
    errors = (
        np.sqrt(np.sum([t.stderr**2 for t in targets], axis=0)) / len(targets)
        if targets
        else np.full(len(population.candidates), np.nan)
    )
    measured_ranks = _ranks(measured)
    standings = [
        Standing(
            candidate=name,
            family=population.families[i],
            parameters=population.parameters[i],
            measured=_number(measured[i]),
            measured_stderr=_number(errors[i]),
            measured_rank=_number(measured_ranks[i]),
            forecast_rank=float(order_by[i]),
            values={name_: float(means[i, index[name_]]) for name_ in shown},
            ranks={name_: float(ranks[name_][i]) for name_ in shown},
        )
        for i, name in enumerate(population.candidates)
    ]
    standings.sort(key=lambda s: (s.forecast_rank, s.candidate))
    return Ranking(
        standings=tuple(standings),
        shown=shown,
        reports=tuple(reports),
        n_instances={task: len(p.instances) for task, p in population.proxies.items()},
        confidence=settings.confidence,
        warnings=tuple(warnings),
    )


def _cautions(report: TargetReport, best: Correlation) -> list[str]:
    found = [
        f"{best.proxy} leads 80 proxies that were compared on the scores shown here: its rho of {best.spearman:+.2f} "
        "is too good by selection"
        + (
            f" (best of 80 under shuffled scores: {report.best_null_mean:.2f} on average, p = {report.best_p:.3f})"
            if report.best_p is not None and report.best_null_mean is not None
            else ""
        )
    ]
    if report.n_candidates < 10:
        found.append(f"{report.n_candidates} candidates: intervals over instances say nothing about other candidates")
    return found


def _shown(report: TargetReport | None) -> tuple[str, ...]:
    """The leading proxy of three different metrics, then plain cross-entropy."""
    leading: dict[str, str] = {}
    if report is not None:
        known = [c for c in report.correlations if c.spearman is not None]
        for c in sorted(known, key=lambda c: -abs(c.spearman or 0.0)):
            leading.setdefault(c.metric, c.proxy)
    else:
        leading = {"cross_entropy": PLAIN_CROSS_ENTROPY, "reciprocal_rank": "reciprocal_rank__uniform"}
        leading["top5_accuracy"] = "top5_accuracy__frequency"
    names = list(leading.values())[:3]
    return tuple(dict.fromkeys([*names, PLAIN_CROSS_ENTROPY]))


def _features(population: Population, tasks: Sequence[str], weights: dict[str, Array] | None = None) -> Array:
    """Oriented proxies [candidates, 80], or [b, candidates, 80] under instance weights.

    One task: its means. Several: z-scored over the candidates within each task, then averaged.
    """
    parts = []
    for task in tasks:
        values = population.proxies[task].means(None if weights is None else weights[task]) * _SIGNS
        if len(tasks) > 1:
            spread = values.std(axis=-2, keepdims=True)
            values = (values - values.mean(axis=-2, keepdims=True)) / np.where(spread > 0, spread, 1.0)
        parts.append(values)
    return np.mean(parts, axis=0)


def _report(population: Population, targets: Sequence[Target], settings: RankingConfig, name: str) -> TargetReport:
    wanted = [population.tasks_for(target.task, settings.targets) for target in targets]
    tasks = tuple(dict.fromkeys(task for one in wanted for task in one))
    scores = np.mean([target.values for target in targets], axis=0)
    have = np.isfinite(scores)
    n = int(have.sum())
    features = _features(population, tasks)[have]  # [n, 80]
    rho = spearman(features.T, scores[have])
    low, high = _interval(population, targets, tasks, have, settings)
    p, null_mean = best_of_many_p(features.T, scores[have], settings.permutations, settings.seed)
    correlations = tuple(
        Correlation(
            target=name,
            proxy=proxy.name,
            metric=proxy.metric.name,
            weighting=proxy.weighting.name,
            spearman=_number(rho[k]),
            kendall=_number(kendall(features[:, k], scores[have])),
            ci_low=_number(low[k]),
            ci_high=_number(high[k]),
            n_candidates=n,
        )
        for k, proxy in enumerate(PROXIES)
    )
    counts = [target.n_items for target in targets]
    n_items = sum(c for c in counts if c is not None) if any(c is not None for c in counts) else None
    return TargetReport(name, tasks, n, n_items, correlations, _number(p), _number(null_mean))


def _interval(
    population: Population, targets: Sequence[Target], tasks: Sequence[str], have: NDArray[np.bool_], settings: RankingConfig
) -> tuple[Array, Array]:
    """Percentile interval of rho over resampled trajectories and resampled evaluation items.

    Imported scores have no items; they are redrawn from a normal distribution with their standard error, and stay
    fixed where none was given.
    """
    b = settings.bootstraps
    if b == 0 or have.sum() < 3:
        return np.full(len(PROXIES), np.nan), np.full(len(PROXIES), np.nan)
    rng = np.random.default_rng(settings.seed)
    rhos = []
    for size in [50] * (b // 50) + ([b % 50] if b % 50 else []):  # bounded memory: 50 resamples at a time
        weights = {task: _resample(rng, len(population.proxies[task].instances), size) for task in tasks}
        features = _features(population, tasks, weights)[:, have]  # [size, n, 80]
        drawn = np.mean([_redraw(rng, target, size) for target in targets], axis=0)[:, have]  # [size, n]
        rhos.append(spearman(features.transpose(0, 2, 1), drawn[:, None, :]))
    tail = (1 - settings.confidence) / 2
    stacked = np.concatenate(rhos)
    undefined = np.isnan(stacked).all(axis=0)
    stacked[:, undefined] = 0.0
    low, high = np.nanquantile(stacked, [tail, 1 - tail], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def _resample(rng: np.random.Generator, n: int, size: int) -> Array:
    return rng.multinomial(n, np.full(n, 1 / n), size=size).astype(float)


def _redraw(rng: np.random.Generator, target: Target, size: int) -> Array:
    if target.items is not None:
        n = target.items.shape[1]
        return _resample(rng, n, size) @ target.items.T / n
    noise = rng.normal(size=(size, len(target.values))) * np.nan_to_num(target.stderr)
    return target.values + noise


def _ranks(values: Array) -> Array:
    """Rank 1 for the highest, average ranks for ties, NaN where there is no value."""
    from scipy.stats import rankdata

    return rankdata(-np.asarray(values, float), nan_policy="omit")


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
