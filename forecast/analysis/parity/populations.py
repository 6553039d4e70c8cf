"""The populations to compare: proxies of the same candidates and texts, and what is measured already.

A run's warehouse leaves out what one of *its* candidates could not read, which may be more under one setup
than under the other. So each setup gets a small database in memory, filled by the same SQL from common texts.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from forecast.analysis.diagnostics.recomputed_proxies import RecomputedProxies
from forecast.analysis.parity.token_diff import INSTANCE, Instance
from forecast.config.schema import Config
from forecast.inputs.measured_scores import MeasuredScore
from forecast.inputs.models.resolve import Candidate
from forecast.warehouse.connect import open_warehouse
from forecast.warehouse.population import Population, Target, load_population


def population_of(
    candidates: Sequence[Candidate],
    rows: Iterable[tuple[int, pa.Table]],
    dropped: Iterable[Instance],
    measured: Sequence[MeasuredScore] = (),
) -> Population:
    """All proxies of candidates from their token rows.

    Args:
        rows: vocabulary size and token rows, once for each candidate_id and task.
        dropped: instances that one of the candidates could not read in one of the setups.
        measured: imported scores.

    Raises:
        NoDataError: no trajectory is left.
    """
    absent = pl.DataFrame(list(dropped), schema=dict.fromkeys(INSTANCE, pl.String), orient="row")
    proxies = RecomputedProxies([(c.name, c.candidate_id) for c in candidates], absent)
    for vocab_size, tokens in rows:
        proxies.add(tokens, vocab_size)
    return proxies.population(measured)


def with_direct_evaluation(population: Population, config: Config) -> Population:
    """The population with the accuracies that the run itself has measured, where it has; they go first.

    Raises:
        NoDataError: the run has no warehouse yet.
    """
    with open_warehouse(config.output) as db:
        run = load_population(db)
    direct = {}
    for target in run.targets:
        if target.items is not None:
            values, errors = (
                np.array([_of(name, run, array) for name in population.candidates])
                for array in (target.values, target.stderr)
            )
            if np.isfinite(values).any():
                direct[target.task] = Target(target.task, target.metric, values, errors, None)
    others = {target.task: target for target in population.targets}
    merged = {**others, **direct}
    return dataclasses.replace(population, targets=tuple(merged[task] for task in sorted(merged)))


def _of(name: str, run: Population, values: NDArray[np.float64]) -> float:
    return float(values[run.candidates.index(name)]) if name in run.candidates else float("nan")
