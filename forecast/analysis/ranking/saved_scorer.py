"""A scorer that `forecast rank --save` wrote, used on a table of other candidates."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from forecast.analysis.ranking.feature_table import CellTable, Design, standardised
from forecast.analysis.ranking.feature_table_from_file import read_table
from forecast.analysis.ranking.scorers import registry
from forecast.analysis.ranking.scorers.base import Fitted
from forecast.analysis.stats.rank_correlation import ranks
from forecast.errors import InputError
from forecast.inputs.frames import file_of


@dataclass(frozen=True)
class SavedScorer:
    """What was learned, ready to score other candidates.

    Attributes:
        features: that a table must have.
        warnings: packages whose versions are not those that it was fitted with.
    """

    fitted: Fitted
    features: tuple[str, ...]
    warnings: tuple[str, ...]

    def predict(self, table: str | Path | pl.DataFrame) -> pl.DataFrame:
        """Scores of the candidates of a table.

        Features are standardised within each task over the table's candidates, as in training: a score
        compares candidates of one task in one table, and is no forecast of a measured value.

        Args:
            table: columns candidate, task, family (optional) and the features; others are ignored.

        Returns:
            candidate, task, score (higher is better, null where a feature is missing), rank within the task
            (1 is best, average ranks for ties); by task, rank and candidate.

        Raises:
            InputError: the table is wrong, or lacks a feature; names it.
        """
        with file_of(table) as path:
            imported = read_table(path, self.features or None, scored=False)
        cells = imported.table
        scores = self.fitted.score(_design(cells))
        rows = []
        for t, task in enumerate(cells.tasks):
            places = ranks(scores[t])
            rows += [
                (candidate, task, float(scores[t, c]), float(places[c]))
                for c, candidate in enumerate(cells.candidates)
                if (candidate, task) in imported.cells
            ]
        schema = {"candidate": pl.String, "task": pl.String, "score": pl.Float64, "rank": pl.Float64}
        frame = pl.DataFrame(rows, schema=schema, orient="row").fill_nan(None)
        return frame.sort("task", "rank", "candidate", nulls_last=True)


def load_saved(path: str | Path) -> SavedScorer:
    """Read what `forecast rank --save` wrote.

    Raises:
        InputError: no such file, not a saved scorer, or of another format.
    """
    fitted, features, versions = registry.load_saved(path)
    warnings = tuple(
        f"{path} was fitted with {package} {versions.get(package, 'of unknown version')}; this is {version}"
        for package, version in registry.versions().items()
        if versions.get(package) != version
    )
    return SavedScorer(fitted, features, warnings)


def _design(table: CellTable) -> Design:
    """Unlike `design_of`, a feature that is missing somewhere costs the cell: the scorer needs them all.

    Raises:
        InputError: a feature has no value at all.
    """
    have = np.isfinite(table.values)
    for place, name in enumerate(table.features):
        if not have[:, :, place].any():
            raise InputError(f"the scorer needs the feature {name!r}, which has no value in any row")
    usable = np.asarray(have.all(axis=2))
    z, _ = standardised(np.where(usable[:, :, None], table.values, np.nan))
    z = np.where(usable[:, :, None], z, 0.0)
    return Design(table.candidates, table.families, table.tasks, table.features, z, usable)
