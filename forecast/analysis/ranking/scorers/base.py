"""What a scorer is: fit on held-in cells, score any cells. Everything else in this package goes by that.

Cells lie in arrays [T, C], tasks by candidates. A score of NaN means: not held in (or not measured).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.feature_table import Design
from forecast.analysis.ranking.splits import Fold
from forecast.errors import FitError, InputError, did_you_mean

Array = NDArray[np.float64]
Groups = NDArray[np.int64]


class Fitted(Protocol):
    """What was learned."""

    def score(self, design: Design) -> Array:
        """Scores [T, C], higher is better; NaN where it has none. Comparable within a task only.

        Raises:
            InputError: the design lacks a feature that was learned from.
        """

    def chosen(self) -> str:
        """What the fit chose, in a few words: features with signs, or hyperparameters."""

    def as_record(self) -> dict[str, Any]:
        """All that `score` needs, as JSON; read back by `forecast.analysis.ranking.scorers.registry.load`."""


class Scorer(Protocol):
    """A way to learn which candidates are good."""

    @property
    def name(self) -> str:
        """As in tables and on the command line."""

    def fit(self, design: Design, scores: Array, groups: Groups | None = None, seed: int = 0) -> Fitted:
        """Learn from the cells that have a score.

        Args:
            scores: [T, C] measured scores, NaN where not held in.
            groups: [C], candidates with equal numbers are held out together when hyperparameters are chosen;
                None: tasks are held out, candidates are not.
            seed: of inner folds.

        Raises:
            FitError: these cells determine nothing.
        """


@dataclass(frozen=True)
class Predicted:
    """Predictions of many fits."""

    values: Array  # [P, folds, T, C], NaN outside the held-out tasks and where there is none
    fits: tuple[Fitted | None, ...]  # by fold, of the first of the P; None where there is none
    reason: str | None = None  # why some fold of the first of the P has none


@runtime_checkable
class Batched(Protocol):
    """A scorer that fits many score arrays on the same cells at once."""

    def predict_many(
        self, design: Design, scores: Array, folds: Sequence[Fold], groups: Groups | None, seed: int
    ) -> Predicted:
        """Fit each of P score arrays in each fold, and score all candidates on the fold's held-out tasks.

        Args:
            scores: [P, T, C]; the same cells are NaN in all.
            folds: all with the same `train`.
        """


def predict_many(
    scorer: Scorer, design: Design, scores: Array, folds: Sequence[Fold], groups: Groups | None, seed: int
) -> Predicted:
    """As `Batched.predict_many`, for any scorer."""
    if isinstance(scorer, Batched):
        return scorer.predict_many(design, scores, folds, groups, seed)
    values = np.full((len(scores), len(folds), *scores.shape[1:]), np.nan)
    fits: list[Fitted | None] = []
    reason = None
    for f, fold in enumerate(folds):
        for p, each in enumerate(scores):
            fitted: Fitted | None = None
            try:
                fitted = scorer.fit(design, held_in(each, fold), groups, seed)
                values[p, f, list(fold.tasks)] = fitted.score(design)[list(fold.tasks)]
            except FitError as error:
                reason = str(error) if p == 0 else reason
            if p == 0:
                fits.append(fitted)
    return Predicted(values, tuple(fits), reason)


def held_in(scores: Array, fold: Fold) -> Array:
    """Scores [..., T, C] with what the fold holds out set to NaN."""
    return np.where(fold.learned(scores.shape[-2])[:, None] & fold.train, scores, np.nan)


def selected(design: Design, features: Sequence[str]) -> Design:
    """The design's features that a fit knows.

    Raises:
        InputError: one is missing.
    """
    for name in features:
        if name not in design.features:
            raise InputError(f"the scorer needs the feature {name!r}; {did_you_mean(name, design.features)}")
    return design.select(features)


def only_usable(values: Array, design: Design) -> Array:
    """NaN where the design has no cell."""
    return np.where(design.usable, values, np.nan)
