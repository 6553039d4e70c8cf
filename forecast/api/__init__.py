"""The public Python interface: what the command line does, with the same names, defaults and errors.

Nothing here prints. Progress is a callback: `on_event` for scoring, `on_progress` for long computations. An
argument is called as its option is, also in messages. Where an option may be repeated, one value or several
may be given; where it takes `NAME=NUMBER`, a mapping or such texts.
"""

from forecast.api.analyses import (
    convert,
    diagnose,
    forecast_benchmarks,
    load_scorer,
    parity,
    rank_table,
)
from forecast.api.checkpoints import forecast_checkpoints
from forecast.api.corpora import compare_corpora
from forecast.api.run import Run, RunRanking, load

__all__ = [
    "Run",
    "RunRanking",
    "compare_corpora",
    "convert",
    "diagnose",
    "forecast_benchmarks",
    "forecast_checkpoints",
    "load",
    "load_scorer",
    "parity",
    "rank_table",
]
