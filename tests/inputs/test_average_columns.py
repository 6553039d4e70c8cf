"""Averages among benchmarks are found by value, and benchmarks are not taken for averages."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from forecast.analysis.ranking.feature_table_from_file import read_table
from forecast.inputs.average_columns import averages
from forecast.inputs.published.observational_scaling import read_score_table

Columns = dict[str, NDArray[np.float64]]
HEAD = ("Model", "Model Family", "Model Size (B)", "Pretraining Data Size (T)", "FLOPs (1E21)")


def benchmarks(rows: int = 30, columns: int = 6, digits: int = 3, seed: int = 0) -> Columns:
    """Scores of models of different ability, as correlated as real ones."""
    dice = np.random.default_rng(seed)
    ability = dice.normal(size=(rows, 1))
    scores = 1 / (
        1 + np.exp(-(ability + dice.normal(size=columns) + 0.3 * dice.normal(size=(rows, columns))))
    )
    return {f"b{i}": np.round(scores[:, i], digits) for i in range(columns)}


@pytest.mark.parametrize("name", ["Average", "avg.", "mean_score", "x"])
@pytest.mark.parametrize("of", [(0, 6), (1, 4)])
@pytest.mark.parametrize("digits", [3, 12])
def test_mean_of_columns_is_found_by_value(name: str, of: tuple[int, int], digits: int) -> None:
    table = benchmarks()
    parts = list(table)[slice(*of)]
    mean = np.round(np.mean([table[part] for part in parts], axis=0), digits)
    assert averages({name: mean, **table}) == {name: parts} == averages({**table, name: mean})


def test_scattered_and_weighted_means_are_found() -> None:
    table = benchmarks(digits=4)
    for weights in ([0.5, 0, 0, 0.5, 0, 0], [0.1, 0.2, 0.2, 0.2, 0.2, 0.1]):
        mean = np.round(sum(w * column for w, column in zip(weights, table.values(), strict=True)), 4)
        parts = [name for name, weight in zip(table, weights, strict=True) if weight]
        assert averages({**table, "x": mean}) == {"x": parts}


def test_mean_with_missing_cells_is_found_in_the_rows_that_are_whole() -> None:
    table = benchmarks()
    table["b2"][:12] = np.nan
    mean = np.mean(list(table.values()), axis=0)
    assert averages({**table, "Average": mean}).keys() == {"Average"}


@pytest.mark.parametrize("seed", range(40))
def test_benchmarks_are_no_averages(seed: int) -> None:
    dice = np.random.default_rng(seed)
    rows, columns, digits = int(dice.integers(3, 60)), int(dice.integers(2, 12)), int(dice.integers(1, 5))
    assert averages(benchmarks(rows, columns, digits, seed)) == {}
    assert averages({"overall": dice.normal(size=rows), **benchmarks(rows, columns, digits, seed)}) == {}


def test_average_of_a_benchmark_table_is_no_benchmark(tmp_path: Path) -> None:
    table = benchmarks()
    models = {"Model": [f"m{i}" for i in range(30)], "Model Family": [f"f{i % 5}" for i in range(30)]}
    sizes = {name: [1.0 + i for i in range(30)] for name in HEAD[2:]}
    mean = np.round(np.mean(list(table.values()), axis=0), 4)
    pl.DataFrame({**models, **sizes, "Average": mean, **table}).write_csv(tmp_path / "t.csv")
    found = read_score_table(str(tmp_path / "t.csv"))
    assert found.benchmarks == tuple(table) and found.scores.shape == (30, 6)
    assert [note for note in found.warnings if "'Average'" in note]


def test_average_among_the_tasks_of_a_feature_table_is_left_out(tmp_path: Path) -> None:
    table = benchmarks()
    table["all tasks"] = np.round(np.mean(list(table.values()), axis=0), 4)
    rows = [
        {"candidate": f"m{i}", "task": task, "score": float(scores[i]), "loss": float(i * len(task))}
        for task, scores in table.items()
        for i in range(30)
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "t.csv")
    found = read_table(str(tmp_path / "t.csv"))
    assert "all tasks" not in found.table.tasks and found.table.scores.shape == (6, 30)
    assert [note for note in found.warnings if "'all tasks'" in note]
