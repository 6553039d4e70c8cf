"""Training runs from the warehouse: candidates with a `step` are checkpoints of a training run."""

from collections import Counter

import duckdb

from forecast.analysis.checkpoints.training_runs import RunRow, Runs, build_runs
from forecast.errors import ConfigError, InputError, NoDataError, did_you_mean
from forecast.warehouse.build import DIRECT_METRIC
from forecast.warehouse.run_name import RUN_COLUMNS, run_name

_CHECKPOINTS = "candidates WHERE status = 'complete' AND step IS NOT NULL"


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
        InputError: two candidates at one step of a run, an accuracy outside 0..1.
        ConfigError: a metric that is not measured.
    """
    rows = db.execute(
        f"SELECT candidate, step, training_tokens, {', '.join(RUN_COLUMNS)} "
        f"FROM {_CHECKPOINTS} ORDER BY place"
    ).fetchall()
    if not rows:
        raise NoDataError(
            "no complete candidate has a `step`: give the candidates of the configuration their `step` (and "
            "`training_tokens`) and aggregate again"
        )
    checkpoints = {candidate: (run_name(of_run), step, tokens) for candidate, step, tokens, *of_run in rows}
    candidates: dict[tuple[str, int], list[str]] = {}
    for candidate, (run, step, _) in checkpoints.items():
        candidates.setdefault((run, step), []).append(candidate)
    for (run, step), same in candidates.items():
        if len(same) > 1:
            raise InputError(
                f"candidates {', '.join(same)} are all step {step} of run {run!r}; give them different "
                "`family`, `corpus` or `seed`"
            )
    measured = db.execute(
        "SELECT candidate, task, metric, value FROM measured "
        f"WHERE candidate IN (SELECT candidate FROM {_CHECKPOINTS}) ORDER BY ALL"
    ).fetchall()
    counts = Counter(metric for _, _, metric, _ in measured)
    if not counts:
        raise NoDataError(
            "no checkpoint has a measured score: there is nothing to forecast; see measured_scores"
        )
    if target is None:
        target = min(counts, key=lambda metric: (-counts[metric], metric))
    elif target not in counts:
        raise ConfigError(f"no measured score is a {target!r}; {did_you_mean(target, sorted(counts))}")
    proxies = db.execute(
        "SELECT candidate, task, proxy, value FROM task_proxies "
        f"JOIN (SELECT candidate, candidate_id FROM {_CHECKPOINTS}) USING (candidate_id) ORDER BY ALL"
    ).fetchall()
    read = []
    for candidate, task, metric, value in [*measured, *proxies]:
        run, step, tokens = checkpoints[candidate]
        if metric == target and not 0 <= value <= 1:
            raise InputError(
                f"{candidate}, task {task}: {target} {value:g}, expected an accuracy within 0..1"
            )
        counts_at = {"tokens": None if tokens is None else float(tokens), "flops": None}
        read.append(RunRow(f"candidate {candidate}", run, float(step), task, metric, float(value), counts_at))
    return build_runs(read, axis), target


def chance_levels(db: duckdb.DuckDBPyConnection, target: str) -> dict[str, float]:
    """By task of direct evaluation, the accuracy of guessing: the mean of one over the number of options.

    Args:
        target: chance is known only where this is direct evaluation's own metric.
    """
    if target != DIRECT_METRIC:
        return {}
    return dict(
        db.execute(
            "SELECT task, avg(1 / n ORDER BY instance_id) FROM ("
            "  SELECT task, instance_id, count(*) AS n FROM choice_items GROUP BY ALL"
            ") SEMI JOIN choice_results USING (task, instance_id) GROUP BY task ORDER BY task"
        ).fetchall()
    )
