"""The combined forecast: members weighted by their errors at rolling origins inside the window.

All tasks of a run share one set of weights: ten checkpoints of one task are too few to rank the members. The
weights are a softmax of minus the pooled log error, so they stay near equal where members do about equally
well; then an average is better than the apparent winner.

The members, the exponent and the prior weights below were chosen on simulated runs, on nine tasks of runs of
Pythia and on prefixes (up to step 50k) of the OLMo-2 7B run; no later step was used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from forecast.analysis.checkpoints.backtest import Origin
from forecast.analysis.checkpoints.methods import Fit, Key
from forecast.analysis.stats.curve_fitting import Array
from forecast.analysis.stats.figures import mean_known

# A straight line overshoots at long horizons; at half weight it offsets members that level off too soon.
PRIOR_WEIGHTS = {
    "compute_power_law": 1.0,
    "cross_entropy_logistic": 1.0,
    "proxy_logistic": 1.0,
    "averaged_power_law": 1.0,
    "averaged_sigmoid": 1.0,
    "averaged_cross_entropy": 1.0,
    "averaged_proxy": 1.0,
    "recent_line": 0.5,
}
SHARPNESS = 1.0  # weight ~ prior * (pooled squared error)^-1; 0.5 to 1.5 differ by 2 % in error
_ERROR_FLOOR = 0.2  # of the median member's squared error: one lucky task must not decide for all


@dataclass(frozen=True)
class Combination:
    """Weights of one run's members, from one window."""

    weights: Mapping[Key, float]  # sum to 1
    proxy: str | None  # the chosen one; None where there is none
    # Squared error at rolling origins / the median member's, geometric mean over tasks.
    errors: Mapping[Key, float]
    n_tasks: int  # on which the weights are based


def pooled_errors(origins: Sequence[Origin], keys: Sequence[Key], tasks: Sequence[str]) -> tuple[Array, int]:
    """Mean over tasks of the log of each method's squared error, relative to the median method's.

    Errors are weighted by ln(horizon); the checkpoints of an origin count as one together.

    Returns:
        [keys], NaN for a method without any error; and the number of tasks used.
    """
    logs = []
    for task in tasks:
        total, weight = np.zeros(len(keys)), np.zeros(len(keys))
        for origin in origins:
            if task not in origin.held:
                continue
            reach = np.log(origin.horizon(task)) / len(origin.held[task].u)
            for i, key in enumerate(keys):
                squared = origin.errors(task, key) ** 2
                known = np.isfinite(squared)
                total[i] += reach[known] @ squared[known]
                weight[i] += reach[known].sum()
        known = weight > 0
        if known.any():
            mean = np.where(known, total / np.where(known, weight, 1.0), np.nan)
            middle = float(np.nanmedian(mean))
            logs.append(np.log(mean / middle + _ERROR_FLOOR) if middle > 0 else np.where(known, 0.0, np.nan))
    if not logs:
        return np.full(len(keys), np.nan), 0
    return mean_known(np.array(logs), axis=0), len(logs)


def combine(origins: Sequence[Origin], keys: Sequence[Key], tasks: Sequence[str]) -> Combination:
    """Choose the proxy and the weights.

    Args:
        origins: of the window; none (a short window) leaves the prior weights.
        tasks: those with enough signal.
    """
    members = [key for key in keys if key.method in PRIOR_WEIGHTS]
    log_errors, n_tasks = pooled_errors(origins, members, tasks)
    error = dict(zip(members, log_errors, strict=True))
    proxy = _best_proxy(error)
    members = [key for key in members if key.proxy in (None, proxy)]
    found = np.array([error[key] for key in members])
    # A member that could be fitted at no origin counts as a median one.
    found = np.where(np.isfinite(found), found, 0.0)
    weight = np.array([PRIOR_WEIGHTS[key.method] for key in members]) * np.exp(
        -SHARPNESS * (found - found.min())
    )
    weights = dict(zip(members, (weight / weight.sum()).tolist(), strict=True))
    errors = {key: float(np.exp(value)) for key, value in error.items() if np.isfinite(value)}
    return Combination(weights, proxy, errors, n_tasks)


def combined_fit(fits: Mapping[Key, Fit], combination: Combination) -> Fit:
    """The weighted mean of the members that could be fitted to a task."""
    parts = [(weight, fits[key]) for key, weight in combination.weights.items() if fits[key].at is not None]
    if not parts:
        reasons = dict.fromkeys(fits[key].reason for key in combination.weights)
        return Fit(None, f"no member can be fitted: {'; '.join(str(reason) for reason in reasons)}")
    total = sum(weight for weight, _ in parts)
    return Fit(
        lambda u: np.sum([weight / total * fit.forecast(u) for weight, fit in parts], axis=0),
        spread=partial(spread, fits, combination),
    )


def spread(fits: Mapping[Key, Fit], combination: Combination, u: Array) -> Array:
    """Weighted standard deviation of the members at u: [n]."""
    parts = [(weight, fits[key].forecast(u)) for key, weight in combination.weights.items() if fits[key].at]
    if not parts:
        return np.full(len(u), np.nan)
    weight = np.array([w for w, _ in parts])
    values = np.array([v for _, v in parts])
    mean = weight @ values / weight.sum()
    return np.asarray(np.sqrt(weight @ (values - mean) ** 2 / weight.sum()))


def _best_proxy(error: Mapping[Key, float]) -> str | None:
    """The proxy with the lowest mean pooled error of its members; the first by name where none was fitted."""
    proxies = sorted({key.proxy for key in error if key.proxy is not None})

    def mean(proxy: str) -> float:
        own = [value for key, value in error.items() if key.proxy == proxy and np.isfinite(value)]
        return float(np.mean(own)) if own else np.inf

    return min(proxies, key=mean, default=None)
