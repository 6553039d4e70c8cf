"""`forecast extrapolate`: its options, and what it prints."""

from pathlib import Path
from typing import Annotated

import typer

from forecast import api
from forecast.cli.options import All, Confidence, Html, Json, one_source
from forecast.report.console import emit, err
from forecast.runs.progress import WorkProgress

EPILOG = (
    "Example: forecast extrapolate --table RUN.csv --proxy bits_per_byte --target accuracy --fit-until 50000"
)


def extrapolate(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG]", help="Configuration whose candidates have a `step`; or use --table."
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Forecast from this table (CSV, JSONL, Parquet), without a configuration: columns run, "
            "step, tokens, task, metric, value.",
        ),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC",
            help="Proxy metric for two-step forecasts; may be repeated, then rolling origins choose one. "
            "Default with CONFIG: cross_entropy__uniform; with --table: none.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="Metric to forecast, an accuracy within 0..1. Required with --table. Default with CONFIG: "
            "the most frequent measured score.",
        ),
    ] = None,
    fit_until: Annotated[
        float | None,
        typer.Option(metavar="STEP", min=0, help="Last step that fits may use. Default: the last one."),
    ] = None,
    horizon: Annotated[
        list[float] | None,
        typer.Option(
            metavar="H",
            help="Horizon in lengths of the window, above 1; may be repeated. Default: 2, 4, 8, 18; of a "
            "watched run with a `final_step` those before it, and that.",
        ),
    ] = None,
    cross_entropy: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC[:TASK]",
            help="Cross-entropy of generic texts, for the two-step baselines: the mean over its tasks, or "
            "TASK alone. Default: a metric called cross_entropy or loss.",
        ),
    ] = None,
    chance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=P",
            help="Chance level of a task, 0 to below 1, e.g. arc_easy=0.25; may be repeated. Default: "
            "unknown; forecasts of direct evaluation are never below guessing all the same.",
        ),
    ] = None,
    axis: Annotated[
        str | None,
        typer.Option(
            help="Unit of training time t: steps, tokens or flops. Default: tokens where all rows have them, "
            "else steps."
        ),
    ] = None,
    break_: Annotated[
        list[float] | None,
        typer.Option(
            "--break",
            metavar="STEP",
            help="Step at which the learning-rate schedule breaks (annealing): fits begin at the last break "
            "in the window, and are compared with checkpoints before the next one. May be repeated. Default: "
            "none.",
        ),
    ] = None,
    confidence: Confidence = 0.9,
    min_gain: Annotated[
        float,
        typer.Option(
            metavar="ACC", min=0, help="Smallest gain in accuracy that makes continuing a run worth it."
        ),
    ] = 0.01,
    members: Annotated[
        bool, typer.Option("--members", help="Also show every member of the combined forecast.")
    ] = False,
    html: Html = None,
    all_: All = False,
    json_: Json = False,
) -> None:
    """Forecast a training run from its first checkpoints, with confidence intervals."""
    source = one_source(config, table)
    with WorkProgress(err, "fits at rolling origins") as progress:
        result = api.forecast_checkpoints(
            source,
            proxy=proxy or (),
            target=target,
            fit_until=fit_until,
            horizon=horizon or (),
            cross_entropy=cross_entropy,
            chance=chance or (),
            axis=axis,
            break_=break_ or (),
            confidence=confidence,
            min_gain=min_gain,
            on_progress=progress.advance,
        )
    from forecast.analysis.checkpoints.report import document, record

    name = table or str(config)
    emit(
        lambda: document(result, name, members),
        lambda: record(result, name, members),
        as_json=json_,
        html=html,
        everything=all_ or members,
        failed=[{"error": f"run {f['run']}, task {f['task']}: {f['error']}"} for f in result.failed],
        html_document=lambda: result.report(name),
    )
