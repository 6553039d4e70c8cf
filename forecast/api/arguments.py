"""Arguments of the public functions: one value or several, numbers by name, and ranges."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

from forecast.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from forecast.analysis.ranking.held_out import RankOptions

TableSource = Union[str, Path, "pl.DataFrame"]  # a file (CSV, JSONL, Parquet) or a frame
Names = str | Sequence[str]
Numbers = float | Sequence[float]
ByName = Mapping[str, float] | Names
OnProgress = Callable[[float, float], None]  # called with how much is done, of how much, in any unit


def names(given: Names) -> tuple[str, ...]:
    """Each once, in the order given."""
    return (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))


def numbers(given: Numbers) -> tuple[float, ...]:
    """Each once, in ascending order."""
    return (given,) if isinstance(given, int | float) else tuple(sorted(set(given)))


def by_name(option: str, given: ByName, expected: str, valid: Callable[[float], bool]) -> dict[str, float]:
    """Numbers by name, from a mapping or from texts `NAME=NUMBER`."""
    texts = [f"{name}={n}" for name, n in given.items()] if isinstance(given, Mapping) else names(given)
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            found[name.strip()] = math.nan
        if not name or not valid(found[name.strip()]):
            raise ConfigError(f"{option} {text}: expected {expected}")
    return found


def cores() -> int:
    return len(os.sched_getaffinity(0))


def ignore(*_: object) -> None:
    pass


def options_of(
    protocol: Names, scorer: Names, permutations: int, bootstraps: int, confidence: float, seed: int
) -> "RankOptions":
    from forecast.analysis.ranking.held_out import RankOptions

    scorers, protocols = names(scorer) or RankOptions.scorers, names(protocol) or RankOptions.protocols
    return RankOptions(scorers, protocols, permutations, bootstraps, confidence, seed)
