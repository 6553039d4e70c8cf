"""The checkpoints of a run up to a step, with t in window lengths.

All fitting, selection and weighting sees a `Window` only, so no later checkpoint can leak into a forecast.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.checkpoints.training_runs import Run
from forecast.analysis.stats.curve_fitting import Array

# Fits see checkpoints later than t_end / 32, at least five. Earlier ones belong to the warm-up and to
# accuracies at chance, on another curve: in 33 runs of Pythia, whose checkpoints begin at step 1, a power law
# fitted to all of them up to step 23k misses the rest by 0.098, fitted to the last 32-fold by 0.028.
MEMORY = 32.0
LEAST = 5  # checkpoints that a window needs
LEAST_AT_ORIGIN = 4  # and the window of a rolling origin


@dataclass(frozen=True)
class Points:
    """Numbers at checkpoints, in order of u = t / t_end of the window."""

    u: Array  # [n], above 0
    y: Array  # [n]

    def where(self, keep: NDArray[np.bool_]) -> "Points":
        """The checkpoints at which `keep` [n] is true."""
        return Points(self.u[keep], self.y[keep])

    def recent(self) -> "Points":
        """Those within `MEMORY`, at least the last five."""
        keep = self.u >= self.u[-1:] / MEMORY
        keep[-LEAST:] = True
        return self.where(keep)

    def until(self, u: float) -> "Points":
        """Up to u, and u measured in the new window's length."""
        keep = self.u <= u * (1 + 1e-12)
        return Points(self.u[keep] / u, self.y[keep])

    def at(self, u: Array) -> Array:
        """Straight lines in log u between checkpoints, level beyond them."""
        y: Array = np.interp(np.log(u), np.log(self.u), self.y)
        return y


@dataclass(frozen=True)
class Window:
    """The part of a run that forecasts may use.

    Attributes:
        t_end, step_end: t and step of its last checkpoint.
    """

    targets: Mapping[str, Points]  # by task
    proxies: Mapping[str, Mapping[str, Points]]  # by metric and task
    loss: Mapping[str, Points]  # cross-entropy of generic texts, by their names
    chance: Mapping[str, float]  # by task, where it is known
    t_end: float
    step_end: float

    def until(self, u: float) -> "Window":
        """The same run at an earlier u; tasks without checkpoints by then are left out."""

        def cut(points: Mapping[str, Points]) -> dict[str, Points]:
            found = {name: p.until(u) for name, p in points.items()}
            return {name: p for name, p in found.items() if len(p.u)}

        return Window(
            cut(self.targets),
            {metric: cut(points) for metric, points in self.proxies.items()},
            cut(self.loss),
            self.chance,
            self.t_end * u,
            self.step_end * u,
        )

    def checkpoints(self) -> Array:
        """All u at which some target is known."""
        found = [p.u for p in self.targets.values()]
        return np.unique(np.concatenate(found)) if found else np.empty(0)


def window_of(
    run: Run,
    target: str,
    proxies: Sequence[str],
    loss: str | None,
    fit_until: float,
    chance: Mapping[str, float] | None = None,
    since: float = 0.0,
) -> Window:
    """The window of a run that ends with the last checkpoint up to a step.

    Args:
        loss: metric of generic texts; None: there are none.
        since: the step of the last break of the learning-rate schedule: fits begin there.

    A target is matched with the proxy of the task with the same name; where only other tasks have the proxy
    (one text for all), their mean is used for every task.
    """
    known = run.until(fit_until)
    targets = known.of(target)
    t_end = max((float(s.t[-1]) for s in targets.values()), default=0.0)
    step_end = max((float(s.step[-1]) for s in targets.values()), default=0.0)

    def points(metric: str) -> dict[str, Points]:
        found = {}
        for task, s in known.of(metric).items():
            # Step 0 has no place on a logarithmic axis.
            keep = (s.t > 0) & (s.t <= t_end) & (s.step >= since)
            if keep.any():
                found[task] = Points(s.t[keep] / t_end, s.value[keep])
        return found

    own = points(target)
    by_metric = {}
    for metric in proxies:
        found = points(metric)
        if found and not set(found) & set(targets):
            shared = mean_points(list(found.values()))
            found = dict.fromkeys(own, shared) if len(shared.u) else {}
        by_metric[metric] = {task: p for task, p in found.items() if task in targets}
    generic = {}
    if loss is not None:
        found = points(loss)
        # Where the tasks themselves have that metric too, only texts that are no task are generic.
        generic = {name: p for name, p in found.items() if name not in targets} or found
    return Window(own, by_metric, generic, chance or {}, t_end, step_end)


def mean_points(points: Sequence[Points]) -> Points:
    """The mean over several series, at the checkpoints that all of them have."""
    if not points:
        return Points(np.empty(0), np.empty(0))
    common = points[0].u
    for p in points[1:]:
        common = common[np.isin(common, p.u)]
    return Points(common, np.mean([p.y[np.isin(p.u, common)] for p in points], axis=0))
