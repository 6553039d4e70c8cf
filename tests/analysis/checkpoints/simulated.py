"""Simulated training runs with known parameters: losses are power laws, accuracies logistic in the loss."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecast.analysis.checkpoints.training_runs import Run, RunRow, build_runs

COLUMNS = ("run", "step", "tokens", "task", "metric", "value")
Cell = tuple[str, int, int, str, str, float]


@dataclass(frozen=True)
class World:
    """How runs are made."""

    n_tasks: int = 6
    n_window: int = 10
    horizon: float = 8.0
    n_later: int = 16
    noise: float = 0.01  # of an accuracy
    exponent: float = 0.3
    start: float = 0.0  # added to the logistic's argument: above 0 the run is better
    flat: int = 0  # further tasks that stay at chance


def cells(seed: int, world: World = World(), run: str = "a", tokens_per_step: int = 4_194_304) -> list[Cell]:
    """All rows of one run; step 1000 k is the k-th checkpoint of the window."""
    rng = np.random.default_rng(seed)
    inside = np.arange(1, world.n_window + 1) / world.n_window
    later = np.geomspace(1, world.horizon, world.n_later + 1)[1:]
    u = np.concatenate([inside, later])
    steps = np.rint(u * world.n_window * 1000).astype(int)
    u = steps / (world.n_window * 1000)
    rows: list[Cell] = []

    def add(task: str, metric: str, values: np.ndarray) -> None:
        rows.extend(
            (run, int(s), int(s) * tokens_per_step, task, metric, float(v))
            for s, v in zip(steps, values, strict=True)
        )

    for text in ("web", "books"):
        loss = rng.uniform(1.5, 2.5) + rng.uniform(0.2, 0.5) * u**-world.exponent
        add(text, "cross_entropy", loss + 0.003 * rng.standard_normal(len(u)))
    for k in range(world.n_tasks):
        size = rng.uniform(0.1, 0.4)
        bits = rng.uniform(0.4, 1.0) + size * u ** -(world.exponent * np.exp(0.2 * rng.standard_normal()))
        end = bits[world.n_window - 1]
        steep = rng.uniform(1.0, 3.0) / size
        share = 1 / (1 + np.exp(steep * (bits - end - size * rng.uniform(-0.3, 0.6)) - world.start))
        accuracy = 0.25 + 0.7 * share + world.noise * rng.standard_normal(len(u))
        add(f"task{k}", "accuracy", np.clip(accuracy, 0, 1))
        add(f"task{k}", "bits_per_byte", bits + 0.005 * rng.standard_normal(len(u)))
    for k in range(world.flat):
        add(f"flat{k}", "accuracy", np.clip(0.25 + world.noise * rng.standard_normal(len(u)), 0, 1))
    return rows


def row_of(cell: Cell) -> RunRow:
    """A row as the reader would give it."""
    run, step, tokens, task, metric, value = cell
    return RunRow("here", run, float(step), task, metric, value, {"tokens": float(tokens), "flops": None})


def run_of(rows: Sequence[Cell]) -> Run:
    """The only run of some rows."""
    (run,) = build_runs([row_of(row) for row in rows]).runs
    return run


def csv_of(rows: Sequence[Sequence[object]]) -> str:
    """As a file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()
