"""Both tables from a run's own warehouse: candidates with a `corpus`, small ones and the target's."""

from collections import defaultdict
from typing import Any

import duckdb

from forecast.analysis.corpora.observations_from_file import Observation, Tables, TargetScore, check_groups
from forecast.errors import InputError, NoDataError, did_you_mean
from forecast.inputs.files import Problems
from forecast.report.format import count

_ONE_SEED = "0"
_PROXIES = (
    "SELECT candidate, task, proxy, value FROM task_proxies JOIN candidates USING (candidate_id) "
    "WHERE value IS NOT NULL ORDER BY ALL",
    "SELECT candidate, task, 'bits_per_byte', avg(bits_per_byte ORDER BY expert) FROM bits_per_byte "
    "JOIN candidates USING (candidate_id) GROUP BY ALL HAVING count(bits_per_byte) = count(*) ORDER BY ALL",
)


def tables_of(db: duckdb.DuckDBPyConnection, target_size: str | None = None) -> Tables:
    """Observations are proxies, bits per byte and measured scores; targets are measured scores of one size.

    A size is the number of parameters, as in `135M`. The target's is the largest that has measured scores,
    or the one named; its last checkpoints are the targets. Rounded or pruned candidates are left out.

    Raises:
        NoDataError: no complete candidate has a corpus, or nothing is measured.
        InputError: two candidates of one corpus, size, seed, variant and step; a corpus of two groups; an
            unknown target size.
    """
    rows = db.execute(
        "SELECT candidate, corpus, seed, variant, corpus_group, step, parameters, input_embedding, "
        "active_parameters, training_tokens "
        "FROM candidates WHERE status = 'complete' AND corpus IS NOT NULL AND parameters IS NOT NULL "
        "AND quantize_bits IS NULL AND drop_layers IS NULL ORDER BY place"
    ).fetchall()
    if not rows:
        raise NoDataError(
            "no complete candidate has a `corpus`: give the candidates of the configuration their `corpus`, "
            "`seed`, `step` and `training_tokens`, and aggregate again"
        )
    labels = _labels(row[6] for row in rows)
    runs: dict[str, tuple[str, str, str, float | None]] = {}
    others: dict[str, tuple[str, str]] = {}  # variant and group
    taken: dict[tuple[object, ...], str] = {}
    counts: dict[str, tuple[float | None, ...]] = {}
    unknown: list[str] = []
    for name, corpus, seed, variant, group, step, parameters, embedding, active, tokens in rows:
        run = (corpus, labels[parameters], _ONE_SEED if seed is None else str(seed), _float(step))
        others[name] = (variant or "", group or "")
        if (other := taken.setdefault((*run, variant), name)) != name:
            raise InputError(
                f"candidates {other} and {name} are both corpus {corpus}, {run[1]}, seed {run[2]}, "
                f"step {step}; give them different seeds, variants or steps"
            )
        runs[name] = run
        counts[name] = (_float(parameters), _float(embedding), _float(active), _float(tokens))
        if embedding is None and active is None:
            unknown.append(name)
    read = {
        (kind, name, task): float(n)
        for kind, name, task, n in db.execute(
            "SELECT kind, candidate, task, sum(tokens_read) FROM units GROUP BY ALL"
        ).fetchall()
    }
    measured = [
        row
        for row in db.execute(
            "SELECT candidate, task, metric, value FROM measured WHERE value IS NOT NULL ORDER BY ALL"
        ).fetchall()
        if row[0] in runs
    ]
    proxies = [row for query in _PROXIES for row in db.execute(query).fetchall() if row[0] in runs]
    observations = [
        Observation(
            *runs[name],
            task,
            metric,
            value,
            (*counts[name], read.get((kind, name, task))),
            f"candidate {name}",
            *others[name],
        )
        for kind, table in (("trajectories", proxies), ("choices", measured))
        for name, task, metric, value in table
    ]
    problems = Problems()
    check_groups(observations, problems)
    problems.raise_if_any()
    warnings = (
        [
            f"the input embedding of {len(unknown)} candidates is unknown (scored by an earlier version), as "
            f"of {unknown[0]}: all of their parameters are counted as compute (or give active_parameters)"
        ]
        if unknown
        else []
    )
    # A target has no variants: each of its runs counts as a seed.
    own = {
        name: (run[0], run[1], f"{others[name][0]} {run[2]}".strip(), run[3]) for name, run in runs.items()
    }
    targets = _targets(measured, own, counts, labels, target_size)
    return Tables(tuple(observations), targets, tuple(warnings))


def _targets(
    measured: list[Any],
    runs: dict[str, tuple[str, str, str, float | None]],
    counts: dict[str, tuple[float | None, ...]],
    labels: dict[int, str],
    size: str | None,
) -> tuple[TargetScore, ...]:
    sizes = [label for _, label in sorted(labels.items())]
    with_scores = {runs[name][1] for name, *_ in measured}
    if not with_scores and size is None:
        return ()
    if size is not None and size not in with_scores:
        raise InputError(
            f"--target-size {size}: no measured score; {did_you_mean(size, sorted(with_scores))}"
        )
    chosen = size or next(label for label in reversed(sizes) if label in with_scores)
    last: dict[tuple[str, str], float] = defaultdict(lambda: -1.0)
    for corpus, label, seed, step in runs.values():
        if label == chosen:
            last[corpus, seed] = max(last[corpus, seed], float("inf") if step is None else step)
    return tuple(
        TargetScore(corpus, seed, task, metric, value, chosen, (*counts[name], None), f"candidate {name}")
        for name, task, metric, value in measured
        for corpus, label, seed, step in [runs[name]]
        if label == chosen and last[corpus, seed] == (float("inf") if step is None else step)
    )


def _labels(parameters: Any) -> dict[int, str]:
    """A short name for each number of parameters; the number itself where two would share one."""
    numbers = sorted(set(parameters))
    short = {n: count(n) for n in numbers}
    return {n: short[n] if list(short.values()).count(short[n]) == 1 else str(n) for n in numbers}


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
