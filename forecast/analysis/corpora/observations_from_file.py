"""Metrics of small runs and targets of large ones, read from two tables and checked.

OBS: `corpus, size, seed, step, task, metric, value`, and where known `parameters, active_parameters, tokens,
scored_tokens`. TARGETS: `corpus, seed, task, metric, value`, and where known `size, parameters,
active_parameters, tokens`. A column `seed` or `step` may be missing: then every run has one seed, or there
are final checkpoints only. An empty step, `final`, `last` and -1 are a run's final checkpoint. A seed called
`mean` (also `avg`, `average`) is the mean over seeds and no run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from forecast.config.sources import DataSource
from forecast.errors import InputError, did_you_mean
from forecast.inputs.files import Problems, Row, read_rows

MEAN = "mean"
OBSERVED = ("corpus", "size", "task", "metric", "value")
TARGETED = ("corpus", "task", "metric", "value")
COUNTS = ("parameters", "active_parameters", "tokens", "scored_tokens")

_MEANS = frozenset({"mean", "avg", "average"})
_FINAL = frozenset({"", "final", "last", "end", "nan", "na", "null", "none", "-1"})
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
_ONE_SEED = "0"


@dataclass(frozen=True)
class Observation:
    """One number of one run; the run is (corpus, size, seed), the checkpoint its step."""

    corpus: str
    size: str
    seed: str
    step: float | None  # None: the final checkpoint
    task: str
    metric: str
    value: float
    counts: tuple[float | None, ...] = (None,) * len(COUNTS)  # in the order of COUNTS
    where: str = ""


@dataclass(frozen=True)
class TargetScore:
    """One number of one large run, or of their mean."""

    corpus: str
    seed: str
    task: str
    metric: str
    value: float
    size: str | None = None
    counts: tuple[float | None, ...] = (None,) * len(COUNTS)
    where: str = ""


@dataclass(frozen=True)
class Tables:
    """Both tables as they were read; the order of rows is without meaning."""

    observations: tuple[Observation, ...]
    targets: tuple[TargetScore, ...]
    warnings: tuple[str, ...] = field(default=())


def read_tables(observed: str, targets: str) -> Tables:
    """Read both tables (CSV, JSON lines, Parquet, Arrow; also `.gz` and `s3://`).

    A value that is empty or NaN is missing: the row is left out, and a warning counts such rows.

    Raises:
        InputError: a column that is not there, text where a number belongs, an infinite number, a negative
            step or count, two rows for the same cell; names the lines.
    """
    rows, warnings = _read(observed, OBSERVED, "OBS")
    target_rows, more = _read(targets, TARGETED, "TARGETS")
    problems = Problems()
    found = [_observation(row, problems) for row in rows]
    scores = [_target(row, problems) for row in target_rows]
    problems.raise_if_any()
    kept = [o for o in found if o is not None]
    wanted = [t for t in scores if t is not None]
    _check_repeats([((o.corpus, o.size, o.seed, o.step, o.task, o.metric), o.where) for o in kept], problems)
    _check_repeats([((t.corpus, t.size, t.seed, t.task, t.metric), t.where) for t in wanted], problems)
    problems.raise_if_any()
    for path, all_rows, n in ((observed, rows, len(kept)), (targets, target_rows, len(wanted))):
        if n < len(all_rows):
            warnings.append(
                f"{path}: {len(all_rows) - n} of {len(all_rows)} rows have no value and are left out"
            )
        if not n:
            raise InputError(f"{path}: no row has a value")
    return Tables(tuple(kept), tuple(wanted), (*warnings, *more))


def _read(path: str, needed: Sequence[str], what: str) -> tuple[list[Row], list[str]]:
    rows = read_rows(DataSource(path=path))
    columns = list(rows[0].data)
    if missing := [name for name in needed if name not in columns]:
        raise InputError(
            f"{path}:1: no column {missing[0]!r} ({what} needs {', '.join(needed)}); "
            f"{did_you_mean(missing[0], columns)}"
        )
    warnings = []
    if what == "OBS" and "step" not in columns:
        warnings.append(f"{path}: no column step: every row is taken as a run's final checkpoint")
    if "seed" not in columns:
        taken = "one seed of each run" if what == "OBS" else "a mean over seeds"
        warnings.append(f"{path}: no column seed: every row is taken as {taken}")
    return rows, warnings


def _observation(row: Row, problems: Problems) -> Observation | None:
    corpus, size, task, metric = (_name(row, c, problems) for c in ("corpus", "size", "task", "metric"))
    seed = _seed(row, _ONE_SEED, problems)
    step = _step(row, problems)
    value, counts = _number(row, "value", problems), _counts(row, problems)
    if value is None or corpus is None or size is None or task is None or metric is None or seed is None:
        return None
    return Observation(corpus, size, seed, step, task, metric, value, counts, row.where)


def _target(row: Row, problems: Problems) -> TargetScore | None:
    corpus, task, metric = (_name(row, c, problems) for c in ("corpus", "task", "metric"))
    seed = _seed(row, MEAN, problems)
    size = _name(row, "size", problems) if _text(row.data.get("size")) else None
    value, counts = _number(row, "value", problems), _counts(row, problems)
    if value is None or corpus is None or task is None or metric is None or seed is None:
        return None
    return TargetScore(corpus, seed, task, metric, value, size, counts, row.where)


def _check_repeats(keys: Sequence[tuple[tuple[Any, ...], str]], problems: Problems) -> None:
    first: dict[tuple[Any, ...], str] = {}
    for key, where in keys:
        if (before := first.setdefault(key, where)) != where:
            words = " / ".join("final" if part is None else str(part) for part in key)
            problems.add(where, f"a second row for {words}, the first is at {before}; remove one")


def _text(value: Any) -> str:
    """A cell as text; whole numbers without a decimal point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _name(row: Row, column: str, problems: Problems) -> str | None:
    text = _text(row.data.get(column))
    if not text:
        problems.add(row.where, f"column {column!r} is empty; every row needs one")
        return None
    return text


