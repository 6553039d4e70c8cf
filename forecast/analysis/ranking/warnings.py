"""What a reader of a ranking must know, not to take its figures for more than they are."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from forecast.analysis.ranking.feature_table import shortened
from forecast.analysis.ranking.leader import ALPHA
from forecast.analysis.ranking.scorers.mean_score import OWN_MEAN
from forecast.analysis.ranking.scorers.score_baselines import FROM_SCORES
from forecast.analysis.ranking.splits import (
    KNOWN_TASKS,
    LEAVE_2_TASKS_OUT,
    LEAVE_FAMILIES_OUT,
    LEAVE_MODELS_OUT,
    Protocol,
)
from forecast.analysis.ranking.text_bootstrap import resamplable
from forecast.analysis.stats.correlations import smallest_detectable_rho
from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES
from forecast.warehouse.population import Population, Target

if TYPE_CHECKING:
    from forecast.analysis.ranking.held_out import HeldOutResult
    from forecast.analysis.ranking.held_out_metrics import ScorerRow
    from forecast.analysis.ranking.single_proxy import Correlation, TargetCorrelations

BARS = (OWN_MEAN, *(scorer.name for scorer in FROM_SCORES))  # what looks at scores, not at features
_LOST = 0.6  # share of a rho that may be left for unseen models where recognition explains the rest
_FEW = 10  # candidates: one task of so many shows a rho of 0.8 or more


def cautions(
    population: Population, report: "TargetCorrelations | None", leading: Sequence[Target]
) -> list[str]:
    """In words.

    Args:
        report: what the order of the candidates is learned from.
        leading: the targets of that report.
    """
    found = _about_tokenizers(population)
    if report is None:
        return [*found, "no measured scores: candidates stand in the order of plain cross-entropy, unchecked"]
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


def _about_tokenizers(population: Population) -> list[str]:
    if (ways := population.tokenizations) == 1:
        return []
    words = f"the candidates tokenize the texts in {ways} ways"
    if population.over == "bytes":
        return [f"{words}: proxies are means over bytes, which compare between tokenizers"]
    return [f"{words}: means over tokens do not compare between them; rank with --over bytes"]


def _about_the_best(report: "TargetCorrelations", best: "Correlation") -> list[str]:
    chance = ""
    if report.best_p is not None and report.best_null_mean is not None:
        mean, p = report.best_null_mean, report.best_p
        chance = f" (best of 80 under shuffled scores: {mean:.2f} on average, p = {p:.3f})"
    found = [
        f"{best.proxy} agrees best of 80 proxies, on the scores that they were compared on: its rho of "
        f"{best.spearman:+.2f} is optimistically biased{chance}"
    ]
    worst = min((c for c in report.correlations if c.spearman is not None), key=lambda c: c.agreement)
    if -worst.agreement > best.agreement:
        found.append(
            f"{worst.proxy} disagrees with the scores (rho {worst.spearman:+.2f}) more strongly than any "
            "proxy agrees: this is chance, or lower scores are better"
        )
    return found


def _about_intervals(
    population: Population, report: "TargetCorrelations", leading: Sequence[Target]
) -> list[str]:
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


def table_cautions(report: "HeldOutResult", protocols: Sequence[Protocol]) -> list[str]:
    """In words, the most important first."""
    rows = {(row.scorer, row.protocol): row for row in report.rows}
    scorers = [name for name in dict.fromkeys(row.scorer for row in report.rows) if name not in BARS]
    found = [f"{protocol.name} skipped: {protocol.reason}" for protocol in protocols if protocol.reason]
    found += _recognised(rows, scorers)
    found += _bar(rows, scorers)
    found += _unsure(report)
    found += _power(report)
    found += _best(report)
    found += _families(report, protocols)
    found += _undefined(report)
    if report.order is not None and report.order.reason is not None:
        found.append(report.order.reason)
    return found


def _recognised(rows: dict[tuple[str, str], "ScorerRow"], scorers: Sequence[str]) -> list[str]:
    """Scorers whose rho is gone for candidates, or families, that they have not seen."""
    found = []
    steps = (
        (LEAVE_2_TASKS_OUT, LEAVE_MODELS_OUT, "models", "candidates"),
        (LEAVE_MODELS_OUT, LEAVE_FAMILIES_OUT, "families", "families"),
    )
    for easier, harder, what, unseen in steps:
        sure: list[str] = []
        open_: list[str] = []
        for name in scorers:
            easy, hard = rows.get((name, easier)), rows.get((name, harder))
            if (
                easy is None
                or hard is None
                or not _clear(easy, easier)
                or hard.spearman is None
                or _found(hard)
            ):
                continue
            assert easy.spearman is not None
            chance = f", p = {hard.null.p:.2f}" if hard.null.p is not None else ""
            told = f"{name} ({easy.spearman:+.2f}, but {hard.spearman:+.2f}{chance})"
            by_chance = easy.null.mean is not None and easy.null.mean >= easy.spearman / 2
            lost = hard.spearman <= _LOST * easy.spearman
            (sure if lost and (by_chance or what == "families") else open_).append(told)
        if sure:
            null = "; with shuffled scores it ranks nearly as well" if what == "models" else ""
            found.append(
                f"the scorer recognises {what} by a fingerprint, not ability: {easier} shows a rho that "
                f"{harder} does not, for {unseen} it has not seen: {', '.join(sure)}{null}"
            )
        if open_:
            found.append(
                f"not shown for {unseen} that the scorer has not seen, or they are too few: {easier}, but "
                f"{harder}: {', '.join(open_)}"
            )
    return found


def _clear(row: "ScorerRow", protocol: str) -> bool:
    """A rho that a reader would take for real."""
    if protocol == LEAVE_MODELS_OUT:
        return _found(row)
    return row.spearman is not None and (row.ci_low > 0 if row.ci_low is not None else row.spearman > 0.5)


def _found(row: "ScorerRow") -> bool:
    """Beyond its null; without permutations: an interval above 0."""
    if row.null.p is not None:
        return row.null.p <= ALPHA
    return row.ci_low is not None and row.ci_low > 0


def _unsure(report: "HeldOutResult") -> list[str]:
    told = [
        f"{row.scorer}, {row.protocol}"
        for row in report.rows
        if row.null.p is not None and row.null.p > ALPHA and row.ci_low is not None and row.ci_low > 0
    ]
    if not told:
        return []
    return [
        "an interval above 0 beside a p that is not small: intervals are of these fits on other candidates "
        f"and leave out the chance in the fits, which p has in it: {shortened(told)}"
    ]


def _bar(rows: dict[tuple[str, str], "ScorerRow"], scorers: Sequence[str]) -> list[str]:
    """Scorers that tell no more than scores which are at hand anyway."""
    found = []
    for protocol in (LEAVE_2_TASKS_OUT, KNOWN_TASKS):
        bars = [
            (row.spearman, name)
            for name in BARS
            if (row := rows.get((name, protocol))) is not None and row.spearman is not None
        ]
        if not bars:
            continue
        rho, bar = max(bars)
        below = [
            f"{name} ({row.spearman:+.2f})"
            for name in scorers
            if (row := rows.get((name, protocol))) is not None
            and row.spearman is not None
            and row.spearman <= rho
        ]
        how = "the candidates' own mean score" if bar == OWN_MEAN else bar
        if below:
            found.append(
                f"under {protocol} {how} on the other tasks, with no feature at all, ranks with rho "
                f"{rho:+.2f}; not better: {', '.join(below)}"
            )
    return found


def _power(report: "HeldOutResult") -> list[str]:
    n = report.n_candidates
    rho = smallest_detectable_rho(n, report.options.confidence)
    found = []
    if 4 <= n < _FEW:
        found.append(
            f"n = {n} candidates: on one task only a true rho of {rho:.2f} or more is found four times in "
            "five"
        )
    if 0 < n <= 4:
        found.append(
            f"n = {n} candidates: they can be ordered in {math.factorial(n)} ways, so p cannot fall below "
            f"{1 / math.factorial(n):.2f}, and every figure may be chance"
        )
    return found


def _best(report: "HeldOutResult") -> list[str]:
    best = report.best
    if best is None or best.n_features < 2:
        return []
    chance = ""
    if best.null.p is not None:
        chance = (
            f"; the best of {best.n_features} under permutation: {best.null.mean:.2f} on average, "
            f"p = {best.null.p:.3f}"
        )
    return [
        f"{best.feature} is the best of {best.n_features} features on the scores that it was selected on: "
        f"mean |rho| {best.mean_abs_rho:.2f} is optimistically biased{chance}"
    ]


def _families(report: "HeldOutResult", protocols: Sequence[Protocol]) -> list[str]:
    alone = report.n_families == report.n_candidates
    if alone and any(p.name == LEAVE_FAMILIES_OUT and p.folds for p in protocols) and report.n_candidates > 1:
        return [
            f"every family has one candidate: {LEAVE_FAMILIES_OUT} holds out what {LEAVE_MODELS_OUT} does"
        ]
    return []


def _undefined(report: "HeldOutResult") -> list[str]:
    told = [
        f"{row.scorer}, {row.protocol} ({row.n_undefined} of {row.n_panels + row.n_undefined})"
        for row in report.rows
        if row.n_undefined
    ]
    if not told:
        return []
    return [
        f"held-out tasks on which predictions or scores are all equal are not in the mean: {shortened(told)}"
    ]
