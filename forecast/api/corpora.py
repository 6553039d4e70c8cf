"""Which pretraining corpus wins at scale, by small runs."""

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING

from forecast.api.arguments import (
    ByName,
    Names,
    Numbers,
    OnProgress,
    TableSource,
    by_name,
    check_ranges,
    cores,
    names,
    numbers,
)
from forecast.api.run import Run
from forecast.errors import ConfigError

if TYPE_CHECKING:  # half a second to import; every function imports what it needs
    from forecast.analysis.corpora.corpora_result import CorporaChoice, CorporaResult


def compare_corpora(
    source: Run | TableSource,
    targets: TableSource | None = None,
    *,
    higher: Names = (),
    lower: Names = (),
    target_metric: str | None = None,
    target_size: str | None = None,
    budget: Numbers = (),
    parameters: ByName = (),
    training_tokens: ByName = (),
    scored_tokens: float | None = None,
    expert_parameters: float | None = None,
    expert_tokens: float | None = None,
    loss: Names = (),
    scaling_laws: bool = True,
    bootstraps: int = 1000,
    permutations: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> "CorporaResult | CorporaChoice":
    """Rank pretraining corpora by small runs; how often these decide as large ones do, and at what cost.

    Args:
        source: a run whose candidates have a `corpus`; or small runs as a table with columns corpus, size,
            seed, step, task, metric, value, counts where known, and optionally variant and group.
        targets: the large runs: columns corpus, seed, task, metric, value, and counts where known; None:
            nothing is known of them, so the corpora are ranked by a default metric.
        higher, lower: metrics where higher or lower is better.
        budget: share of the compute of one target run.
        parameters, training_tokens: by size; parameters that a token is multiplied with, tokens of a whole
            training run.
        scored_tokens: tokens read to score a run, prompts included.
        loss: metrics to fit scaling laws to; (): cross-entropies, by their name.
        workers: processes; None: one for each core.

    Raises:
        ConfigError: an argument is out of range or names what is not there.
        InputError: a table is wrong.
        NoDataError: the run has no candidate with a corpus, or nothing is measured.
    """
    check_ranges(
        scored_tokens=scored_tokens,
        expert_parameters=expert_parameters,
        expert_tokens=expert_tokens,
        bootstraps=bootstraps,
        permutations=permutations,
        confidence=confidence,
        seed=seed,
        workers=workers,
    )
    budgets = numbers("--budget", budget)
    if bad := [b for b in budgets if not 0 < b < math.inf]:
        raise ConfigError(f"--budget {bad[0]:g}: expected a share of the target's compute above 0, e.g. 1e-3")
    if (expert_parameters is None) != (expert_tokens is None):
        raise ConfigError("--expert-parameters and --expert-tokens go together; give both")
    expected = "SIZE=NUMBER, e.g. 150M=151898880"
    active = by_name("--parameters", parameters, expected, lambda n: 0 < n < math.inf)
    tokens = by_name("--training-tokens", training_tokens, expected, lambda n: 0 < n < math.inf)
    from forecast.analysis.corpora import compare
    from forecast.analysis.corpora.compute_cost import Given
    from forecast.analysis.corpora.corpora_result import CorporaOptions

    if isinstance(source, Run) and targets is None:
        from forecast.analysis.corpora.observations_from_run import tables_of

        with source.warehouse() as db:
            tables = tables_of(db, target_size)
    elif isinstance(source, Run):
        raise ConfigError("--targets goes with --table; the large runs of a configuration are its own")
    else:
        from forecast.analysis.corpora.observations_from_file import read_tables
        from forecast.inputs.frames import file_of

        with (
            file_of(source) as observed,
            nullcontext() if targets is None else file_of(targets, "targets") as wanted,
        ):
            tables = read_tables(observed, wanted)
    options = CorporaOptions(
        higher=names(higher),
        lower=names(lower),
        target_metric=target_metric,
        budgets=budgets,
        given=Given(
            parameters=active,
            tokens=tokens,
            scored_tokens=scored_tokens,
            target_size=target_size,
            expert_parameters=expert_parameters,
            expert_tokens=expert_tokens,
        ),
        laws=scaling_laws,
        losses=names(loss),
        bootstraps=bootstraps,
        permutations=permutations,
        confidence=confidence,
        seed=seed,
    )
    if not tables.targets:
        return compare.choose_without_targets(tables, options)
    return compare.compare_corpora(tables, options, workers or cores(), on_progress)
