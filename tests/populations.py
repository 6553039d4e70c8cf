"""Made-up populations for tests of the rankings."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from forecast.proxies.token_proxies import PROXIES
from forecast.warehouse.population import ExpertProxies, Population, Target, TaskProxies

Array = NDArray[np.float64]
PLACE = {proxy.name: k for k, proxy in enumerate(PROXIES)}
SIGNS = np.array([proxy.sign for proxy in PROXIES], float)


def proxies_of(quality: Array) -> TaskProxies:
    """One expert's task of which every proxy says `quality` [candidates, instances], higher is better."""
    return task_of({"human": quality[:, :, None] * SIGNS})


def task_of(values: Mapping[str, Array], index: Mapping[str, Sequence[int]] | None = None) -> TaskProxies:
    """A task from values [candidates, instances, 80] by expert; `index`: which instances are the expert's."""
    places = {
        expert: np.asarray((index or {}).get(expert, range(v.shape[1]))) for expert, v in values.items()
    }
    n = 1 + max(int(place.max()) for place in places.values())
    experts = {expert: ExpertProxies(places[expert], v) for expert, v in values.items()}
    return TaskProxies(tuple(f"i{i:03}" for i in range(n)), experts)


def noise(rng: np.random.Generator, candidates: int, instances: int) -> Array:
    """Values [candidates, instances, 80] that say nothing."""
    return rng.normal(size=(candidates, instances, len(PROXIES)))


def measured(task: str, values: Sequence[float], stderr: Sequence[float] | None = None) -> Target:
    """Imported scores."""
    unknown = np.full(len(values), np.nan)
    return Target(
        task, "acc", np.array(values, float), unknown if stderr is None else np.array(stderr, float), None
    )


def evaluated(task: str, items: Array) -> Target:
    """Direct evaluation with these items [candidates, items]."""
    n = items.shape[1]
    error = items.std(axis=1, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(items), np.nan)
    return Target(task, "accuracy_per_character", items.mean(axis=1), error, items)


def population_of(proxies: Mapping[str, TaskProxies], *targets: Target) -> Population:
    """Candidates `c00`, `c01`, ..."""
    task = next(iter(proxies.values()))
    n = next(iter(task.experts.values())).values.shape[0]
    names = tuple(f"c{i:02}" for i in range(n))
    return Population(
        names, tuple(f"id-{name}" for name in names), (None,) * n, (None,) * n, proxies, targets, (None,) * n
    )
