"""From predictions to figures: a row for each scorer under each protocol, and pairs of rows compared."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.cross_validation import FoldPredictions
from forecast.analysis.ranking.feature_table import CellTable
from forecast.analysis.ranking.permutation_null import Null, null_of
from forecast.analysis.stats.correlations import (
    kendall_where,
    partial_spearman,
    smallest_detectable_rho,
    spearman_where,
    weighted_tau_where,
    williams,
    zou,
)
from forecast.analysis.stats.family_bootstrap import (
    MIN_FAMILIES,
    Resamples,
    Spread,
    difference,
    interval,
    make_resamples,
    spread_of,
)
from forecast.analysis.stats.family_permutations import family_codes
from forecast.analysis.stats.figures import number

Array = NDArray[np.float64]

_NO_NULL = "takes no features: permuting candidates changes nothing, so there is no null"


@dataclass(frozen=True)
class ScorerRow:
    """One scorer under one protocol; None where a figure does not exist, with the reason."""

    scorer: str
    protocol: str
    spearman: float | None  # mean over held-out tasks (and folds, and repeats)
    ci_low: float | None
    ci_high: float | None
    null: Null
    tau_b: float | None
    weighted_tau: float | None
    partial: dict[str, float | None]  # Spearman given each covariate
    n_candidates: int  # compared; without a rho: those with scores
    n_families: int
    n_tasks: int
    n_folds: int  # of all repeats
    n_repeats: int  # times that candidates were dealt to folds
    repeat_low: float | None  # lowest and highest rho of one repeat; None with one
    repeat_high: float | None
    n_panels: int  # rhos that the mean is over
    n_undefined: int  # panels without a rho, left out of the mean
    smallest_detectable_rho: float | None  # on one task, with a power of 0.8
    chosen: tuple[str, ...]  # by fold
    reason: str | None


@dataclass(frozen=True)
class Comparison:
    """Two scorers on the same held-out cells of one protocol; positive: the first is better."""

    protocol: str
    first: str
    second: str
    difference: float
    ci_low: float | None
    ci_high: float | None
    probability: float | None  # share of bootstrap samples in which the first is better
    smallest_detectable_difference: float | None
    agreement: float | None  # mean Spearman of the two predictions
    zou_low: float | None  # as if the mean rhos were of one task with n candidates
    zou_high: float | None
    williams_p: float | None
    n_candidates: int


@dataclass(frozen=True)
class Counts:
    """How much there is with scores and features."""

    candidates: int
    families: int
    tasks: int


class Judge:
    """Computes rows of one table; resamples are the same for all, so that differences are paired."""

    def __init__(
        self, table: CellTable, available: Counts, confidence: float, bootstraps: int, seed: int
    ) -> None:
        self._available = available
        self._table, self._confidence, self._bootstraps, self._seed = table, confidence, bootstraps, seed
        self._families = family_codes(table.families)

    def row(self, outcome: FoldPredictions, n_folds: int) -> ScorerRow:
        """All figures of one outcome."""
        predicted, truth = outcome.predicted, outcome.truth(self._table.scores)
        rhos = spearman_where(predicted, truth) if len(predicted) else np.zeros(0)
        defined = np.isfinite(rhos)
        compared = (np.isfinite(predicted) & np.isfinite(truth)).any(axis=0)
        n = int(compared.sum())
        n_families = len(np.unique(self._families[compared]))
        figure = float(outcome.figures[0])
        low = high = math.nan
        reason = outcome.reason
        if math.isfinite(figure):
            resamples = self._resamples(compared)
            low, high = (
                interval(
                    spread_of(predicted, truth, resamples, outcome.redrawn), n, n_families, self._confidence
                )
                if resamples.enough
                else (math.nan, math.nan)
            )
            if n_families < MIN_FAMILIES:
                reason = reason or f"no interval: {n_families} families, it takes {MIN_FAMILIES}"
            elif not resamples.enough:
                reason = reason or "no interval: it takes two bootstraps or more"
        elif reason is None:
            reason = "predictions are equal for all candidates on every held-out task"
        if not outcome.takes_features and math.isfinite(figure):
            reason = reason or _NO_NULL
        repeated = _by_repeat(rhos, outcome.n_repeats)
        covariates = self._table.covariate_values
        counts = self._available
        if math.isfinite(figure):
            counts = Counts(n, n_families, len(set(outcome.tasks[defined].tolist())))
        return ScorerRow(
            scorer=outcome.scorer,
            protocol=outcome.protocol,
            spearman=number(figure),
            ci_low=number(low),
            ci_high=number(high),
            null=null_of(outcome.figures) if outcome.takes_features else Null(None, None, None, 0),
            tau_b=_mean(kendall_where, predicted, truth, defined),
            weighted_tau=_mean(weighted_tau_where, predicted, truth, defined),
            partial={
                name: self._partial(outcome, defined, covariates[:, :, k])
                for k, name in enumerate(self._table.covariates)
                if covariates is not None and outcome.scorer != f"baseline: {name}"
            },
            n_candidates=counts.candidates,
            n_families=counts.families,
            n_tasks=counts.tasks,
            n_folds=n_folds,
            n_repeats=outcome.n_repeats,
            repeat_low=number(min(repeated)) if repeated else None,
            repeat_high=number(max(repeated)) if repeated else None,
            n_panels=int(defined.sum()),
            n_undefined=int((~defined).sum()) if math.isfinite(figure) else 0,
            smallest_detectable_rho=number(smallest_detectable_rho(counts.candidates, self._confidence)),
            chosen=outcome.chosen,
            reason=reason,
        )

    def _resamples(self, compared: NDArray[np.bool_]) -> Resamples:
        return make_resamples(self._families, compared, self._bootstraps, self._seed)

    def _partial(
        self, outcome: FoldPredictions, defined: NDArray[np.bool_], covariate: Array
    ) -> float | None:
        truth = outcome.truth(self._table.scores)
        panels = np.flatnonzero(defined)
        found = [
            partial_spearman(outcome.predicted[k], truth[k], covariate[outcome.tasks[k]]) for k in panels
        ]
        known = [value for value in found if math.isfinite(value)]
        return float(np.mean(known)) if known else None

    def comparisons(self, outcomes: Sequence[FoldPredictions]) -> tuple[Comparison, ...]:
        """Every two scorers of each protocol, over the cells that both have a prediction for."""
        found = []
        for protocol in dict.fromkeys(outcome.protocol for outcome in outcomes):
            own = [o for o in outcomes if o.protocol == protocol and math.isfinite(o.figures[0])]
            found += [self._compare(a, b) for a, b in combinations(own, 2)]
        return tuple(found)

    def _compare(self, a: FoldPredictions, b: FoldPredictions) -> Comparison:
        truth = a.truth(self._table.scores)
        # A panel that one has no rho of would make the difference one of tasks, not of scorers.
        both = np.isfinite(spearman_where(a.predicted, truth)) & np.isfinite(
            spearman_where(b.predicted, truth)
        )
        shared = np.isfinite(a.predicted) & np.isfinite(b.predicted) & np.isfinite(truth) & both[:, None]
        n = int(shared.any(axis=0).sum())
        resamples = self._resamples(shared.any(axis=0))
        first, second = (
            spread_of(
                np.where(shared, o.predicted, np.nan),
                truth,
                resamples,
                None if o.redrawn is None else np.where(shared, o.redrawn, np.nan),
            )
            if resamples.enough
            else Spread(float(_rho(np.where(shared, o.predicted, np.nan), truth)), np.zeros(0), np.zeros(0))
            for o in (a, b)
        )
        d = difference(first, second, resamples.n_families, self._confidence)
        agreement = float(_rho(np.where(shared, a.predicted, np.nan), np.where(shared, b.predicted, np.nan)))
        low, high = zou(first.figure, second.figure, agreement, n, self._confidence)
        _, p = williams(first.figure, second.figure, agreement, n)
        return Comparison(
            a.protocol,
            a.scorer,
            b.scorer,
            d.figure,
            number(d.low),
            number(d.high),
            number(d.probability),
            number(d.smallest_detectable),
            number(agreement),
            number(low),
            number(high),
            number(p),
            n,
        )


def _by_repeat(rhos: Array, n_repeats: int) -> list[float]:
    """Mean rho of each repeat from those of the panels; none where there is one repeat."""
    if n_repeats < 2:
        return []
    return [
        float(own[np.isfinite(own)].mean()) for own in np.split(rhos, n_repeats) if np.isfinite(own).any()
    ]


def _rho(x: Array, y: Array) -> float:
    rhos = spearman_where(x, y)
    return float(rhos[np.isfinite(rhos)].mean()) if np.isfinite(rhos).any() else math.nan


def _mean(
    measure: Callable[[Array, Array], float], predicted: Array, truth: Array, defined: NDArray[np.bool_]
) -> float | None:
    found = [measure(predicted[k], truth[k]) for k in np.flatnonzero(defined)]
    return float(np.mean(found)) if found else None
