"""Univariate ranking: every proxy by itself against measured scores, with intervals over the texts.

Sign convention: a proxy for which low is better enters with its sign turned, so a positive rho always means
that the proxy ranks good candidates high. Entropy's direction is not known beforehand: its rho is printed as
it is, its candidates are ranked in the direction that the scores show, and it is chosen by |rho|, the others
by rho. (The paper chooses all by |rho|; with few scores chance would turn known directions round.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forecast.analysis.ranking.leader import ALPHA, DEFAULT_PROXY, Leader, leader_of
from forecast.analysis.ranking.standings import Standing, standings_of
from forecast.analysis.ranking.text_bootstrap import interval
from forecast.analysis.ranking.warnings import cautions
from forecast.analysis.stats.figures import number
from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES, best_of_many_p, kendall, spearman
from forecast.config.schema import RankingConfig
from forecast.errors import NoDataError
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES, Proxy
from forecast.report.records import frame_of
from forecast.warehouse.features import combined, complete, features, mean_scores
from forecast.warehouse.population import Population, Target

if TYPE_CHECKING:
    from forecast.analysis.ranking.held_out import HeldOutResult

Array = NDArray[np.float64]
MEAN_TARGET = "mean of measured tasks"
_LEARNED = np.array([proxy.learned for proxy in PROXIES])
_LEARNED_NAMES = {proxy.name for proxy in PROXIES if proxy.learned}
_PLACES = {proxy.name: k for k, proxy in enumerate(PROXIES)}
_TARGETS = {
    "target": pl.String(),
    "tasks": pl.List(pl.String()),
    "n_candidates": pl.Int64(),
    "n_items": pl.Int64(),
    "plain_spearman": pl.Float64(),
    "plain_ci_low": pl.Float64(),
    "plain_ci_high": pl.Float64(),
    "best": pl.String(),
    "best_spearman": pl.Float64(),
    "best_ci_low": pl.Float64(),
    "best_ci_high": pl.Float64(),
    "best_p": pl.Float64(),
    "best_null_mean": pl.Float64(),
}


@dataclass(frozen=True)
class Correlation:
    """One proxy against one target; None where n or a constant column leaves a figure without meaning."""

    target: str
    proxy: str
    metric: str
    weighting: str
    spearman: float | None
    kendall: float | None
    ci_low: float | None  # of spearman, over the texts
    ci_high: float | None
    n_candidates: int

    @property
    def agreement(self) -> float:
        """Rho, |rho| for a proxy whose direction is learned from the scores; -2 where there is none."""
        if self.spearman is None:
            return -2.0
        return abs(self.spearman) if self.proxy in _LEARNED_NAMES else self.spearman


def best_of(correlations: Iterable[Correlation]) -> Correlation | None:
    """The one that agrees best, of equals the first; None where none has a rho."""
    known = (c for c in correlations if c.spearman is not None)
    return max(known, key=lambda c: c.agreement, default=None)


@dataclass(frozen=True)
class TargetCorrelations:
    """All 80 proxies against one target."""

    target: str
    measured: tuple[str, ...]  # the tasks whose scores it is: one, or those of a mean
    tasks: tuple[str, ...]  # whose proxies forecast it
    n_candidates: int
    n_items: int | None
    correlations: tuple[Correlation, ...]  # in the order of PROXIES
    best_p: float | None
    best_null_mean: float | None

    def best(self) -> Correlation | None:
        """The proxy that agrees best, of equals the first; selected post hoc, so read it with `best_p`."""
        return best_of(self.correlations)

    def plain_cross_entropy(self) -> Correlation:
        """Unweighted cross-entropy on the trajectories, the baseline."""
        return self.correlations[_PLACES[PLAIN_CROSS_ENTROPY]]

    def as_row(self) -> dict[str, Any]:
        """A row of the frame `targets`."""
        best = self.best()
        row: dict[str, Any] = {
            "target": self.target,
            "tasks": list(self.tasks),
            "n_candidates": self.n_candidates,
            "n_items": self.n_items,
            "best": best.proxy if best else None,
            "best_p": self.best_p,
            "best_null_mean": self.best_null_mean,
        }
        for which, c in (("plain", self.plain_cross_entropy()), ("best", best)):
            row |= {f"{which}_{name}": getattr(c, name, None) for name in ("spearman", "ci_low", "ci_high")}
        return row


@dataclass(frozen=True)
class Ranking:
    """The result of `forecast rank`."""

    leader: Leader
    standings: tuple[Standing, ...]  # in the leader's order, or along the steps of `run`
    shown: tuple[str, ...]  # proxies in the table; the first is the leader, where that is a proxy
    reports: tuple[TargetCorrelations, ...]  # the first one is what the order is learned from
    n_instances: dict[str, int]  # by task
    run: str | None  # the training run whose checkpoints all candidates are; they stand along its steps
    over: str  # what the proxies are means over: tokens or bytes
    confidence: float
    warnings: tuple[str, ...]
    interval_reason: str | None  # why rank intervals are not over candidates and families

    def frames(self) -> dict[str, pl.DataFrame]:
        """Frames of the ranking.

        Returns:
            `standings`: a row per candidate, with value and rank (`..._rank`) by each shown proxy;
            `correlations`: a row per target and proxy;
            `targets`: a row per target, with the baseline and the proxy that agrees best.
        """
        by_proxy: list[pl.Series] = []
        for name in self.shown:
            by_proxy.append(pl.Series(name, [s.values[name] for s in self.standings], pl.Float64))
            by_proxy.append(pl.Series(f"{name}_rank", [s.ranks[name] for s in self.standings], pl.Float64))
        correlations = [c for report in self.reports for c in report.correlations]
        return {
            "standings": frame_of(self.standings, Standing).drop("values", "ranks").with_columns(by_proxy),
            "correlations": frame_of(correlations, Correlation),
            "targets": pl.DataFrame([report.as_row() for report in self.reports], schema=_TARGETS),
        }


def rank_candidates(population: Population, settings: RankingConfig) -> Ranking:
    """Rank by single proxies: the one that leads by evidence, see `leader`; `with_held_out` says more.

    Raises:
        NoDataError: no task has proxies.
    """
    if not population.proxies:
        raise NoDataError("no task has proxies")
    targets, warnings = _usable(population, settings)
    leading, words = _leading(targets, population)
    warnings += words
    reports = [_report(population, [target], settings, target.task) for target in targets]
    if len(leading) > 1:
        reports.insert(0, _report(population, leading, settings, MEAN_TARGET))
    elif leading:
        reports.sort(key=lambda report: report.target != leading[0].task)
    report = reports[0] if reports else None
    leader = leader_of(report)
    shown = _shown(report, leader)
    warnings += cautions(population, report, leading)
    standings, reason = standings_of(
        population, settings, leader, report, leading, shown, _turned(report), None
    )
    return Ranking(
        leader=leader,
        standings=standings,
        shown=shown,
        reports=tuple(reports),
        n_instances={task: len(proxies.instances) for task, proxies in population.proxies.items()},
        run=population.one_run,
        over=population.over,
        confidence=settings.confidence,
        warnings=tuple(warnings),
        interval_reason=reason,
    )


def with_held_out(
    ranking: Ranking, population: Population, settings: RankingConfig, held_out: "HeldOutResult | None"
) -> Ranking:
    """The ranking led by what the held-out evaluation shows; as it is where nothing could be held out."""
    leader = None if held_out is None else held_out.leader
    if held_out is None or leader is None:
        return ranking
    if leader.scorer is not None and (leader.null_p is None or leader.null_p > ALPHA):
        leader = replace(leader, proxy=DEFAULT_PROXY, scorer=None)
    report = ranking.reports[0]
    shown = _shown(report, leader)
    leading = [target for target in population.targets if target.task in report.measured]
    standings, reason = standings_of(
        population, settings, leader, report, leading, shown, _turned(report), held_out.order
    )
    return replace(ranking, leader=leader, standings=standings, shown=shown, interval_reason=reason)


def _leading(targets: Sequence[Target], population: Population) -> tuple[list[Target], list[str]]:
    """The tasks that the order is judged by, and which tasks and candidates fell out.

    A task is in the mean if half of the measured candidates or more have its score, a candidate if it has
    half of these tasks or more; see `features.combined`.
    """
    if len(targets) < 2:
        return list(targets), []
    known = np.isfinite([target.values for target in targets])
    counts, n = known.sum(axis=1), int(known.any(axis=0).sum())
    kept = [target for target, own in zip(targets, counts, strict=True) if 2 * own >= n and own > 0]
    widest = targets[int(counts.argmax())]
    if not kept or np.isfinite(mean_scores(kept)[0]).sum() < MIN_CANDIDATES <= counts.max():
        kept = [widest]
    names = {target.task for target in kept}
    words = [
        f"{target.task} is not among the tasks that the order is judged by: {own} of {n} measured candidates "
        "have its score"
        for target, own in zip(targets, counts, strict=True)
        if target.task not in names
    ]
    values = np.stack([target.values for target in kept])
    if complete(values):
        return kept, words
    words.append(
        "not every candidate has every score: the mean of measured tasks is of z-scores, over the tasks that "
        f"a candidate has ({', '.join(target.task for target in kept)})"
    )
    few = np.isfinite(values).any(axis=0) & ~np.isfinite(combined(values))
    if few.any():
        without = ", ".join(population.candidates[c] for c in np.flatnonzero(few))
        words.append(f"fewer than half of the tasks measured, so without a mean: {without}")
    return kept, words


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
    # Tasks with trajectories of their own first.
    return sorted(targets, key=lambda target: target.task not in population.proxies), warnings


def _report(
    population: Population, targets: Sequence[Target], settings: RankingConfig, name: str
) -> TargetCorrelations:
    wanted = [population.tasks_for(target.task, settings.targets) for target in targets]
    tasks = tuple(dict.fromkeys(task for one in wanted for task in one))
    scores, _ = mean_scores(targets)
    have = np.isfinite(scores)
    n = int(have.sum())
    columns = features(population, tasks)[have].T  # [80, n]
    rho = spearman(columns, scores[have])
    low, high = interval(population, targets, tasks, have, rho, settings)
    families = [population.families[i] or i for i in np.flatnonzero(have)]  # one without a family is its own
    p, null_mean = best_of_many_p(
        columns, scores[have], _LEARNED, families, settings.permutations, settings.seed
    )
    correlations = tuple(
        Correlation(
            target=name,
            proxy=proxy.name,
            metric=proxy.metric.name,
            weighting=proxy.weighting.name,
            spearman=number(rho[k]),
            kendall=number(kendall(columns[k], scores[have])),
            ci_low=number(low[k]),
            ci_high=number(high[k]),
            n_candidates=n,
        )
        for k, proxy in enumerate(PROXIES)
    )
    counts = [target.n_items for target in targets if target.n_items is not None]
    return TargetCorrelations(
        target=name,
        measured=tuple(target.task for target in targets),
        tasks=tasks,
        n_candidates=n,
        n_items=sum(counts) if counts else None,
        correlations=correlations,
        best_p=number(p),
        best_null_mean=number(null_mean),
    )


def _shown(report: TargetCorrelations | None, leader: Leader) -> tuple[str, ...]:
    """The leader, proxies of three different metrics that agree best, then plain cross-entropy."""
    if report is None:
        return (PLAIN_CROSS_ENTROPY, "reciprocal_rank__uniform", "top5_accuracy__frequency")
    by_metric: dict[str, str] = {}
    for c in sorted(report.correlations, key=lambda c: -c.agreement):
        if c.agreement > 0:
            by_metric.setdefault(c.metric, c.proxy)
    first = [leader.proxy] if leader.proxy else []
    return tuple(dict.fromkeys([*first, *list(by_metric.values())[:3], PLAIN_CROSS_ENTROPY]))


def _turned(report: TargetCorrelations | None) -> frozenset[str]:
    """Proxies of learned direction of which, by the scores, less is better."""
    known = report.correlations if report else ()
    return frozenset(c.proxy for c in known if c.proxy in _LEARNED_NAMES and (c.spearman or 0.0) < 0)


def proxy_values(population: Population, report: TargetCorrelations, proxy: Proxy) -> Array:
    """[candidates], in the proxy's own unit: mean over instances, experts and tasks that forecast the target.

    Over several tasks rho is computed on z-scores within each task, so it may differ a little from the order
    seen in these means.
    """
    column = _PLACES[proxy.name]
    means: Array = np.mean([population.proxies[task].means()[:, column] for task in report.tasks], axis=0)
    return means


def target_scores(population: Population, report: TargetCorrelations) -> tuple[Array, Array]:
    """Measured scores and their standard errors, [candidates] each; NaN where there is none."""
    return mean_scores([target for target in population.targets if target.task in report.measured])
