"""Rolling origins inside the window: fit up to an earlier checkpoint, compare with the rest of the window.

Choices and weights may be based on nothing else. Horizons inside a window are shorter than the requested one
(2x where 18x is requested), so every error is weighted by the logarithm of its horizon.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from forecast.analysis.checkpoints.fit_window import LEAST_AT_ORIGIN, MEMORY, Points, Window
from forecast.analysis.checkpoints.methods import Fit, Key, fit_window
from forecast.analysis.stats.curve_fitting import Array

MOST_ORIGINS = 10  # more of them overlap almost wholly and cost time


@dataclass(frozen=True)
class Origin:
    """An earlier end of the window."""

    u: float  # in lengths of the whole window
    window: Window
    fits: Mapping[str, Mapping[Key, Fit]]  # by task
    held: Mapping[str, Points]  # by task: the window's checkpoints after the origin, u in its lengths

    def horizon(self, task: str) -> Array:
        """[m], above 1."""
        return self.held[task].u / self.u

    def errors(self, task: str, key: Key) -> Array:
        """Forecast minus actual: [m]; NaN where the method has no forecast."""
        return self.fits[task][key].forecast(self.horizon(task)) - self.held[task].y

    def known_at(self, u: float) -> "Origin":
        """The same with the actual values known by a later u."""
        held = {task: points.where(points.u <= u * (1 + 1e-12)) for task, points in self.held.items()}
        return replace(self, held={task: points for task, points in held.items() if len(points.u)})


def origins_of(window: Window) -> list[float]:
    """Where rolling origins lie: from the fourth checkpoint on, within `MEMORY`, spread evenly over log t."""
    checkpoints = window.checkpoints()
    found = [float(u) for u in checkpoints[LEAST_AT_ORIGIN - 1 : -1] if u * MEMORY >= checkpoints[-1]]
    if len(found) <= MOST_ORIGINS:
        return found
    wanted = np.linspace(np.log(found[0]), np.log(found[-1]), MOST_ORIGINS)
    places = {int(np.argmin(np.abs(np.log(found) - w))) for w in wanted}
    return [found[i] for i in sorted(places)]


def roll(window: Window, on_origin: Callable[[int, int], None] | None = None) -> tuple[Origin, ...]:
    """Fit everything at every origin.

    Args:
        on_origin: called with how many are done, and of how many.
    """
    places = origins_of(window)
    found = []
    for done, u in enumerate(places):
        earlier = window.until(u)
        ready = {task: points for task, points in earlier.targets.items() if len(points.u) >= LEAST_AT_ORIGIN}
        earlier = replace(earlier, targets=ready)
        later = {task: p.where(p.u > u * (1 + 1e-12)) for task, p in window.targets.items() if task in ready}
        held = {task: points for task, points in later.items() if len(points.u)}
        found.append(Origin(u, earlier, fit_window(earlier), held))
        if on_origin is not None:
            on_origin(done + 1, len(places))
    return tuple(found)
