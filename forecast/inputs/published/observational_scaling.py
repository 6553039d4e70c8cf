"""The published table of base models with benchmark scores and compute that the baselines are checked on.

`configs/data/obsscaling_base_llm_benchmark_eval.csv`, from the repository of arXiv 2405.10938: 148 models of
47 families, 8 benchmarks, scores 0..1. Known slips in the source, kept as they are: cerebras/btlm-3b-8k-base
has 627 T training tokens (meant are billions, so its FLOPs are 1,000 times too high) and open_llama_7b_v2 has
13 billion parameters.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.errors import InputError
from forecast.inputs.average_columns import left_out
from forecast.inputs.files import Problems, read_file
from forecast.inputs.long_table import is_repeat, name_at, number_at, read_long_table
from forecast.inputs.table_columns import measurements

Array = NDArray[np.float64]

_MODEL, _FAMILY = "Model", "Model Family"
_SIZES = {"Model Size (B)": 1e9, "Pretraining Data Size (T)": 1e12, "FLOPs (1E21)": 1e21}
_HEAD = (_MODEL, _FAMILY, *_SIZES)


@dataclass(frozen=True)
class ScoreTable:
    """Models with what is known of their size, and their scores on benchmarks; NaN where not known."""

    models: tuple[str, ...]  # M
    families: tuple[str, ...]  # M
    benchmarks: tuple[str, ...]  # B
    scores: Array  # [M, B], 0..1
    parameters: Array  # [M]
    tokens: Array  # [M], of pretraining
    flops: Array  # [M], of training
    warnings: tuple[str, ...] = ()


def is_score_table(path: str) -> bool:
    """Whether a file's columns are those of the published table, not those of a table of features.

    Raises:
        InputError: no such file, or it cannot be read.
    """
    if not path.lower().endswith(".csv"):
        return False
    header = read_file(path).partition(b"\n")[0].decode(errors="replace").removeprefix("\ufeff")
    columns = {name.strip().strip('"') for name in header.split(",")}
    return {_MODEL, _FAMILY} <= columns and "candidate" not in columns


def read_score_table(path: str) -> ScoreTable:
    """Read a table in the form of the published one; columns beyond the first five are benchmarks.

    Raises:
        InputError: unreadable, columns missing, models repeated or without a name, scores that are no
            fractions.
    """
    rows = read_long_table(path, _HEAD, others=True)
    cells = {name: [row.data.get(name) for row in rows] for name in rows[0].data}
    benchmarks, notes = measurements(f"{path}:1", cells, _HEAD)
    problems = Problems()
    named: list[tuple[str, str]] = []
    numbers: list[list[float]] = []
    places: dict[tuple[object, ...], str] = {}
    for row in rows:
        model, family = (name_at(row, column, problems) for column in (_MODEL, _FAMILY))
        values = [number_at(row, column, problems) for column in (*_SIZES, *benchmarks)]
        if model is None or family is None:
            continue
        is_repeat((model,), row.where, places, problems)
        named.append((model, family))
        numbers.append([math.nan if value is None else value for value in values])
    problems.raise_if_any()
    models, families = zip(*named, strict=True)
    table = np.array(numbers)
    scores = table[:, len(_SIZES) :]
    wrong = np.argwhere((scores < 0) | (scores > 1))
    if len(wrong):
        i, j = map(int, wrong[0])
        raise InputError(
            f"{path}: model {models[i]!r}, benchmark {benchmarks[j]!r}: score {scores[i, j]:g} is outside"
            f" 0..1 ({len(wrong)} cells are); give fractions: divide percentages by 100"
        )
    kept, of_averages = left_out("column", dict(zip(benchmarks, scores.T, strict=True)))
    scores = scores[:, [benchmarks.index(name) for name in kept]]
    parameters, tokens, flops = (table[:, i] * unit for i, unit in enumerate(_SIZES.values()))
    notes += of_averages
    return ScoreTable(models, families, tuple(kept), scores, parameters, tokens, flops, tuple(notes))
