"""What the figures of a table mean, in words: what must be known not to take them for more than they are."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from forecast.analysis.ranking.feature_table import shortened
from forecast.analysis.ranking.scorers.mean_score import OWN_MEAN
from forecast.analysis.ranking.scorers.score_baselines import FROM_SCORES
from forecast.analysis.ranking.splits import (
    KNOWN_TASKS,
    LEAVE_2_TASKS_OUT,
    LEAVE_FAMILIES_OUT,
    LEAVE_MODELS_OUT,
    Protocol,
)
from forecast.analysis.stats.correlations import smallest_detectable_rho

if TYPE_CHECKING:
    from forecast.analysis.ranking.held_out import TableReport
    from forecast.analysis.ranking.held_out_metrics import Row

_ALPHA = 0.05
BARS = (OWN_MEAN, *(scorer.name for scorer in FROM_SCORES))  # what looks at scores, not at features
_LOST = 0.6  # share of a rho that may be left for unseen models where recognition explains the rest
_FEW = 10  # candidates: one task of so many shows a rho of 0.8 or more


def table_cautions(report: "TableReport", protocols: Sequence[Protocol]) -> list[str]:
    """In words, the most important first."""
    rows = {(row.scorer, row.protocol): row for row in report.rows}
    scorers = [name for name in dict.fromkeys(row.scorer for row in report.rows) if name not in BARS]
    found = [f"{protocol.name} cannot be had: {protocol.reason}" for protocol in protocols if protocol.reason]
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


def _recognised(rows: dict[tuple[str, str], "Row"], scorers: Sequence[str]) -> list[str]:
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
            null = (
                "; with scores dealt out to other candidates it ranks nearly as well"
                if what == "models"
                else ""
            )
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


def _clear(row: "Row", protocol: str) -> bool:
    """A rho that a reader would take for real."""
    if protocol == LEAVE_MODELS_OUT:
        return _found(row)
    return row.spearman is not None and (row.ci_low > 0 if row.ci_low is not None else row.spearman > 0.5)


def _found(row: "Row") -> bool:
    """Beyond its null; without permutations: an interval above 0."""
    if row.null.p is not None:
        return row.null.p <= _ALPHA
    return row.ci_low is not None and row.ci_low > 0


def _unsure(report: "TableReport") -> list[str]:
    told = [
        f"{row.scorer}, {row.protocol}"
        for row in report.rows
        if row.null.p is not None and row.null.p > _ALPHA and row.ci_low is not None and row.ci_low > 0
    ]
    if not told:
        return []
    return [
        "an interval above 0 beside a p that is not small: intervals are of these fits on other candidates "
        f"and leave out the chance in the fits, which p has in it: {shortened(told)}"
    ]


def _bar(rows: dict[tuple[str, str], "Row"], scorers: Sequence[str]) -> list[str]:
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


def _power(report: "TableReport") -> list[str]:
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


def _best(report: "TableReport") -> list[str]:
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
        f"{best.feature} is the best of {best.n_features} features on the scores it was picked on: mean "
        f"|rho| {best.mean_abs_rho:.2f} is too good by selection{chance}"
    ]


def _families(report: "TableReport", protocols: Sequence[Protocol]) -> list[str]:
    alone = report.n_families == report.n_candidates
    if alone and any(p.name == LEAVE_FAMILIES_OUT and p.folds for p in protocols) and report.n_candidates > 1:
        return [
            f"every family has one candidate: {LEAVE_FAMILIES_OUT} holds out what {LEAVE_MODELS_OUT} does"
        ]
    return []


def _undefined(report: "TableReport") -> list[str]:
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
