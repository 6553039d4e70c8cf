"""Arguments of the public functions: one value or several, numbers by name, and ranges."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Union

from forecast.errors import ConfigError, did_you_mean
from forecast.inputs.literals import parse_number

if TYPE_CHECKING:
    import polars as pl

    from forecast.analysis.ranking.held_out import RankOptions

TableSource = Union[str, Path, "pl.DataFrame"]  # a file (CSV, JSONL, Parquet) or a frame
Names = str | Sequence[str]
Numbers = float | Sequence[float]
ByName = Mapping[str, float] | Names
OnProgress = Callable[[float, float], None]  # called with how much is done, of how much, in any unit


_WHOLE, _ANY = Integral, Real
# Smallest and largest value of arguments with a range, as the command line has them.
RANGES: dict[str, tuple[type, float, float]] = {
    "bootstraps": (_WHOLE, 0, math.inf),
    "confidence": (_ANY, 0.5, 0.999),
    "expert_parameters": (_ANY, 0, math.inf),
    "expert_tokens": (_ANY, 0, math.inf),
    "fit_until": (_ANY, 0, math.inf),
    "folds": (_WHOLE, 2, math.inf),
    "min_gain": (_ANY, 0, math.inf),
    "min_k": (_ANY, 0.1, 100),
    "ngram": (_WHOLE, 1, math.inf),
    "permutations": (_WHOLE, 0, math.inf),
    "scored_tokens": (_ANY, 0, math.inf),
    "seed": (_WHOLE, 0, math.inf),
    "tolerance": (_ANY, 0, math.inf),
    "trajectories": (_WHOLE, 0, math.inf),
    "workers": (_WHOLE, 1, math.inf),
}


def check_ranges(**given: float | None) -> None:
    """Raises: ConfigError: a number outside its range, NaN, or of another type. None is what is not given."""
    for name, value in given.items():
        kind, low, high = RANGES[name]
        if value is not None and not (isinstance(value, kind) and low <= value <= high):
            what = "a whole number" if kind is _WHOLE else "a number"
            limits = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            raise ConfigError(f"--{name.replace('_', '-')} {value!r}: expected {what}, {limits}")


def one_of(option: str, value: str, known: Sequence[str]) -> None:
    """Raises: ConfigError: another value."""
    if value not in known:
        raise ConfigError(f"{option} {value!r}: {did_you_mean(value, known)}")


def names(given: Names) -> tuple[str, ...]:
    """Each once, in the order given."""
    return (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))


def numbers(option: str, given: Numbers) -> tuple[float, ...]:
    """Each once, in ascending order."""
    found = given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    if bad := [value for value in found if not isinstance(value, Real)]:
        raise ConfigError(f"{option} {bad[0]!r}: expected a number")
    return tuple(sorted(set(found)))


def by_name(option: str, given: ByName, expected: str, valid: Callable[[float], bool]) -> dict[str, float]:
    """Numbers by name, from a mapping or from texts `NAME=NUMBER`."""
    texts = [f"{name}={n}" for name, n in given.items()] if isinstance(given, Mapping) else names(given)
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name.strip()] = parse_number(number)
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

    check_ranges(permutations=permutations, bootstraps=bootstraps, confidence=confidence, seed=seed)
    scorers, protocols = names(scorer) or RankOptions.scorers, names(protocol) or RankOptions.protocols
    return RankOptions(scorers, protocols, permutations, bootstraps, confidence, seed)
