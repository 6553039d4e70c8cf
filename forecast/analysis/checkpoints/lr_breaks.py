"""Breaks of the learning-rate schedule: an annealing phase lies on another curve than the steps before it.

Known breaks are given (`--break STEP`): fits begin at the last one inside the window, and forecasts are
compared only with checkpoints before the next one. An unknown break can only be suspected: the smooth series
of the run (cross-entropies, proxies) improve on their power law from the same step on.
"""

import numpy as np

from forecast.analysis.checkpoints.fit_window import Points, mean_points
from forecast.analysis.checkpoints.forecast_run import RunForecast
from forecast.analysis.stats.curve_fitting import fit_power

_LEAST_BEFORE, _LEAST_AFTER = 5, 2  # checkpoints
# Of the F statistic of one more slope from a step on. Real runs are smoother than any model of them, so this
# is far above the quantiles of F: 112 windows of Pythia and 60 simulated runs without a break
# stay below, all of 40 simulated annealings (0.05 nats over the last third, noise 0.003) reach it.
_SUSPICIOUS = 50.0


def suspected_break(found: RunForecast) -> float | None:
    """The step where the run's mean loss or proxy bends."""
    series = list(found.window.loss.values())
    if not series and found.combination.proxy is not None:
        series = list(found.window.proxies[found.combination.proxy].values())
    u = bend(mean_points([points.recent() for points in series]))
    return None if u is None else u * found.window.step_end


def bend(points: Points) -> float | None:
    """Where one more slope in t, from a checkpoint on, makes a power law fit far better; None if nowhere.

    Only bends towards faster learning count: the learning rate falls at the end of a run.
    """
    u, y = points.u, points.y
    n = len(u)
    if n < _LEAST_BEFORE + _LEAST_AFTER:
        return None
    best: tuple[float, float] | None = None
    curve, direction = fit_power(u, y), np.sign(y[-1] - y[0])
    for first in range(_LEAST_BEFORE - 1, n - _LEAST_AFTER):
        ramp = np.maximum(u - u[first], 0.0)
        # The ramp beside the power law with the exponent of the checkpoints before it.
        before = fit_power(u[: first + 1], y[: first + 1])
        basis = np.stack([np.ones(n), u ** -before.parameters["c"], ramp], axis=1)
        solution = np.linalg.lstsq(basis, y, rcond=None)[0]
        rest = float(((basis @ solution - y) ** 2).sum())
        if solution[2] * direction <= 0:
            continue
        f = (curve.rmse**2 * n - rest) / max(rest / (n - 5), 1e-18)
        if best is None or f > best[0]:
            best = f, float(u[first])
    return best[1] if best is not None and best[0] > _SUSPICIOUS else None
