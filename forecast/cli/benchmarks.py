"""`forecast benchmarks`: what known scores, or size alone, tell of a benchmark for families not seen."""

import math
from dataclasses import asdict
from typing import Annotated

import typer

from forecast.cli.options import Json
from forecast.errors import ConfigError
from forecast.report.console import err, out, print_json
from forecast.runs.progress import WorkProgress

EPILOG = (
    "Example: forecast benchmarks configs/data/obsscaling_base_llm_benchmark_eval.csv --target MMLU --json"
)
Table = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="CSV with columns Model, Model Family, Model Size (B), Pretraining Data Size (T), "
        "FLOPs (1E21), then one for each benchmark.",
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="NAME", help="Benchmark to forecast; may be repeated. Default: each."),
]
Folds = Annotated[int, typer.Option(min=2, help="In which the families are held out.")]
Seed = Annotated[int, typer.Option(min=0, help="Deals families of one size out to folds.")]


def benchmarks(
    file: Table, target: Target = None, folds: Folds = 10, seed: Seed = 0, json_: Json = False
) -> None:
    """Forecast benchmarks from other benchmarks (observational scaling laws, matrix completion) or size."""
    from forecast.analysis.baselines.held_out import held_out_table
    from forecast.analysis.baselines.size import size_agreement
    from forecast.inputs.published.observational_scaling import read_score_table

    table = read_score_table(file)
    wanted = list(dict.fromkeys(target or table.benchmarks))
    if unknown := [name for name in wanted if name not in table.benchmarks]:
        raise ConfigError(f"{file} has no benchmark {unknown[0]!r}; known: {', '.join(table.benchmarks)}")
    rows, sizes = [], []
    with WorkProgress(err, "families held out") as progress:
        for done, name in enumerate(wanted):
            progress.advance(done, len(wanted))
            rows += held_out_table(table, targets=[name], folds=folds, seed=seed)
            scores = table.scores[:, table.benchmarks.index(name)]
            sizes += [
                {"target": name, **asdict(size_agreement("parameters", table.parameters, scores))},
                {"target": name, **asdict(size_agreement("training FLOPs", table.flops, scores))},
            ]
    if json_:
        print_json({"table": file, "rows": [asdict(row) for row in rows], "size_alone": sizes})
        return
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        title=f"Benchmarks forecast for families held out in {folds} folds; all methods on the same models"
    )
    shown.add_column("benchmark", no_wrap=True)
    shown.add_column("from", no_wrap=True)
    for column in ("RMSE", "rho", "models", "families", "not compared"):
        shown.add_column(column, justify="right")
    shown.add_column("why not")
    last = None
    for row in rows:
        if last not in (None, row.target):
            shown.add_section()
        shown.add_row(
            Text(row.target if row.target != last else ""),
            row.method,
            _figure(row.rmse, ".3f"),
            _figure(row.spearman, "+.3f"),
            str(row.n_models),
            str(row.n_families),
            str(row.n_missing),
            Text(row.reason or ""),
        )
        last = row.target
    out.print(shown)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None or not math.isfinite(value) else format(value, form)
