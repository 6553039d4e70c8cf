"""What size alone tells: parameters and training FLOPs as predictors, with no look at the model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.baselines.validation import Predictions, target_scores
from forecast.analysis.stats.links import SigmoidLink, fit_sigmoid
from forecast.analysis.stats.rank_correlation import spearman
from forecast.errors import InputError

Array = NDArray[np.float64]


def log10_of(sizes: Array, what: str) -> Array:
    """log10 of sizes, NaN where not known; `what` they are is for the message.

    Raises:
        InputError: a size that is not positive and finite.
    """
    return np.log10(_counts(sizes, what))


@dataclass(frozen=True)
class Agreement:
    """How well a size by itself orders the models."""

    predictor: str
    spearman: float | None  # null where undefined: fewer than three models, or all equal
    n_models: int  # with a known size and a score
    n_unknown: int  # with a score but no known size


def size_agreement(predictor: str, sizes: Array, target: Array) -> Agreement:
    """Spearman's rho of sizes [M] and scores [M] over the models that have both."""
    sizes = _counts(sizes, predictor)
    scores = target_scores(target, len(sizes))
    both = np.isfinite(sizes) & np.isfinite(scores)
    rho = float(spearman(sizes[both], scores[both]))
    return Agreement(
        predictor=predictor,
        spearman=rho if np.isfinite(rho) else None,
        n_models=int(both.sum()),
        n_unknown=int((np.isfinite(scores) & ~both).sum()),
    )


@dataclass(frozen=True)
class SizeLaw:
    """A score as a sigmoid in log10 of one size."""

    what: str
    link: SigmoidLink

    def predict(self, sizes: Array) -> Predictions:
        """Scores of models by their size; none where it is not known."""
        x = log10_of(sizes, self.what)
        missing = f"{self.what} not known"
        return Predictions(
            self.link.predict(x[:, None]), tuple(None if np.isfinite(value) else missing for value in x)
        )


def fit_size_law(sizes: Array, target: Array, *, what: str = "training FLOPs") -> SizeLaw:
    """The sigmoid in log10 of sizes [M] that fits the target's scores [M] best; see `fit_sigmoid`.

    Raises:
        InputError: sizes that are not positive, scores that are no fractions.
        FitError: too few models with both, or no spread.
    """
    x = log10_of(sizes, what)
    return SizeLaw(what, fit_sigmoid(x[:, None], target_scores(target, len(x))))


def _counts(sizes: Array, what: str) -> Array:
    found = np.asarray(sizes, float)
    if found.ndim != 1:
        raise InputError(f"{what}: expected one number for each model, got the shape {found.shape}")
    wrong = np.flatnonzero(~np.isnan(found) & ~((found > 0) & np.isfinite(found)))
    if len(wrong):
        raise InputError(
            f"{what} of model {wrong[0] + 1}: {found[wrong[0]]:g}, expected a positive number, or none where "
            "it is not known"
        )
    return found
