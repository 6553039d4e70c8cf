"""Made-up small and large runs: rows of both tables, and the files that hold them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from forecast.analysis.corpora.compare import compare_corpora
from forecast.analysis.corpora.corpora_result import CorporaOptions, CorporaResult
from forecast.analysis.corpora.observations_from_file import Tables, read_tables

OBS = ("corpus", "size", "seed", "step", "task", "metric", "value")
TARGETS = ("corpus", "seed", "task", "metric", "value")
QUICK = CorporaOptions(bootstraps=100, permutations=50, laws=False)

Rows = Sequence[Sequence[Any]]


def write(
    folder: Path,
    observed: Rows,
    targets: Rows,
    columns: Sequence[str] = OBS,
    target_columns: Sequence[str] = TARGETS,
) -> tuple[str, str]:
    """Both files."""
    paths = []
    for name, rows, head in (("obs", observed, columns), ("targets", targets, target_columns)):
        text = [
            ",".join("" if cell is None else f'"{cell}"' if "," in str(cell) else str(cell) for cell in row)
            for row in rows
        ]
        path = folder / f"{name}.csv"
        path.write_text("\n".join([",".join(head), *text]) + "\n")
        paths.append(str(path))
    return paths[0], paths[1]


def tables(folder: Path, observed: Rows, targets: Rows, **columns: Sequence[str]) -> Tables:
    """Both tables, read back."""
    return read_tables(*write(folder, observed, targets, **columns))


def report(
    folder: Path, observed: Rows, targets: Rows, options: CorporaOptions = QUICK, **columns: Sequence[str]
) -> CorporaResult:
    """The result of both tables."""
    return compare_corpora(tables(folder, observed, targets, **columns), options)


def find(found: CorporaResult, **wanted: Any) -> Any:
    """The one row with these values."""
    rows = [row for row in found.rows if all(getattr(row, key) == value for key, value in wanted.items())]
    assert len(rows) == 1, f"{len(rows)} rows have {wanted}"
    return rows[0]


def world(
    seed: int = 0, corpora: int = 12, seeds: int = 3, steps: Sequence[int] = (100, 200)
) -> tuple[Rows, Rows]:
    """Runs of four sizes whose accuracy and loss carry a corpus' quality the better, the larger they are."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=corpora)
    observed: list[list[Any]] = []
    for k, size in enumerate(("10M", "30M", "100M", "300M")):
        for s in range(seeds):
            for step in steps:
                late = step / max(steps)
                for task in ("x", "y"):
                    noise = rng.normal(size=(2, corpora)) * 0.8 / (k + 1)
                    accuracy = 0.3 + 0.05 * k * late + 0.02 * (quality + noise[0])
                    loss = 3.0 - 0.4 * k * late - 0.05 * (quality + noise[1])
                    for c in range(corpora):
                        head = [f"c{c:02}", size, s, step, task]
                        observed += [[*head, "accuracy", accuracy[c]], [*head, "nll", loss[c]]]
    targets = [
        [f"c{c:02}", s, task, "accuracy", 0.5 + 0.02 * (quality[c] + 0.1 * rng.normal())]
        for c in range(corpora)
        for s in range(3)
        for task in ("x", "y")
    ]
    return observed, targets


def frame(rows: Rows, columns: Sequence[str]) -> pl.DataFrame:
    """Rows as a table."""
    return pl.DataFrame([list(row) for row in rows], schema=list(columns), orient="row")
