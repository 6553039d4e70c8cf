"""A sigmoid from predictors to a score: `lower + (upper - lower) * sigmoid(b + w . x)`.

`lower` is the score of a model that can do nothing (chance), `upper` that of one that can do everything
(below 1 where labels are wrong). Both are fixed by the caller or learned, within 0..0.5 and 0.5..1. Fitted by
bounded least squares from fixed starts, so the same data always give the same fit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit, logit

from forecast.errors import FitError, InputError

Array = NDArray[np.float64]

# In units of the predictors' standard deviations. Steeper is a step for every purpose, and data that a step
# separates would otherwise send the weights to infinity.
_STEEPEST = 20.0
_FURTHEST = 60.0
_MARGIN = 0.02  # starts of learned limits lie this far outside the scores


@dataclass(frozen=True)
class SigmoidLink:
    """A fitted link from K predictors."""

    lower: float
    upper: float
    intercept: float
    weights: Array  # [K], per unit of the predictor
    n_models: int  # that it was fitted to
    rmse: float  # on these, in score units

    def predict(self, x: Array) -> Array:
        """Scores [M] of predictors [M, K]; NaN where one of them is."""
        return np.asarray(
            self.lower + (self.upper - self.lower) * expit(self.intercept + x @ self.weights), float
        )


def fit_sigmoid(
    x: Array, target: Array, *, lower: float | None = None, upper: float | None = None
) -> SigmoidLink:
    """The least-squares link from x [M, K] to target [M]; rows with a NaN are left out.

    Args:
        lower, upper: fixed limits; None: learned.

    Raises:
        InputError: limits outside 0..1 or in the wrong order.
        FitError: fewer rows than parameters, no spread in x or target, or no start that settles.
    """
    low, high = lower if lower is not None else 0.0, upper if upper is not None else 1.0
    if not 0 <= low < high <= 1:
        raise InputError(f"limits of the sigmoid: expected 0 <= lower < upper <= 1, got {low:g} and {high:g}")
    used = np.isfinite(x).all(axis=1) & np.isfinite(target)
    x, y = x[used], target[used]
    n, k = x.shape
    n_parameters = k + 1 + (lower is None) + (upper is None)
    if n <= n_parameters:
        raise FitError(
            f"{n} models with all predictors and a score of the target, for a sigmoid of {n_parameters} "
            f"parameters; at least {n_parameters + 1} are needed: measure more or fix its limits"
        )
    if y.min() == y.max():
        raise FitError(f"all {n} known scores of the target are {y[0]:g}: nothing to fit")
    if (x.min(axis=0) == x.max(axis=0)).any():
        raise FitError(f"a predictor has one value for all {n} models: nothing to fit")
    mean, sd = x.mean(axis=0), x.std(axis=0)
    return _unscaled(_best_fit((x - mean) / sd, y, lower, upper), mean, sd, y)


def _best_fit(z: Array, y: Array, lower: float | None, upper: float | None) -> tuple[Array, Array]:
    """Parameters `lower, upper, b, w...` of the best start, and its residuals."""
    k = z.shape[1]
    low_range = (0.0, 0.5) if lower is None else (lower, lower)
    high_range = (0.5, 1.0) if upper is None else (upper, upper)
    fixed = np.array([lower is not None, upper is not None, *[False] * (k + 1)])
    bottom = np.array([low_range[0], high_range[0], -_FURTHEST, *[-_STEEPEST] * k])
    top = np.array([low_range[1], high_range[1], _FURTHEST, *[_STEEPEST] * k])

    def whole(free: Array) -> Array:
        parameters = bottom.copy()
        parameters[~fixed] = free
        return parameters

    def residuals(free: Array) -> Array:
        low, high, b, *w = whole(free)
        return np.asarray(low + (high - low) * expit(b + z @ np.array(w)) - y)

    def jacobian(free: Array) -> Array:
        low, high, b, *w = whole(free)
        s = expit(b + z @ np.array(w))
        slope = (high - low) * s * (1 - s)
        return np.column_stack([1 - s, s, slope, slope[:, None] * z])[:, ~fixed]

    best: tuple[Array, Array] | None = None
    for start in _starts(z, y, lower, upper):
        inside = np.clip(start, bottom + 1e-6 * (top - bottom), top - 1e-6 * (top - bottom))[~fixed]
        found = least_squares(
            residuals, inside, jacobian, bounds=(bottom[~fixed], top[~fixed]), x_scale="jac", max_nfev=1000
        )
        if found.success and (best is None or found.fun @ found.fun < best[1] @ best[1]):
            best = whole(found.x), found.fun
    if best is None:
        raise FitError(
            f"the sigmoid did not settle on {len(y)} models from any start; use fewer predictors or fix its "
            "limits"
        )
    return best


def _starts(z: Array, y: Array, lower: float | None, upper: float | None) -> list[Array]:
    """Linear regressions of the target's logits, under wide and tight limits."""
    lows = {0.0, float(np.clip(y.min() - _MARGIN, 0, 0.5))} if lower is None else {lower}
    highs = {1.0, float(np.clip(y.max() + _MARGIN, 0.5, 1))} if upper is None else {upper}
    starts = []
    for low in sorted(lows):
        for high in sorted(highs):
            share = np.clip((y - low) / (high - low), 0.01, 0.99)
            line = np.linalg.lstsq(np.column_stack([np.ones(len(z)), z]), logit(share), rcond=None)[0]
            starts.append(np.concatenate([[low, high], line]))
    return starts


def _unscaled(fit: tuple[Array, Array], mean: Array, sd: Array, y: Array) -> SigmoidLink:
    (low, high, b, *w), residuals = fit
    weights = np.array(w) / sd
    return SigmoidLink(
        lower=float(low),
        upper=float(high),
        intercept=float(b - mean @ weights),
        weights=weights,
        n_models=len(y),
        rmse=float(np.sqrt(np.mean(residuals**2))),
    )
