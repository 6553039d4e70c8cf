"""DataDecide (arXiv 2504.11393): the sizes of its models, and its released tables in the form read here.

Sizes: parameters without the input embedding (the output head is another matrix and counts), sequences of
2,048 tokens a batch, and steps of the full schedule, as in the released code (allenai/DataDecide,
`scaling_laws/utils/constants/constants_models.py`). 6 N D of a full run over that of a full 1B run is
1.19e-5 for 4M and 1.94e-2 for 150M. Every run has about 100 tokens for each parameter.
"""

from dataclasses import dataclass

import polars as pl

from forecast.errors import InputError, did_you_mean
from forecast.inputs.frames import csv_frame

SEQUENCE = 2048  # tokens
TARGET_SIZE = "1B"
MACRO = "olmes_10_macro_avg"
NLL = "nll_per_char"


@dataclass(frozen=True)
class ModelSize:
    """One of the 14."""

    parameters: int  # without the input embedding
    batch: int  # sequences
    steps: int  # of the full schedule

    def tokens(self, step: float | None = None) -> float:
        """Training tokens at a step; None: at the end of the schedule."""
        return (self.steps if step is None else step) * self.batch * SEQUENCE


SIZES = {
    "4M": ModelSize(3_744_832, 32, 5_725),
    "6M": ModelSize(6_010_464, 32, 9_182),
    "8M": ModelSize(8_538_240, 32, 13_039),
    "10M": ModelSize(9_900_432, 32, 15_117),
    "14M": ModelSize(14_380_224, 32, 21_953),
    "16M": ModelSize(16_004_560, 32, 24_432),
    "20M": ModelSize(19_101_888, 64, 14_584),
    "60M": ModelSize(57_078_144, 96, 29_042),
    "90M": ModelSize(97_946_640, 160, 29_901),
    "150M": ModelSize(151_898_880, 192, 38_157),
    "300M": ModelSize(319_980_544, 320, 45_787),
    "530M": ModelSize(530_074_944, 448, 57_786),
    "750M": ModelSize(681_297_408, 576, 63_589),
    "1B": ModelSize(1_176_832_000, 704, 69_369),
}
STOPS_EARLY = ("750M",)  # its runs were released without their end: the full schedule overstates their cost

_OBSERVATIONS = ("corpus", "size", "seed_index", "nll_per_char_olmes10")
_TARGETS = ("task", "corpus", "acc_1b_three_seed_mean")


def notes(table: pl.DataFrame) -> list[str]:
    """What a user of a converted table has to know and its columns cannot say."""
    if "size" not in table.columns:
        return ["targets are means over three seeds: there is no noise ceiling without the seeds themselves"]
    return [
        "the order of the seeds was inferred when the table was made: seed 0 of one size and seed 0 of "
        "another need not be the same seed",
        f"runs of {', '.join(STOPS_EARLY)} stop early: their last checkpoint is not that of a full run",
    ]


def convert(source: str) -> pl.DataFrame:
    """Either of the two tables of `configs/data` in the form that `forecast corpora` reads; see also `notes`.

    `datadecide_olmes10_nll_per_char_final.csv` becomes OBS: task `olmes_10_macro_avg`, metric `nll_per_char`,
    the step empty (the final checkpoint). `datadecide_target_1b_accuracy.csv` becomes TARGETS: metric
    `accuracy`, seed `mean`.

    Args:
        source: a local path or `s3://...`.

    Raises:
        InputError: no such file, or neither of the two.
    """
    table = csv_frame(source, (*_OBSERVATIONS, *_TARGETS))
    if set(_OBSERVATIONS) <= set(table.columns):
        return table.select(
            "corpus",
            "size",
            pl.col("seed_index").alias("seed"),
            pl.lit(None, pl.Int64).alias("step"),
            pl.lit(MACRO).alias("task"),
            pl.lit(NLL).alias("metric"),
            pl.col("nll_per_char_olmes10").alias("value"),
        )
    if set(_TARGETS) <= set(table.columns):
        return table.select(
            "corpus",
            pl.lit("mean").alias("seed"),
            "task",
            pl.lit("accuracy").alias("metric"),
            pl.col("acc_1b_three_seed_mean").alias("value"),
        )
    missing = next(name for name in _OBSERVATIONS if name not in table.columns)
    raise InputError(
        f"{source}:1: no column {missing!r}; {did_you_mean(missing, table.columns)}; expected the columns "
        f"{', '.join(_OBSERVATIONS)} or {', '.join(_TARGETS)}"
    )
