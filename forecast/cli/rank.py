"""`forecast rank` between the command line and the library: its options, progress, and what it prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from forecast import api
from forecast.cli.options import All, Html, Json, one_source
from forecast.cli.scoring import ranking_of
from forecast.errors import ConfigError
from forecast.report.console import emit, err
from forecast.runs.progress import WorkProgress

if TYPE_CHECKING:  # scipy takes most of a second to import
    from forecast.analysis.ranking.held_out import HeldOutResult

ConfigPath = Annotated[
    Path | None, typer.Argument(metavar="[CONFIG]", help="A run's configuration; or --table.")
]
TablePath = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Rank from this table (CSV, JSONL, Parquet), without a configuration: columns candidate, "
        "family, task, score, then one for each feature. With --protocol known-tasks also a CSV of published "
        "benchmark scores: Model, Model Family, Model Size (B), Pretraining Data Size (T), FLOPs (1E21), "
        "then one for each benchmark.",
    ),
]
Features = Annotated[
    str | None, typer.Option(metavar="A,B", help="Features to use. Default: all columns, all 80 proxies.")
]
Baselines = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="With --table: columns that are no features but rows of their own, e.g. parameters; partial "
        "correlations are given them. A run brings its own.",
    ),
]
OverWhat = Annotated[
    Literal["auto", "tokens", "bytes"] | None,
    typer.Option(
        "--over",
        help="What a run's proxies are means over. Bytes compare between tokenizers. Default: auto, bytes "
        "where the candidates tokenize the texts in different ways, else tokens.",
    ),
]
Protocols = Annotated[
    list[str] | None,
    typer.Option(
        "--protocol",
        metavar="NAME",
        help="leave-2-tasks-out, leave-models-out, leave-families-out or known-tasks; may be repeated. "
        "Default: all.",
    ),
]
Scorers = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer",
        metavar="NAME",
        help="univariate, sparse-3, ranksvm-linear or ranksvm-rbf; may be repeated. Default: all. With "
        "--table also one FILE.json that --save wrote: it scores the candidates; no column score needed.",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of folds and resampling. Default: 0.")]
Permutations = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="For the null of each scorer. Default: 100.")
]
Bootstraps = Annotated[int | None, typer.Option(metavar="N", min=0, help="For intervals. Default: 1000.")]
Workers = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Processes. Default: one for each core.")
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="With published benchmark scores: benchmark to forecast; may be repeated. Default: each.",
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=2,
        help="With published benchmark scores: folds in which families are held out. Default: 10.",
    ),
]
NoHeldOut = Annotated[
    bool,
    typer.Option("--no-held-out", help="Single proxies only: no scorers, protocols and nulls; seconds."),
]
Save = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Save the scorer with the highest held-out rho, fitted to all cells, as JSON."
    ),
]


def rank(
    config: ConfigPath = None,
    table: TablePath = None,
    features: Features = None,
    baselines: Baselines = None,
    over: OverWhat = None,
    protocol: Protocols = None,
    scorer: Scorers = None,
    seed: Seed = None,
    permutations: Permutations = None,
    bootstraps: Bootstraps = None,
    workers: Workers = None,
    no_held_out: NoHeldOut = False,
    save: Save = None,
    target: Target = None,
    folds: Folds = None,
    html: Html = None,
    all_: All = False,
    json_: Json = False,
) -> None:
    """Rank the candidates, and say how far to trust it for models, families and tasks not seen before."""
    source = one_source(config, table)
    if saved := [name for name in scorer or () if name.endswith(".json")]:
        beside = len(scorer or ()) > 1 or html or save or features or baselines or over or target or folds
        if table is None or beside:
            raise ConfigError(f"--scorer {saved[0]} (a saved scorer) goes with --table FILE and --json alone")
        from forecast.cli.predict import predict

        predict(table, saved[0], json_)
        return
    if table is not None and _is_published(table):
        needs_features = {
            "--features": features,
            "--baselines": baselines,
            "--over": over,
            "--scorer": scorer,
            "--permutations": permutations,
            "--bootstraps": bootstraps,
            "--no-held-out": no_held_out or None,
            "--save": save,
        }
        _only_known_tasks(table, protocol, [name for name, v in needs_features.items() if v is not None])
        _benchmarks(table, target, folds, seed or 0, html, all_, json_)
        return
    if target or folds:
        raise ConfigError("--target and --folds go with --table FILE of published benchmark scores")
    if isinstance(source, str) and over is not None:
        raise ConfigError("--over goes with CONFIG; a table's features are what they are")
    if isinstance(source, str) and no_held_out:
        raise ConfigError("--no-held-out goes with CONFIG; a table is ranked by held-out figures alone")
    if isinstance(source, api.Run) and baselines is not None:
        raise ConfigError("--baselines goes with --table FILE; a run brings its own")
    given: dict[str, Any] = {
        "protocol": protocol,
        "scorer": scorer,
        "seed": seed,
        "permutations": permutations,
        "bootstraps": bootstraps,
        "workers": workers,
    }
    given = {name: value for name, value in given.items() if value is not None}
    ranked, report = None, None
    if isinstance(source, api.Run):
        if not no_held_out:
            given["features"] = _names(features)
        ranked = ranking_of(source, over or "auto", not no_held_out, **given)
        report = ranked.evaluated
    else:
        with WorkProgress(err, "scorers and their nulls") as progress:
            given["on_progress"] = progress.advance
            report = api.rank_table(str(table), _names(features), _names(baselines) or (), **given)
    if save is not None:
        _save(report, save)
    name = table or str(config)
    from forecast.analysis.ranking.report import document

    emit(
        lambda: document(name, ranked.ranking if ranked else None, report),
        lambda: _record(report, ranked, name),
        as_json=json_,
        html=html,
        everything=all_,
        failed=ranked.failed if ranked else (),
    )


def _is_published(table: str) -> bool:
    from forecast.inputs.published.observational_scaling import is_score_table

    return is_score_table(table)


def _only_known_tasks(table: str, protocols: list[str] | None, options: list[str]) -> None:
    """Raises: ConfigError: a protocol or one of `options` needs features."""
    from forecast.analysis.ranking.splits import KNOWN_TASKS

    if options or set(protocols or ()) != {KNOWN_TASKS}:
        raise ConfigError(
            f"{table} has benchmark scores and no features: only --protocol {KNOWN_TASKS} can be evaluated"
            + (f", and {options[0]} needs features" if options else "")
        )


def _benchmarks(
    path: str,
    targets: list[str] | None,
    folds: int | None,
    seed: int,
    html: str | None,
    all_: bool,
    as_json: bool,
) -> None:
    """Benchmarks from other benchmarks: the document or JSON on standard output."""
    from forecast.analysis.baselines.report import document

    given = {} if folds is None else {"folds": folds}
    with WorkProgress(err, "families held out") as progress:
        result = api.forecast_benchmarks(
            path, target=targets or (), **given, seed=seed, on_progress=progress.advance
        )
    emit(
        lambda: document(path, result),
        lambda: {"table": path, **result.as_record()},
        as_json=as_json,
        html=html,
        everything=all_,
    )


def _save(report: "HeldOutResult | None", path: Path) -> None:
    from forecast.analysis.ranking.scorers.registry import save as save_scorer

    if report is None or report.fitted is None:
        raise ConfigError("no scorer can be fitted, so there is none to save; see the warnings")
    save_scorer(report.fitted, path)


def _record(report: "HeldOutResult | None", ranked: api.RunRanking | None, name: str) -> dict[str, Any]:
    from forecast.analysis.ranking.held_out_report import report_record

    held_out = None if report is None else report_record(report, name)
    return held_out or {} if ranked is None else {**ranked.as_record(), "held_out": held_out}


def _names(text: str | None) -> list[str] | None:
    """Of a list with commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
