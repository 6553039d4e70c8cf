"""Training runs from the warehouse: candidates with a `step` are checkpoints of a training run."""

from collections import Counter

import duckdb

from forecast.analysis.checkpoints.training_runs import RunRow, Runs, build_runs
from forecast.errors import InputError, NoDataError, did_you_mean

_COLUMNS = ("run", "step", "tokens", "task", "metric", "value")


def runs_of(
    db: duckdb.DuckDBPyConnection, target: str | None = None, axis: str | None = None
) -> tuple[Runs, str]:
    """All proxies and measured scores of candidates that have a step, and the target's metric.

    Checkpoints of one run share family, corpus, seed and variant (rounding, removed layers). Proxies carry
    their own names as metrics, measured scores theirs.

    Args:
        target: metric of the measured scores; None: the most frequent one.

    Raises:
        NoDataError: no candidate has a step, or nothing is measured.
        InputError: two candidates at one step of a run, a metric that is not measured, an accuracy outside
        0..1.
    """
    rows = db.execute(
        "SELECT candidate, candidate_id, family, corpus, seed, quantize_bits, drop_layers, step, "
        "training_tokens FROM candidates WHERE status = 'complete' AND step IS NOT NULL ORDER BY place"
    ).fetchall()
    if not rows:
        raise NoDataError(
            "no complete candidate has a `step`: give the candidates of the configuration their `step` (and "
            "`training_tokens`) and aggregate again"
        )
    names = {row[0]: run_name(row[2:7]) for row in rows}
    steps = {row[0]: row[7] for row in rows}
    tokens = {row[0]: row[8] for row in rows}
    twice = Counter((names[c], steps[c]) for c in names)
    if many := next((key for key, n in twice.items() if n > 1), None):
        both = [c for c in names if (names[c], steps[c]) == many]
        raise InputError(
            f"candidates {', '.join(both)} are all step {many[1]} of run {many[0]!r}; give them different "
            "`family`, `corpus` or `seed`"
        )
    measured = db.execute("SELECT candidate, task, metric, value FROM measured ORDER BY ALL").fetchall()
    measured = [row for row in measured if row[0] in names]
    counts = Counter(metric for _, _, metric, _ in measured)
    if not counts:
        raise NoDataError(
            "no checkpoint has a measured score: there is nothing to forecast; see measured_scores"
        )
    if target is None:
        target = min(counts, key=lambda metric: (-counts[metric], metric))
    elif target not in counts:
        raise InputError(f"no measured score is a {target!r}; {did_you_mean(target, sorted(counts))}")
    if bad := next((r for r in measured if r[2] == target and not 0 <= r[3] <= 1), None):
        raise InputError(f"{bad[0]}, task {bad[1]}: {target} {bad[3]:g}, expected an accuracy within 0..1")
    proxies = db.execute(
        "SELECT candidate, task, proxy, value FROM task_proxies JOIN candidates USING (candidate_id) "
        "WHERE status = 'complete' AND step IS NOT NULL ORDER BY ALL"
    ).fetchall()
    read = [
        RunRow(
            f"candidate {candidate}",
            names[candidate],
            float(steps[candidate]),
            task,
            metric,
            float(value),
            {"tokens": None if tokens[candidate] is None else float(tokens[candidate]), "flops": None},
        )
        for candidate, task, metric, value in [*measured, *proxies]
    ]
    return build_runs("the warehouse", read, _COLUMNS, axis), target


def run_name(parts: tuple[object, ...]) -> str:
    """The run of a checkpoint with this family, corpus, seed, bits of rounding and layers dropped."""
    family, corpus, seed, bits, dropped = parts
    words = [str(family or "run")]
    words += [f"corpus {corpus}"] if corpus is not None else []
    words += [f"seed {seed}"] if seed is not None else []
    words += [f"{bits}-bit"] if bits is not None else []
    words += [f"without layers {dropped}"] if dropped is not None else []
    return ", ".join(words)