def _seed(row: Row, default: str, problems: Problems) -> str | None:
    if "seed" not in row.data:
        return default
    text = _text(row.data["seed"])
    if not text:
        problems.add(row.where, "column 'seed' is empty; every row needs one ('mean' for a mean over seeds)")
        return None
    if text.lower() in _MEANS:
        return MEAN
    return _text(float(text)) if _is_whole(text) else text


def _is_whole(text: str) -> bool:
    try:
        return float(text).is_integer()
    except (ValueError, OverflowError):
        return False


def _step(row: Row, problems: Problems) -> float | None:
    text = _text(row.data.get("step"))
    if text.lower() in _FINAL:
        return None
    try:
        step = float(text)
    except ValueError:
        step = math.nan
    if not math.isfinite(step) or step < 0:
        problems.add(
            row.where, f"column 'step': {text!r} is no step; give 0 or more, or leave it empty (final)"
        )
        return None
    return step


def _number(row: Row, column: str, problems: Problems) -> float | None:
    """A finite number; None where it is missing, or where a problem was noted."""
    value = row.data.get(column)
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        if not isinstance(value, float):
            problems.add(
                row.where, f"column {column!r}: {value!r} is not a number; leave it empty if missing"
            )
        return None
    if math.isinf(number):
        problems.add(row.where, f"column {column!r}: {value!r} is infinite; give a finite number")
        return None
    return number


def _counts(row: Row, problems: Problems) -> tuple[float | None, ...]:
    counts = []
    for column in COUNTS:
        number = _number(row, column, problems) if column in row.data else None
        if number is not None and number < 0:
            problems.add(row.where, f"column {column!r}: {number:g} is negative")
        counts.append(number)
    return tuple(counts)
