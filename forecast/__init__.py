"""Forecast the downstream performance of language models from proxy metrics on expert trajectories.

The public Python interface; see `docs/python-api.md`. Names are imported when they are first used: `import
forecast` takes milliseconds and needs no torch, Ray or polars.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from forecast.api import (
        Run,
        compare_corpora,
        convert,
        diagnose,
        forecast_benchmarks,
        forecast_checkpoints,
        load,
        load_scorer,
        parity,
        rank_table,
    )
    from forecast.tokenstats import token_stats

__all__ = [
    "Run",
    "__version__",
    "compare_corpora",
    "convert",
    "diagnose",
    "forecast_benchmarks",
    "forecast_checkpoints",
    "load",
    "load_scorer",
    "parity",
    "rank_table",
    "token_stats",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "forecast.tokenstats" if name == "token_stats" else "forecast.api"
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
