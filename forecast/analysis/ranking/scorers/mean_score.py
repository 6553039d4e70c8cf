"""The baseline own-mean: a candidate's own mean score on the held-in tasks, with no look at any feature.

Leave-2-tasks-out means something only for a scorer that clears it. A candidate without a held-in score has
none, so under leave-models-out it does not exist; under known-tasks it is the mean over the other tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.feature_table import Design
from forecast.analysis.ranking.scorers.base import Groups, Predicted, held_in
from forecast.analysis.ranking.splits import Fold
from forecast.analysis.stats.correlations import average_ranks
from forecast.errors import FitError

Array = NDArray[np.float64]
OWN_MEAN = "own-mean"
_UNSEEN = "a held-out candidate has no held-in score to take the mean of"


@dataclass(frozen=True)
class FittedOwnMean:
    """Mean standing of each candidate by name."""

    standing: dict[str, float]

    def score(self, design: Design) -> Array:
        """The same on every task: [T, C]; NaN for candidates that were not held in."""
        row = np.array([self.standing.get(name, np.nan) for name in design.candidates])
        return np.tile(row, (len(design.tasks), 1))

    def chosen(self) -> str:
        """Nothing is chosen."""
        return ""

    def as_record(self) -> dict[str, Any]:
        """For `load`."""
        return {"kind": OWN_MEAN, "features": [], "standing": self.standing}


@dataclass(frozen=True)
class OwnMean:
    """Mean over the held-in tasks of the share of candidates that it beats there, ties counted half.

    Shares, not the scores themselves: a task's scale, or a monotone change of it, does not matter.
    """

    name: str = OWN_MEAN
    takes_features: bool = False

    def fit(
        self, design: Design, scores: Array, groups: Groups | None = None, seed: int = 0
    ) -> FittedOwnMean:
        """See `Scorer.fit`; only the names of the design's candidates are used."""
        standing = standings(scores)
        if not np.isfinite(standing).any():
            raise FitError("no candidate has a held-in score on a task with others")
        return FittedOwnMean(
            {name: float(s) for name, s in zip(design.candidates, standing, strict=True) if np.isfinite(s)}
        )

    def predict_many(
        self, design: Design, scores: Array, folds: Sequence[Fold], groups: Groups | None, seed: int
    ) -> Predicted:
        """See `Batched.predict_many`."""
        values = np.full((len(scores), len(folds), *scores.shape[1:]), np.nan)
        reason = None
        for f, fold in enumerate(folds):
            if groups is None:
                tasks = list(fold.tasks)
                values[:, f, tasks] = standings(held_in(scores, fold))[:, None]
                values[:, f] = np.where(design.usable, values[:, f], np.nan)
            elif fold.known:
                for t in fold.tasks:
                    others = np.delete(scores, t, axis=-2)
                    values[:, f, t] = np.where(design.usable[t], standings(others), np.nan)
            else:
                reason = _UNSEEN
        return Predicted(values, (None,) * len(folds), reason)


def standings(scores: Array) -> Array:
    """Mean over tasks of (rank - 1) / (n - 1) among those with a score: [..., C] from [..., T, C]."""
    ranks = average_ranks(scores)
    n = np.isfinite(ranks).sum(axis=-1, keepdims=True)
    share = np.where(n > 1, (ranks - 1) / np.maximum(n - 1, 1), np.nan)
    known = np.isfinite(share)
    count = known.sum(axis=-2)
    # Rounded, so that means that are equal on paper tie.
    mean = np.where(known, share, 0.0).sum(axis=-2) / np.maximum(count, 1)
    return np.where(count > 0, np.round(mean, 12), np.nan)
