"""Univariate: the feature with the highest mean held-in |rho|, in the direction that the scores show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.feature_table import Design
from forecast.analysis.ranking.scorers.base import Groups, Predicted, only_usable, selected
from forecast.analysis.ranking.splits import Fold
from forecast.analysis.stats.correlations import unit_ranks
from forecast.errors import FitError

Array = NDArray[np.float64]
_DIGITS = 9  # mean |rho| that differ by rounding alone are equal; of equals the first feature is taken


@dataclass(frozen=True)
class FittedUnivariate:
    """One feature and its sign."""

    feature: str
    sign: int  # 1 or -1

    def score(self, design: Design) -> Array:
        """The feature's z-score, turned round where lower is better: [T, C]."""
        return only_usable(self.sign * selected(design, [self.feature]).z[:, :, 0], design)

    def chosen(self) -> str:
        """The signed feature."""
        return ("+" if self.sign > 0 else "-") + self.feature

    def as_record(self) -> dict[str, Any]:
        """For `load`."""
        return {"kind": "univariate", "features": [self.feature], "signs": [self.sign]}


@dataclass(frozen=True)
class Univariate:
    """The paper's rule.

    |rho| is averaged over tasks, so a feature that agrees with the scores of one task and disagrees with
    those of another can win; the sign is that of the mean rho (positive if it is 0). A feature that is
    constant on a task counts as rho 0 there, a task with fewer than 3 held-in scores does not count.
    """

    name: str = "univariate"
    only: str | None = None  # this feature alone: a baseline such as the number of parameters

    def fit(
        self, design: Design, scores: Array, groups: Groups | None = None, seed: int = 0
    ) -> FittedUnivariate:
        """See `Scorer.fit`; `groups` and `seed` do not matter."""
        own = self._own(design)
        rho, counts = rhos(own, scores[None], np.ones(scores.shape[1], bool))
        k, sign = _choose(rho[:, counts])
        if k[0] < 0:
            raise FitError(_NOTHING)
        return FittedUnivariate(own.features[k[0]], int(sign[0]))

    def predict_many(
        self, design: Design, scores: Array, folds: Sequence[Fold], groups: Groups | None, seed: int
    ) -> Predicted:
        """See `Batched.predict_many`."""
        own = self._own(design)
        rho, counts = rhos(own, scores, folds[0].train)
        values = np.full((len(scores), len(folds), *own.usable.shape), np.nan)
        fits: list[FittedUnivariate | None] = []
        reason = None
        for f, fold in enumerate(folds):
            k, sign = _choose(rho[:, counts & fold.learned(len(counts))])
            tasks = list(fold.tasks)
            z = own.z[tasks][:, :, k].transpose(2, 0, 1) * sign[:, None, None]  # [P, tasks, C]
            values[:, f, tasks] = np.where(own.usable[tasks] & (k >= 0)[:, None, None], z, np.nan)
            if k[0] < 0:
                reason = _NOTHING
            fits.append(None if k[0] < 0 else FittedUnivariate(own.features[k[0]], int(sign[0])))
        return Predicted(values, tuple(fits), reason)

    def _own(self, design: Design) -> Design:
        return design if self.only is None else selected(design, [self.only])


_NOTHING = "every feature, or every held-in score, is the same for all candidates"


def rhos(design: Design, scores: Array, train: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Rho of every feature with each score array on every task, over the cells learned from.

    Args:
        scores: [P, T, C]; the same cells are NaN in all.
        train: [C].

    Returns:
        rho [P, T, F], 0 where undefined; which tasks [T] count: 3 cells and 2 different scores at least.
    """
    cells = design.usable & train & np.isfinite(scores[0])  # [T, C]
    y = unit_ranks(np.where(cells, scores, np.nan))  # [P, T, C]
    x = unit_ranks(np.where(cells[:, :, None], design.z, np.nan).transpose(0, 2, 1))  # [T, F, C]
    rho = np.einsum("ptc,tfc->ptf", y, x, optimize=True)
    return rho, np.asarray(y.any(axis=(0, 2)))


def _choose(rho: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place [P] of the chosen feature, -1 where none has a rho, and its sign [P]; rho is [P, tasks, F]."""
    p, n_tasks, n_features = rho.shape
    if n_tasks == 0 or n_features == 0:
        return np.full(p, -1), np.ones(p, np.int64)
    merit = np.round(np.abs(rho).mean(axis=1), _DIGITS)
    k = merit.argmax(axis=1)
    rows = np.arange(p)
    sign = np.where(np.round(rho.mean(axis=1), _DIGITS)[rows, k] < 0, -1, 1)
    return np.where(merit[rows, k] > 0, k, -1), sign
