"""Prediction intervals: conformal over the errors at rolling origins, growing with the horizon.

An error at horizon h (in window lengths) is measured in units of

    scale(h) = sqrt(noise^2 + (drift ln h)^2 + spread(h)^2),

the checkpoint's noise, a drift that is estimated from the errors of the task and of all tasks of the run,
and, for the combination, the spread of its members. The interval is the forecast plus and minus the scale
times a quantile of all scaled errors of the run. It holds for a single later checkpoint, noise included.

Errors of overlapping windows are not exchangeable, and the requested horizon is longer than any inside the
window, so coverage is not guaranteed: `tests/analysis/checkpoints` measures it in simulation.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from forecast.analysis.stats.curve_fitting import Array

_MOST = 4.0  # upper bound of a quantile of few scaled errors
_NOISE_FLOOR = 1e-4  # accuracy; keeps a series without noise from dividing by zero


@dataclass(frozen=True)
class Errors:
    """Errors of one method on one task at rolling origins."""

    horizon: Array  # [m], above 1
    error: Array  # [m], forecast minus actual
    spread: Array  # [m], of the members; 0 for a single method

    @property
    def rmse(self) -> float | None:
        """None without errors."""
        return float(np.sqrt(np.mean(self.error**2))) if len(self.error) else None


@dataclass(frozen=True)
class Scale:
    """Size of one method's errors on one task."""

    noise: float
    drift: float
    quantile: float  # of scaled errors, at the confidence
    confidence: float

    def half_width(self, horizon: Array, spread: Array) -> Array:
        """[n] of horizons, from 1 on -> [n] in accuracy."""
        return self.quantile * _scale(self.noise, self.drift, horizon, spread)

    def sd(self, horizon: Array, spread: Array) -> Array:
        """The standard deviation of the normal distribution with the same interval: [n]."""
        quantile: float = norm.ppf(0.5 + self.confidence / 2)
        return self.half_width(horizon, spread) / quantile


def scales_of(
    errors: Mapping[str, Errors], noise: Mapping[str, float], confidence: float, decide: Sequence[str]
) -> dict[str, Scale]:
    """Scales of one method on every task.

    Args:
        errors: by task; each gets a scale.
        noise: by task, of a single checkpoint.
        decide: tasks whose drift and scaled errors are pooled.
    """
    own = {task: _drift(e, noise[task]) for task, e in errors.items()}
    pooled = [drift for task in decide if (drift := own[task]) is not None]
    shared = float(np.mean(pooled)) if pooled else None
    drifts = {}
    for task, drift in own.items():  # a task's own drift and that of the run count alike
        parts = [part for part in (drift, shared) if part is not None]
        drifts[task] = math.sqrt(max(float(np.mean(parts)), 0.0)) if parts else 0.0
    scaled = [
        np.abs(e.error) / _scale(noise[task], drifts[task], e.horizon, e.spread)
        for task, e in errors.items()
        if task in decide
    ]
    quantile = _conformal(np.concatenate([np.empty(0), *scaled]), confidence)
    return {task: Scale(noise[task], drifts[task], quantile, confidence) for task in errors}


def _drift(errors: Errors, noise: float) -> float | None:
    """Squared drift: squared error in excess of noise and spread, per squared ln h. None without errors."""
    reach = np.log(errors.horizon)
    if not len(reach) or (reach**2).sum() == 0:
        return None
    beyond = errors.error**2 - noise**2 - errors.spread**2
    return float((beyond * reach**2).sum() / (reach**4).sum())


def _scale(noise: float, drift: float, horizon: Array, spread: Array) -> Array:
    reach = np.log(np.maximum(horizon, 1.0))
    variance: Array = max(noise, _NOISE_FLOOR) ** 2 + (drift * reach) ** 2 + spread**2
    return np.sqrt(variance)


def _conformal(scaled: Array, confidence: float) -> float:
    """The ceil((n + 1) confidence)-th smallest, never below the normal distribution's quantile."""
    least = float(norm.ppf(0.5 + confidence / 2))
    if not len(scaled):
        return least
    place = math.ceil((len(scaled) + 1) * confidence)
    found = float(np.sort(scaled)[place - 1]) if place <= len(scaled) else _MOST
    return min(max(found, least), _MOST)
