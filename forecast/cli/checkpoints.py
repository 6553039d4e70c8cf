"""`forecast extrapolate` between the command line and the library: options, progress, what it prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forecast.cli.options import Html, Json, load_config, one_source
from forecast.errors import ConfigError
from forecast.report.console import emit, err, leave
from forecast.runs.progress import WorkProgress

if TYPE_CHECKING:  # scipy takes most of a second to import
    from forecast.analysis.checkpoints.training_runs import Runs

ConfigPath = Annotated[
    Path | None,
    typer.Argument(metavar="[CONFIG]", help="Configuration whose candidates have a `step`; or use --table."),
]
TablePath = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Forecast from this table (CSV, JSONL, Parquet), without a configuration: columns run, step, "
        "tokens, task, metric, value.",
    ),
]
Proxy = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METRIC",
        help="Proxy metric for two-step forecasts; may be repeated, then rolling origins choose one. "
        "Default with CONFIG: cross_entropy__uniform; with --table: none.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="METRIC",
        help="Metric to forecast, an accuracy within 0..1. Required with --table. Default with CONFIG: the "
        "most frequent measured score.",
    ),
]
FitUntil = Annotated[
    float | None,
    typer.Option(metavar="STEP", min=0, help="Last step that fits may use. Default: the last one."),
]
Horizon = Annotated[
    list[float] | None,
    typer.Option(
        metavar="H", help="Horizon in lengths of the window, above 1; may be repeated. Default: 2, 4, 8, 18."
    ),
]
CrossEntropy = Annotated[
    str | None,
    typer.Option(
        metavar="METRIC[:TASK]",
        help="Cross-entropy of generic texts, for the two-step baselines: the mean over its tasks, or TASK "
        "alone. Default: a metric called cross_entropy or loss.",
    ),
]
Chance = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK=P",
        help="Chance level of a task, 0 to below 1, e.g. arc_easy=0.25; may be repeated. Default: unknown.",
    ),
]
Axis = Annotated[
    str | None,
    typer.Option(
        help="Unit of training time t: steps, tokens or flops. Default: tokens where all rows have them, "
        "else steps."
    ),
]
Break = Annotated[
    list[float] | None,
    typer.Option(
        "--break",
        metavar="STEP",
        help="Step at which the learning-rate schedule breaks (annealing): fits begin at the last break in "
        "the window, and are compared with checkpoints before the next one. May be repeated. Default: none.",
    ),
]
Confidence = Annotated[
    float, typer.Option(min=0.5, max=0.999, help="Confidence level of reported intervals.")
]
MinGain = Annotated[
    float,
    typer.Option(
        metavar="ACC", min=0, help="Smallest gain in accuracy that makes continuing a run worth it."
    ),
]
Members = Annotated[bool, typer.Option("--members", help="Also show every member of the combined forecast.")]

DEFAULT_PROXY = "cross_entropy__uniform"
EPILOG = (
    "Example: forecast extrapolate --table RUN.csv --proxy bits_per_byte --target accuracy --fit-until 50000"
)


def extrapolate(
    config: ConfigPath = None,
    table: TablePath = None,
    proxy: Proxy = None,
    target: Target = None,
    fit_until: FitUntil = None,
    horizon: Horizon = None,
    cross_entropy: CrossEntropy = None,
    chance: Chance = None,
    axis: Axis = None,
    break_: Break = None,
    confidence: Confidence = 0.9,
    min_gain: MinGain = 0.01,
    members: Members = False,
    html: Html = None,
    json_: Json = False,
) -> None:
    """Forecast a training run from its first checkpoints, with confidence intervals."""
    one_source(config, table)
    if table is not None and target is None:
        raise ConfigError("--table needs --target METRIC, the accuracy to forecast")
    levels = _chance_levels(chance or [])
    if bad := [h for h in horizon or [] if not h > 1]:
        raise ConfigError(f"--horizon {bad[0]:g}: expected more than 1, in lengths of the window")
    from forecast.analysis.checkpoints.forecast import failure_text, forecast_checkpoints
    from forecast.analysis.checkpoints.forecast_run import CheckpointsOptions
    from forecast.analysis.checkpoints.report import document, record

    if table is not None:
        from forecast.analysis.checkpoints.training_runs import read_runs

        assert target is not None  # checked above
        with err.status("reading the table"):
            runs = read_runs(table, (target,), axis)
        proxies = tuple(proxy or ())
    else:
        assert config is not None  # checked above
        runs, target = _of_run(config, target, axis)
        proxies = tuple(proxy or (DEFAULT_PROXY,))
    metric, _, text = (cross_entropy or "").partition(":")
    options = CheckpointsOptions(
        target=target,
        proxies=proxies,
        fit_until=runs.last_step if fit_until is None else fit_until,
        loss=metric or None,
        loss_task=text or None,
        horizons=tuple(sorted(set(horizon))) if horizon else CheckpointsOptions.horizons,
        chance=levels,
        breaks=tuple(sorted(set(break_ or ()))),
        confidence=confidence,
        min_gain=min_gain,
    )
    with WorkProgress(err, "fits at rolling origins") as progress:
        result = forecast_checkpoints(runs, options, on_cost=progress.advance)
    source = table or str(config)
    emit(
        lambda: document(result, source, members),
        lambda: record(result, source, members),
        as_json=json_,
        html=html,
        failed=[{"error": failure_text(failure)} for failure in result.failed],
        html_document=lambda: document(result, source, members=True),
    )
    leave(bool(result.failed))


def _of_run(config: Path, target: str | None, axis: str | None) -> "tuple[Runs, str]":
    from forecast.analysis.checkpoints.runs_from_run import runs_of
    from forecast.warehouse.connect import open_warehouse

    loaded = load_config(config)
    with err.status("reading the warehouse"), open_warehouse(loaded.output) as db:
        return runs_of(db, target, axis)


def _chance_levels(given: list[str]) -> dict[str, float]:
    levels = {}
    for text in given:
        task, _, number = text.rpartition("=")
        try:
            level = float(number)
        except ValueError:
            level = -1.0
        if not task or not 0 <= level < 1:
            raise ConfigError(
                f"--chance {text!r}: expected TASK=P with P from 0 to below 1, e.g. arc_easy=0.25"
            )
        levels[task] = level
    return levels
