"""The published table of base models with benchmark scores and compute that the baselines are checked on.

`configs/data/obsscaling_base_llm_benchmark_eval.csv`, from the repository of arXiv 2405.10938: 148 models of
47 families, 8 benchmarks, scores 0..1. Known slips in the source, kept as they are: cerebras/btlm-3b-8k-base
has 627 T training tokens (meant are billions, so its FLOPs are 1,000 times too high) and open_llama_7b_v2 has
13 billion parameters.
"""

import io
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forecast.errors import InputError
from forecast.inputs.files import read_file

Array = NDArray[np.float64]

_MODEL, _FAMILY = "Model", "Model Family"
_SIZES = {"Model Size (B)": 1e9, "Pretraining Data Size (T)": 1e12, "FLOPs (1E21)": 1e21}


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
    """Read a CSV file in the form of the published table; columns beyond the first five are benchmarks.

    Raises:
        InputError: unreadable, columns missing, models repeated or without a name, scores that are no
            fractions.
    """
    try:
        frame = pl.read_csv(io.BytesIO(read_file(path)), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error
    head = [_MODEL, _FAMILY, *_SIZES]
    if missing := [name for name in head if name not in frame.columns]:
        raise InputError(f"{path}: no column {', '.join(map(repr, missing))}; expected {', '.join(head)}")
    benchmarks = [name for name in frame.columns if name not in head]
    for name in [*_SIZES, *benchmarks]:
        if not (frame[name].dtype.is_numeric() or frame[name].is_null().all()):
            raise InputError(f"{path}: column {name!r} holds texts, expected numbers or empty cells")
    for name in (_MODEL, _FAMILY):
        if frame[name].null_count():
            raise InputError(f"{path}: {frame[name].null_count()} rows have no {name!r}")
    repeated = frame[_MODEL].filter(frame[_MODEL].is_duplicated())
    if len(repeated):
        raise InputError(f"{path}: model {repeated[0]!r} occurs more than once; keep one row of each")
    models = tuple(map(str, frame[_MODEL]))
    numbers = frame.select(pl.col(*_SIZES, *benchmarks).cast(pl.Float64))
    sizes = [numbers[name].to_numpy() * unit for name, unit in _SIZES.items()]
    scores = numbers.select(benchmarks).to_numpy()
    wrong = np.argwhere((scores < 0) | (scores > 1))
    if len(wrong):
        i, j = map(int, wrong[0])
        raise InputError(
            f"{path}: model {models[i]!r}, benchmark {benchmarks[j]!r}: score {scores[i, j]:g} is outside"
            f" 0..1 ({len(wrong)} cells are); give fractions: divide percentages by 100"
        )
    families = tuple(map(str, frame[_FAMILY]))
    return ScoreTable(models, families, tuple(benchmarks), scores, *sizes)
