"""The published evaluations of one OLMo-2 pretraining run as a table of runs.

Source: allenai/OLMo-ladder, commit 67a3f440 (Apache-2.0), `olmo2_7b_evals.csv`: a row per checkpoint, a
column per evaluation. Every other run that was logged by the same trainer has these columns and converts the
same way.

| column | task | metric |
|---|---|---|
| `_step` | | `step`; `tokens` = step x `batch_size_in_tokens` |
| `eval/c4_en-validation/CrossEntropyLoss` | `c4_en` | `cross_entropy`, nats per token of generic text |
| `eval/downstream/arc_easy_test_rc_5shot_len_norm` or `.._acc` | `arc_easy_test_rc` | `accuracy` |
| `eval/downstream/arc_easy_test_mc_5shot_acc` or `.._len_norm` | `arc_easy_test_mc` | `accuracy` |
| `eval/downstream_bpb/arc_easy_test_rc_5shot_bpb` | `arc_easy_test_rc` | `bits_per_byte` of the answers |
| `eval/downstream_soft/arc_easy_test_rc_5shot_soft` | `arc_easy_test_rc` | `soft`: share of the gold |
| `eval/downstream_soft_log/arc_easy_test_rc_5shot_soft_log` | `arc_easy_test_rc` | `soft_log`: its log |

`rc` is the cloze form (each option's text is scored), `mc` the letter form. `len_norm` (the option with the
best log-probability per character) and `acc` (the best in all) are the two ways in which the trainer decides
an item; no task has both, so both become `accuracy`. The letter form has no bits per byte of its own. MMLU
comes as four groups of subjects (`mmlu_stem_test_rc` and so on), validation and test questions apart.
`learning_rate_peak` is constant and left out, as are empty cells.
"""

import re

import polars as pl

from forecast.errors import InputError, did_you_mean
from forecast.inputs.frames import csv_frame

COLUMNS = ("run", "step", "tokens", "task", "metric", "value")
CROSS_ENTROPY, ACCURACY, BITS_PER_BYTE = "cross_entropy", "accuracy", "bits_per_byte"

_STEP, _BATCH = "_step", "batch_size_in_tokens"
_NOT_NUMBERS_OF_A_TASK = (_STEP, _BATCH, "learning_rate_peak")
_METRICS = {
    "len_norm": ACCURACY,
    "acc": ACCURACY,
    "bpb": BITS_PER_BYTE,
    "soft": "soft",
    "soft_log": "soft_log",
}
_GENERIC = re.compile(r"eval/(?P<task>.+?)(-validation)?/CrossEntropyLoss")
_TASK = re.compile(r"eval/downstream(_\w+)?/(?P<task>.+)_\d+shot_(?P<metric>len_norm|acc|bpb|soft_log|soft)")


def convert(source: str, run: str = "OLMo-2 7B") -> pl.DataFrame:
    """The long table of one run.

    Args:
        source: the published CSV; a local path or `s3://...`.
        run: its name in the table.

    Returns:
        `run, step, tokens, task, metric, value`, in order of task, metric and step; tokens are null where the
        table has no batch size.

    Raises:
        InputError: no such file, no column `_step`, a column that is neither of the kinds above.
    """
    wide = csv_frame(source)
    if _STEP not in wide.columns:
        raise InputError(f"{source}:1: no column {_STEP!r}; {did_you_mean(_STEP, wide.columns)}")
    named = {column: _named(column) for column in wide.columns if column not in _NOT_NUMBERS_OF_A_TASK}
    if unknown := [column for column, name in named.items() if name is None]:
        raise InputError(
            f"{source}:1: {len(unknown)} columns are no known evaluation, e.g. {unknown[0]!r}; expected e.g. "
            "'eval/downstream/arc_easy_test_rc_5shot_len_norm'; remove the others"
        )
    names = {column: name for column, name in named.items() if name is not None}
    if len(set(names.values())) < len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise InputError(f"{source}:1: two columns are both {' / '.join(twice)}; remove one")
    tokens = pl.col(_STEP) * pl.col(_BATCH) if _BATCH in wide.columns else pl.lit(None, pl.Int64)
    long = wide.with_columns(tokens.cast(pl.Int64).alias("tokens")).unpivot(
        list(names), index=[_STEP, "tokens"], variable_name="column", value_name="value"
    )
    return (
        long.drop_nulls("value")
        .with_columns(
            pl.lit(run).alias("run"),
            pl.col("column").replace_strict({c: task for c, (task, _) in names.items()}).alias("task"),
            pl.col("column").replace_strict({c: metric for c, (_, metric) in names.items()}).alias("metric"),
            pl.col("value").cast(pl.Float64),
        )
        .rename({_STEP: "step"})
        .select(COLUMNS)
        .sort("task", "metric", "step")
    )


def _named(column: str) -> tuple[str, str] | None:
    """Task and metric of a column."""
    if found := _GENERIC.fullmatch(column):
        return found["task"], CROSS_ENTROPY
    if found := _TASK.fullmatch(column):
        return found["task"], _METRICS[found["metric"]]
    return None
