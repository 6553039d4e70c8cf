"""What a reader of a ranking must know, not to take its figures for more than they are."""

from collections.abc import Sequence

import numpy as np

from forecast.analysis.ranking.results import Correlation, TargetReport
from forecast.analysis.ranking.text_bootstrap import resamplable
from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES
from forecast.warehouse.population import Population, Target


def cautions(population: Population, report: TargetReport | None, leading: Sequence[Target]) -> list[str]:
    """In words.

    Args:
        report: what the order of the candidates is learned from.
        leading: the targets of that report.
    """
    if report is None:
        return ["no measured scores: candidates stand in the order of plain cross-entropy, unchecked"]
    found = []
    best = report.best()
    if best is None:
        few = report.n_candidates < MIN_CANDIDATES
        why = f"it takes {MIN_CANDIDATES}" if few else "all scores or all proxies are equal"
        found.append(
            f"rho is undefined with {report.n_candidates} measured candidates ({why}): "
            "candidates stand in the order of plain cross-entropy, unchecked"
        )
    else:
        found += _about_the_best(report, best)
        found += _about_intervals(population, report, leading)
    found += _about_scores(leading)
    if twins := _twins(population):
        found.append(f"one model under several names, each counted in n: {'; '.join(twins)}")
    return found


def _about_the_best(report: TargetReport, best: Correlation) -> list[str]:
    chance = ""
    if report.best_p is not None and report.best_null_mean is not None:
        mean, p = report.best_null_mean, report.best_p
        chance = f" (best of 80 under shuffled scores: {mean:.2f} on average, p = {p:.3f})"
    found = [
        f"{best.proxy} leads 80 proxies that were compared on the scores shown here: its rho of "
        f"{best.spearman:+.2f} is too good by selection{chance}"
    ]
    worst = min((c for c in report.correlations if c.spearman is not None), key=lambda c: c.agreement)
    if -worst.agreement > best.agreement:
        found.append(
            f"{worst.proxy} disagrees with the scores (rho {worst.spearman:+.2f}) more strongly than any "
            "proxy agrees: this is chance, or lower scores are better"
        )
    return found


def _about_intervals(population: Population, report: TargetReport, leading: Sequence[Target]) -> list[str]:
    if not resamplable(population, leading, report.tasks):
        return ["no intervals: they take two instances or more of each task, and two questions or more"]
    found = [
        f"intervals are over solutions and questions: with n = {report.n_candidates} candidates they say "
        "nothing about other candidates"
    ]
    exact = [t.task for t in leading if t.items is None and np.isnan(t.stderr[np.isfinite(t.values)]).any()]
    if exact:
        found.append(f"no standard error for scores of {', '.join(exact)}: intervals take them as exact")
    return found


def _about_scores(leading: Sequence[Target]) -> list[str]:
    found = [
        f"{target.task}: {target.metric} is used, not {', '.join(target.other_metrics)}"
        for target in leading
        if target.other_metrics
    ]
    largest = {target.task: float(np.nanmax(np.abs(target.values))) for target in leading}
    if max(largest.values()) > 1.5 and min(largest.values()) <= 1:  # fractions beside percentages or points
        scales = ", ".join(f"{task} up to {value:.3g}" for task, value in largest.items())
        found.append(f"the measured tasks have different scales ({scales}): the largest decide the mean")
    return found


def _twins(population: Population) -> list[str]:
    names: dict[str, list[str]] = {}
    for name, identity in zip(population.candidates, population.identities, strict=True):
        names.setdefault(identity, []).append(name)
    return [" = ".join(same) for same in names.values() if len(same) > 1]
