"""Baselines that look at no feature but at scores: how a candidate did on other tasks forecasts this one.

They take part in the protocol `known-tasks`: for each task the scores of the held-out candidates on it are
hidden, all else is shown. Observational scaling laws learn the principal components of the other tasks and a
sigmoid from them to the task, from held-in candidates; matrix completion fills in the whole table. A proxy
that does not beat them where they can be had tells nothing that the scores at hand did not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.baselines.matrix_completion import complete
from forecast.analysis.baselines.observational_scaling import fit_observational
from forecast.analysis.ranking.feature_table import Design
from forecast.analysis.ranking.scorers.base import Fitted, Groups, Predicted, only_usable
from forecast.analysis.ranking.splits import Fold
from forecast.errors import FitError, InputError

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

_ELSEWHERE = (
    "takes scores of held-out candidates on other tasks and of others on this one: under known-tasks only"
)
_FRACTIONS = "takes scores as fractions from 0 to 1"


@dataclass(frozen=True)
class FromScores:
    """`forecast(shown, task, held_out)` gives every candidate's score [C] on a task.

    Those of the others are fitted: they show in what units the held-out ones' are.
    """

    name: str
    forecast: Callable[[Array, int, Bools], Array]
    seconds: float = 1e-5  # of one fit, for each cell of the table
    takes_features: bool = False
    by_fold: bool = True  # folds share nothing, so each can be a unit of work

    def cost(self, design: Design, n_scores: int, n_folds: int) -> float:
        """Seconds of one core, roughly, for one `predict_many`."""
        return n_scores * n_folds * len(design.tasks) * design.usable.size * self.seconds

    def fit(self, design: Design, scores: Array, groups: Groups | None = None, seed: int = 0) -> Fitted:
        """There is nothing to be fitted to cells alone.

        Raises:
            FitError: always.
        """
        raise FitError(_ELSEWHERE)

    def predict_many(
        self, design: Design, scores: Array, folds: Sequence[Fold], groups: Groups | None, seed: int
    ) -> Predicted:
        """See `Batched.predict_many`."""
        values = np.full((len(scores), len(folds), *scores.shape[1:]), np.nan)
        reason = None
        known = scores[np.isfinite(scores)]
        if not all(fold.known for fold in folds):
            reason = _ELSEWHERE
        elif len(known) and (known.min() < 0 or known.max() > 1):
            reason = f"{_FRACTIONS}; these go from {known.min():.3g} to {known.max():.3g}"
        if reason is not None:
            return Predicted(values, (None,) * len(folds), reason)
        for (p, f), t in ((at, t) for at in np.ndindex(*values.shape[:2]) for t in folds[at[1]].tasks):
            held_out = folds[f].test
            shown = scores[p].copy()
            shown[t, held_out] = np.nan
            try:
                values[p, f, t] = self.forecast(shown, t, held_out)
            except (FitError, InputError) as error:
                reason = reason or f"no fit for {design.tasks[t]}: {error}"
        # One fit that failed would quietly change what the mean is over.
        if reason is not None:
            values[:] = np.nan
        return Predicted(only_usable(values, design), (None,) * len(folds), reason)


def _observational(n_components: int) -> Callable[[Array, int, Bools], Array]:
    def forecast(shown: Array, task: int, held_out: Bools) -> Array:
        others = np.delete(shown, task, axis=0).T  # [C, T - 1]
        fit = fit_observational(others[~held_out], shown[task, ~held_out], n_components=n_components)
        return fit.predict(others).values

    return forecast


def _completion(shown: Array, task: int, held_out: Bools) -> Array:
    return complete(shown.T).values[:, task]


FROM_SCORES = (
    FromScores("observational, 1 component", _observational(1)),
    FromScores("observational, 3 components", _observational(3)),
    FromScores("matrix completion, rank 2", _completion, seconds=3e-3),
)
