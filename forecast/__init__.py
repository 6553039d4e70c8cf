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
        diagnose,
        forecast_checkpoints,
        load,
        load_scorer,
        rank_table,
    )
    from forecast.tokenstats import token_stats

__all__ = [
    "Run",
    "__version__",
    "compare_corpora",
    "diagnose",
    "forecast_checkpoints",
    "load",
    "load_scorer",
    "rank_table",
    "token_stats",
]

_HOMES = {name: "forecast.api" for name in __all__ if name not in ("__version__", "token_stats")}
_HOMES["token_stats"] = "forecast.tokenstats"


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
