"""`forecast corpora` between the command line and the library: options, progress, what it prints."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forecast.cli.options import Html, Json, load_config, one_source
from forecast.errors import ConfigError
from forecast.report.console import err, leave, out, print_failures, print_json
from forecast.runs.progress import WorkProgress

if TYPE_CHECKING:  # scipy takes most of a second to import
    from forecast.analysis.corpora.observations_from_file import Tables

EPILOG = "Example: forecast corpora --table OBS.csv --targets TARGETS.csv --budget 1e-3 --html corpora.html"

ConfigPath = Annotated[
    Path | None,
    typer.Argument(metavar="[CONFIG]", help="A configuration whose candidates have a `corpus`; or --table."),
]
TablePath = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Small runs (CSV, JSONL, Parquet), without a configuration: columns corpus, size, seed, step, "
        "task, metric, value, and where known parameters, active_parameters, tokens, scored_tokens.",
    ),
]
TargetsPath = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="With --table, the large runs: columns corpus, seed (or `mean`), task, metric, value, and where "
        "known size, parameters, tokens.",
    ),
]
Higher = Annotated[
    list[str] | None, typer.Option(metavar="METRIC", help="More of it is better; may be repeated.")
]
Lower = Annotated[
    list[str] | None, typer.Option(metavar="METRIC", help="Less of it is better; may be repeated.")
]
TargetMetric = Annotated[
    str | None, typer.Option(metavar="METRIC", help="Default: the only one, else the accuracy.")
]
TargetSize = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Size of the target runs. Default: the largest.")
]
Budget = Annotated[
    list[float] | None,
    typer.Option(
        metavar="FRACTION",
        help="Of the compute of one target run, for all runs of one corpus: what to buy for it; may be "
        "repeated.",
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(metavar="SIZE=N", help="Parameters (active ones) of a size, e.g. 150M=151898880."),
]
TrainingTokens = Annotated[
    list[str] | None, typer.Option(metavar="SIZE=D", help="Tokens of a whole training run of a size.")
]
ScoredTokens = Annotated[
    float | None, typer.Option(metavar="T", min=0, help="Tokens read to score a run, prompts included.")
]
ExpertParameters = Annotated[
    float | None, typer.Option(metavar="N", min=0, help="Active parameters of the expert, listed apart.")
]
ExpertTokens = Annotated[
    float | None, typer.Option(metavar="T", min=0, help="Tokens that experts wrote, with their prompts.")
]
Loss = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METRIC",
        help="Fit scaling laws to it; may be repeated. Default: what its name says is a cross-entropy.",
    ),
]
Laws = Annotated[bool, typer.Option("--scaling-laws/--no-scaling-laws", help="Fit scaling laws.")]
Bootstraps = Annotated[int, typer.Option(metavar="N", min=0, help="Draws of corpora.")]
Permutations = Annotated[int, typer.Option(metavar="N", min=0, help="For the null of the best row.")]
Confidence = Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")]
Seed = Annotated[int, typer.Option(min=0, help="Of resampling.")]
Workers = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Processes. Default: one for each core.")
]


def corpora(
    config: ConfigPath = None,
    table: TablePath = None,
    targets: TargetsPath = None,
    higher: Higher = None,
    lower: Lower = None,
    target_metric: TargetMetric = None,
    target_size: TargetSize = None,
    budget: Budget = None,
    parameters: Parameters = None,
    training_tokens: TrainingTokens = None,
    scored_tokens: ScoredTokens = None,
    expert_parameters: ExpertParameters = None,
    expert_tokens: ExpertTokens = None,
    loss: Loss = None,
    scaling_laws: Laws = True,
    bootstraps: Bootstraps = 1000,
    permutations: Permutations = 1000,
    confidence: Confidence = 0.95,
    seed: Seed = 0,
    workers: Workers = None,
    html: Html = None,
    json_: Json = False,
) -> None:
    """Choose a pretraining corpus by small runs: how often they decide as large ones do, at what cost."""
    one_source(config, table, "--table FILE with --targets FILE")
    if (table is None) != (targets is None):
        raise ConfigError("--table (small runs) and --targets (large runs) go together; give both")
    if bad := [b for b in budget or [] if not (b > 0 and math.isfinite(b))]:
        raise ConfigError(f"--budget {bad[0]:g}: expected a share of the target's compute above 0, e.g. 1e-3")
    if (expert_parameters is None) != (expert_tokens is None):
        raise ConfigError("--expert-parameters and --expert-tokens go together; give both")
    sizes = {
        "parameters": _by_size("--parameters", parameters),
        "tokens": _by_size("--training-tokens", training_tokens),
    }
    from forecast.analysis.corpora.compare import Options, report_of
    from forecast.analysis.corpora.compute_cost import Given
    from forecast.analysis.corpora.report_record import report_record

    failed: list[dict[str, str]] = []
    if table is not None and targets is not None:
        from forecast.analysis.corpora.observations_from_file import read_tables

        with err.status("reading the tables"):
            tables = read_tables(table, targets)
    else:
        assert config is not None  # checked above
        tables, failed = _of_run(config, target_size)
    options = Options(
        higher=tuple(dict.fromkeys(higher or ())),
        lower=tuple(dict.fromkeys(lower or ())),
        target_metric=target_metric,
        budgets=tuple(sorted(set(budget or ()))),
        given=Given(
            **sizes,
            scored_tokens=scored_tokens,
            target_size=target_size,
            expert_parameters=expert_parameters,
            expert_tokens=expert_tokens,
        ),
        laws=scaling_laws,
        losses=tuple(dict.fromkeys(loss or ())),
        bootstraps=bootstraps,
        permutations=permutations,
        confidence=confidence,
        seed=seed,
    )
    with WorkProgress(err, "decisions and scaling laws") as progress:
        report = report_of(tables, options, workers or len(os.sched_getaffinity(0)), progress.advance)
    source = table or str(config)
    if html is not None:
        from forecast.analysis.corpora.report import report_page

        report_page(report, source).write(html)
    if json_:
        print_json({**report_record(report, source), "failed": failed})
    else:
        from forecast.analysis.corpora.report_tables import report_tables

        out.print(report_tables(report))
        print_failures(failed)
    if html is not None:
        err.print(f"report: {html}", markup=False, soft_wrap=True)
    leave(bool(failed))


def _of_run(config: Path, target_size: str | None) -> tuple["Tables", list[dict[str, Any]]]:
    from forecast.analysis.corpora.observations_from_run import tables_of
    from forecast.warehouse.connect import open_warehouse, read_failures

    with err.status("reading the warehouse"), open_warehouse(load_config(config).output) as db:
        return tables_of(db, target_size), [failure.as_record() for failure in read_failures(db)]


def _by_size(option: str, given: list[str] | None) -> dict[str, float]:
    found = {}
    for text in given or []:
        size, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not size or not value > 0 or math.isinf(value):
            raise ConfigError(f"{option} {text}: expected SIZE=NUMBER, e.g. 150M=151898880")
        found[size.strip()] = value
    return found
