"""Metrics of small runs and targets of large ones, read from two tables and checked.

OBS: `corpus, size, seed, step, task, metric, value`, and where known `parameters, input_embedding,
active_parameters, tokens, scored_tokens`; see `compute_cost` for what they are. TARGETS: `corpus, seed, task,
metric, value`, and where known `size` and the same counts. A column `seed` or `step` may be missing: then
every run has one seed, or there are final checkpoints only. An empty step, `final`, `last` and -1 are a run's
final checkpoint. A seed called `mean` (also `avg`, `average`) is the mean over seeds and no run.

OBS may have a column `variant`: runs that differ by more than the seed, as in learning rate; and a column
`group`: corpora that are variants of one base and so alike. One where it is empty is a group alone.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from forecast.errors import InputError
from forecast.inputs.files import Problems, SourceRow
from forecast.inputs.literals import parse_number, text_of
from forecast.inputs.long_table import is_repeat, name_at, number_at, read_long_table

MEAN = "mean"
OBSERVED = ("corpus", "size", "task", "metric", "value")
TARGETED = ("corpus", "task", "metric", "value")
COUNTS = ("parameters", "input_embedding", "active_parameters", "tokens", "scored_tokens")

_MEANS = frozenset({"mean", "avg", "average"})
_FINAL = frozenset({"", "final", "last", "end", "nan", "na", "null", "none", "-1"})
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
    variant: str = ""  # "": there are none
    group: str = ""  # of the corpus; "": it is one alone


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


def read_tables(observed: str, targets: str | None) -> Tables:
    """Read both tables, or the one of small runs (CSV, JSON lines, Parquet, Arrow; also `.gz` and `s3://`).

    A value that is empty or NaN is missing: the row is left out, and a warning counts such rows.

    Raises:
        InputError: a column that is not there, text where a number belongs, an infinite number, a negative
            step or count, two rows for the same cell, a corpus of two groups; names the lines.
    """
    rows = read_long_table(observed, OBSERVED, ("seed", "variant", "group", "step", *COUNTS))
    target_rows = [] if targets is None else read_long_table(targets, TARGETED, ("seed", "size", *COUNTS))
    warnings = _column_words(observed, rows[0], "OBS")
    more = [] if targets is None else _column_words(targets, target_rows[0], "TARGETS")
    problems = Problems()
    found = [_observation(row, problems) for row in rows]
    scores = [_target(row, problems) for row in target_rows]
    problems.raise_if_any()
    kept = [o for o in found if o is not None]
    wanted = [t for t in scores if t is not None]
    places: dict[tuple[object, ...], str] = {}
    for o in kept:
        step = "final" if o.step is None else o.step
        is_repeat(
            (o.corpus, o.size, *filter(None, (o.variant, o.seed)), step, o.task, o.metric),
            o.where,
            places,
            problems,
        )
    check_groups(kept, problems)
    places = {}
    for t in wanted:
        is_repeat((t.corpus, t.size, t.seed, t.task, t.metric), t.where, places, problems)
    problems.raise_if_any()
    for path, all_rows, n in ((observed, rows, len(kept)), (targets, target_rows, len(wanted))):
        if path is None:
            continue
        if n < len(all_rows):
            warnings.append(
                f"{path}: {len(all_rows) - n} of {len(all_rows)} rows have no value and are left out"
            )
        if not n:
            raise InputError(f"{path}: no row has a value")
    return Tables(tuple(kept), tuple(wanted), (*warnings, *more))


def check_groups(observations: Iterable[Observation], problems: Problems) -> None:
    """Note a corpus of two groups."""
    first: dict[str, Observation] = {}
    for o in observations:
        known = first.setdefault(o.corpus, o)
        if known.group != o.group:
            problems.add(
                o.where,
                f"corpus {o.corpus} is of group {o.group!r}, at {known.where} of {known.group!r}; "
                "a corpus has one group in all rows",
            )


def _column_words(path: str, row: SourceRow, what: str) -> list[str]:
    warnings = []
    if what == "OBS" and "step" not in row.data:
        warnings.append(f"{path}: no column step: every row is taken as a run's final checkpoint")
    if "seed" not in row.data:
        taken = "one seed of each run" if what == "OBS" else "a mean over seeds"
        warnings.append(f"{path}: no column seed: every row is taken as {taken}")
    return warnings


def _observation(row: SourceRow, problems: Problems) -> Observation | None:
    corpus, size, task, metric = (name_at(row, c, problems) for c in ("corpus", "size", "task", "metric"))
    seed = _seed(row, _ONE_SEED, problems)
    step = _step(row, problems)
    value, counts = number_at(row, "value", problems), _counts(row, problems)
    if value is None or corpus is None or size is None or task is None or metric is None or seed is None:
        return None
    variant, group = _variant(row, seed, problems), text_of(row.data.get("group"))
    return Observation(corpus, size, seed, step, task, metric, value, counts, row.where, variant, group)


def _target(row: SourceRow, problems: Problems) -> TargetScore | None:
    corpus, task, metric = (name_at(row, c, problems) for c in ("corpus", "task", "metric"))
    seed = _seed(row, MEAN, problems)
    size = name_at(row, "size", problems) if text_of(row.data.get("size")) else None
    value, counts = number_at(row, "value", problems), _counts(row, problems)
    if value is None or corpus is None or task is None or metric is None or seed is None:
        return None
    return TargetScore(corpus, seed, task, metric, value, size, counts, row.where)


def _variant(row: SourceRow, seed: str, problems: Problems) -> str:
    variant = text_of(row.data.get("variant"))
    if variant and seed == MEAN:
        problems.add(row.where, f"a mean over seeds of variant {variant}: give its runs, or leave it empty")
    return variant


def _seed(row: SourceRow, default: str, problems: Problems) -> str | None:
    if "seed" not in row.data:
        return default
    text = text_of(row.data["seed"])
    if not text:
        problems.add(row.where, "column 'seed' is empty; every row needs one ('mean' for a mean over seeds)")
        return None
    if text.lower() in _MEANS:
        return MEAN
    return text_of(float(text)) if _is_whole(text) else text


def _is_whole(text: str) -> bool:
    try:
        return parse_number(text).is_integer()
    except ValueError:
        return False


def _step(row: SourceRow, problems: Problems) -> float | None:
    text = text_of(row.data.get("step"))
    if text.lower() in _FINAL:
        return None
    try:
        step = parse_number(text)
    except ValueError:
        step = math.nan
    if not math.isfinite(step) or step < 0:
        problems.add(
            row.where, f"column 'step': {text!r} is no step; give 0 or more, or leave it empty (final)"
        )
        return None
    return step


def _counts(row: SourceRow, problems: Problems) -> tuple[float | None, ...]:
    counts = []
    for column in COUNTS:
        number = number_at(row, column, problems) if column in row.data else None
        if number is not None and number < 0:
            problems.add(row.where, f"column {column!r}: {number:g} is negative")
        counts.append(number)
    return tuple(counts)
