"""Scorers: univariate, sparse-3, linear and RBF RankSVM, and the bar; saved as JSON, never as pickles."""

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forecast.analysis.ranking.scorers.base import Fitted, Scorer
from forecast.analysis.ranking.scorers.mean_score import OWN_MEAN, FittedOwnMean, OwnMean
from forecast.analysis.ranking.scorers.ranksvm import LINEAR, RBF, FittedRankSVM, ranksvm
from forecast.analysis.ranking.scorers.sparse_linear import FittedSparse, Sparse3
from forecast.analysis.ranking.scorers.univariate import FittedUnivariate, Univariate
from forecast.errors import ConfigError, InputError, did_you_mean
from forecast.inputs.literals import parse_json

FORMAT = 1
SCORERS = ("univariate", "sparse-3", LINEAR, RBF)
_VERSIONS = ("proxy-forecast", "numpy", "scipy", "scikit-learn")


def make_scorer(name: str) -> Scorer:
    """The scorer of this name, `SCORERS` or own-mean.

    Raises:
        ConfigError: there is none.
    """
    if name in (LINEAR, RBF):
        return ranksvm(name)
    if name == "univariate":
        return Univariate()
    if name == "sparse-3":
        return Sparse3()
    if name == OWN_MEAN:
        return OwnMean()
    raise ConfigError(f"unknown scorer {name!r}; {did_you_mean(name, (*SCORERS, OWN_MEAN))}")


def save(fitted: Fitted, path: str | Path) -> None:
    """Write what was learned as JSON, with the feature list and the versions it was learned with."""
    record = {**record_of(fitted), "versions": versions()}
    Path(path).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def record_of(fitted: Fitted) -> dict[str, Any]:
    """What was learned, for JSON."""
    return {"format": FORMAT, **fitted.as_record()}


def fitted_of(record: dict[str, Any]) -> Fitted:
    """What `record_of` gave.

    Raises:
        ValueError: of another format, or damaged.
    """
    if record.get("format") != FORMAT:
        raise ValueError(f"format {record.get('format')!r}, expected {FORMAT}")
    try:
        return _fitted(record)
    except (KeyError, TypeError) as error:
        raise ValueError(f"damaged ({error!r})") from error


def versions() -> dict[str, str]:
    """Of this package and of those that compute with it."""
    return {package: importlib.metadata.version(package) for package in _VERSIONS}


def load(path: str | Path) -> Fitted:
    """Read what `save` wrote; see `load_saved`."""
    return load_saved(path)[0]


def load_saved(path: str | Path) -> tuple[Fitted, tuple[str, ...], dict[str, str]]:
    """Read what `save` wrote: what was learned, the features it needs, the versions it was learned with.

    Raises:
        InputError: no such file, not a saved scorer, or of another format.
    """
    try:
        record = parse_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: not a saved scorer: {error}") from error
    if not isinstance(record, dict) or "kind" not in record:
        raise InputError(f"{path}: not a saved scorer; expected what `save` wrote")
    if record.get("format") != FORMAT:
        raise InputError(f"{path}: format {record.get('format')!r}, expected {FORMAT}; fit and save it again")
    try:
        return _fitted(record), tuple(record["features"]), dict(record.get("versions", {}))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a damaged scorer ({error!r}); fit and save it again") from error


def _fitted(record: dict[str, Any]) -> Fitted:
    kind, features = record["kind"], tuple(record["features"])
    if kind == "univariate":
        return FittedUnivariate(_one(features), _one(_signs(record)))
    if kind == "sparse-3":
        signs = tuple(_signs(record))
        if len(signs) != len(features):
            raise ValueError(f"{len(features)} features, {len(signs)} signs")
        return FittedSparse(features, signs)
    if kind in (LINEAR, RBF):
        cells, weights = np.array(record["cells"], float), np.array(record["weights"], float)
        cells = cells.reshape(len(weights), len(features))
        if not (np.isfinite(cells).all() and np.isfinite(weights).all()):
            raise ValueError("a number that is not finite")
        gamma = None if kind == LINEAR else float(record["gamma"])
        return FittedRankSVM(features, gamma, float(record["c"]), cells, weights)
    if kind == OWN_MEAN:
        return FittedOwnMean({str(name): float(value) for name, value in record["standing"].items()})
    raise ValueError(f"unknown kind {kind!r}")


def _signs(record: dict[str, Any]) -> list[int]:
    signs = [int(sign) for sign in record["signs"]]
    if set(signs) - {1, -1}:
        raise ValueError("a sign that is neither 1 nor -1")
    return signs


def _one(values: Sequence[Any]) -> Any:
    (value,) = values
    return value
