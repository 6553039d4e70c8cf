"""Moves the time of day by the seconds in the file FORECAST_SOAK_CLOCK, also while a program runs."""

import os
import time
from pathlib import Path

_true, _file = time.time, Path(os.environ["FORECAST_SOAK_CLOCK"])


def _moved() -> float:
    try:
        return _true() + float(_file.read_text())
    except (OSError, ValueError):
        return _true()


time.time = _moved
