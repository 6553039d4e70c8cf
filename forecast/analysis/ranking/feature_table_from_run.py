"""A run's own results as cells: measured tasks by candidates, with the 80 proxies as features."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.feature_table import CellTable
from forecast.analysis.ranking.feature_table_from_file import Imported
from forecast.config.schema import RankingConfig
from forecast.errors import ConfigError, NoDataError, did_you_mean
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES
from forecast.warehouse.features import features, tied
from forecast.warehouse.population import Population

Array = NDArray[np.float64]
_SIGNS = np.array([proxy.sign for proxy in PROXIES], float)


@dataclass(frozen=True)
class FromPopulation:
    """The table, and its features when instances are drawn again."""

    imported: Imported
    # (how many, seed) -> values [T, C, F] of each drawing; None: some task has one instance, which redraws
    # to itself and would seem certain.
    redraw: Callable[[int, int], Iterator[Array]] | None


def cells_of(
    population: Population, settings: RankingConfig, chosen: Sequence[str] | None = None
) -> FromPopulation:
    """One row for each measured task that there are proxies for.

    Features are the proxies in their own direction: scorers learn the sign. A model that goes by several
    names counts once, or one copy of it would be learned from and the other predicted. Baselines, of which
    what is not known stays missing: parameters, training FLOPs (6 N D), cross-entropy on generic text,
    rBridge, plain cross-entropy on the solutions.

    Args:
        chosen: names of the proxies to be used; None: all 80.

    Raises:
        NoDataError: no measured task has proxies.
        ConfigError: an unknown proxy.
    """
    known_names = [proxy.name for proxy in PROXIES]
    for name in chosen or ():
        if name not in known_names:
            raise ConfigError(f"unknown proxy {name!r}; {did_you_mean(name, known_names)}")
    used = sorted(dict.fromkeys(chosen or known_names))
    columns = [known_names.index(name) for name in used]
    targets = [t for t in population.targets if population.tasks_for(t.task, settings.targets)]
    if not targets:
        raise NoDataError(
            "no task has both proxies and measured scores, so there is nothing to hold out; "
            "add measured_scores or direct_evaluation to the configuration"
        )
    first = [i for i, name in enumerate(population.identities) if name not in population.identities[:i]]
    names = [population.candidates[i] for i in first]
    families = [population.families[i] for i in first]
    warnings = []
    if twins := [name for i, name in enumerate(population.candidates) if i not in first]:
        warnings.append(f"the same model as another candidate, so not held out by itself: {', '.join(twins)}")
    if unknown := [name for name, family in zip(names, families, strict=True) if family is None]:
        warnings.append(f"no family given, so taken as a family of its own: {', '.join(unknown)}")
    order = sorted(range(len(first)), key=lambda k: names[k])
    place = np.array([first[k] for k in order])

    def values(weights: dict[str, Array] | None = None) -> Array:
        """[T, C, 80], or [b, T, C, 80] under weights of the instances."""
        parts = [
            features(population, population.tasks_for(t.task, settings.targets), weights) for t in targets
        ]
        return np.asarray(np.stack(parts, axis=-3)[..., place, :] * _SIGNS)

    def redraw(how_many: int, seed: int) -> Iterator[Array]:
        rng = np.random.default_rng(seed)
        for _ in range(how_many):
            weights = {
                task: rng.multinomial(n, np.full(n, 1 / n), size=1).astype(float)
                for task, proxies in population.proxies.items()
                if (n := len(proxies.instances))
            }
            yield values(weights)[0][:, :, columns]

    own = values()
    covariates = {
        "parameters": _known(population.parameters)[place],
        "training FLOPs": _known(population.training_flops)[place],
        **{f"generic text, {unit}": row[place] for unit, row in population.generic.items()},
        "rBridge": _rbridge(population, [population.tasks_for(t.task, settings.targets) for t in targets])[
            :, place
        ],
        "plain cross-entropy": own[:, :, known_names.index(PLAIN_CROSS_ENTROPY)],
    }
    known = {
        name: np.broadcast_to(cells, own.shape[:2])
        for name, cells in covariates.items()
        if np.isfinite(cells).any()
    }
    table = CellTable(
        tuple(names[k] for k in order),
        tuple(families[k] or names[k] for k in order),
        tuple(target.task for target in targets),
        tuple(used),
        own[:, :, columns],
        np.stack([tied(target.values)[place] for target in targets]),
        tuple(known),
        np.stack(list(known.values()), axis=-1),
    )
    several = all(len(proxies.instances) > 1 for proxies in population.proxies.values())
    return FromPopulation(Imported(table, tuple(warnings)), redraw if several else None)


def _rbridge(population: Population, tasks: Sequence[Sequence[str]]) -> Array:
    """Mean over the tasks that forecast each target: [T, C]; NaN where one of them has none."""
    nothing = np.full(len(population.candidates), np.nan)
    rows = [np.mean([population.rbridge.get(task, nothing) for task in own], axis=0) for own in tasks]
    return np.stack(rows)


def _known(numbers: tuple[float | None, ...]) -> Array:
    return np.array([np.nan if number is None else float(number) for number in numbers])
