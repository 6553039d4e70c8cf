"""Made-up tables of candidates, tasks, features and scores whose truth is known."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.feature_table import CellTable, Design, design_of
from forecast.analysis.ranking.feature_table_from_file import Imported

Array = NDArray[np.float64]
World = Literal["ability", "fingerprint", "noise"]


def world(
    kind: World, seed: int, candidates: int = 18, tasks: int = 6, features: int = 80, family: int = 1
) -> CellTable:
    """A table.

    `ability`: features carry it. `fingerprint`: they carry none, but a stable mark of each candidate, and a
    candidate's scores on two tasks correlate by 0.8. `noise`: neither features nor scores have anything
    stable.
    """
    rng = np.random.default_rng(seed)
    ability = rng.normal(size=candidates)
    scores = np.sqrt(0.8) * ability + np.sqrt(0.2) * rng.normal(size=(tasks, candidates))
    noise = rng.normal(size=(tasks, candidates, features))
    values = noise
    if kind == "ability":
        values = ability[:, None] * rng.uniform(0.5, 1, features) + 0.7 * noise
    elif kind == "fingerprint":
        values = np.sqrt(0.8) * rng.normal(size=(candidates, features)) + np.sqrt(0.2) * noise
    else:
        scores = rng.normal(size=(tasks, candidates))
    return table_of(values, scores, family)


def table_of(values: Array, scores: Array, family: int = 1) -> CellTable:
    """A table from values [T, C, F] and scores [T, C], in families of `family` candidates."""
    tasks, candidates, features = values.shape
    return CellTable(
        tuple(f"c{i:03}" for i in range(candidates)),
        tuple(f"family{i // family:03}" for i in range(candidates)),
        tuple(f"t{i:02}" for i in range(tasks)),
        tuple(f"f{i:02}" for i in range(features)),
        values,
        scores,
    )


def design(table: CellTable) -> Design:
    """Its z-scores."""
    return design_of(table)[0]


def imported(table: CellTable) -> Imported:
    """As if it had been read from a file without a remark."""
    return Imported(table, ())


def csv_of(table: CellTable) -> str:
    """The table as a file; NaN is an empty cell, a cell that is NaN throughout has no row."""
    lines = [",".join(["candidate", "family", "task", "score", *table.features])]
    for c, candidate in enumerate(table.candidates):
        for t, task in enumerate(table.tasks):
            numbers = [table.scores[t, c], *table.values[t, c]]
            if np.isfinite(numbers).any():
                cells = ["" if np.isnan(x) else repr(float(x)) for x in numbers]
                lines.append(",".join([candidate, table.families[c], task, *cells]))
    return "\n".join(lines) + "\n"
