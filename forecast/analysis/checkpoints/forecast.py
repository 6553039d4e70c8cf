"""Forecasts of all runs of a table: metrics resolved, every run forecast, rows compared and summarised."""

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from forecast.analysis.checkpoints.forecast_run import CheckpointsOptions, RunForecast, forecast_run
from forecast.analysis.checkpoints.lr_breaks import suspected_breaks
from forecast.analysis.checkpoints.methods import METHOD, METHODS, Key
from forecast.analysis.checkpoints.results import ForecastRow, failed_rows, rows_of
from forecast.analysis.checkpoints.run_decisions import Duel, Keep, RunDecisions, Stop, decide
from forecast.analysis.checkpoints.summary import SummaryRow, summarise, verdicts
from forecast.analysis.checkpoints.training_runs import Run, Runs
from forecast.errors import InputError, NoDataError, did_you_mean
from forecast.report.records import frame_of, frame_with

if TYPE_CHECKING:
    from forecast.report.document import Document

# Names of the cross-entropy of generic texts, tried in this order where none is given.
GENERIC = ("cross_entropy", "cross_entropy_loss", "crossentropyloss", "ce", "loss", "nll", "validation_loss")

_SHOWN = 10  # failures in one message


@dataclass(frozen=True)
class CheckpointsResult:
    """Forecasts of all runs of a table.

    Attributes:
        options: what was asked for; `loss` is the metric that was found.
        runs: what each forecast was made from, later checkpoints included.
        failed: run, task, error.
    """

    options: CheckpointsOptions
    axis: str
    forecasts: tuple[RunForecast, ...]
    runs: tuple[Run, ...]
    rows: tuple[ForecastRow, ...]
    summary: tuple[SummaryRow, ...]
    verdicts: tuple[str, ...]
    decisions: RunDecisions
    warnings: tuple[str, ...]
    failed: tuple[dict[str, str], ...]

    def report(self, source: str = "table") -> "Document":
        """`.save("report.html")`, and HTML in a notebook; `source` names the data in the title."""
        from forecast.analysis.checkpoints.report import document

        return document(self, source, members=True)

    def frames(self) -> dict[str, pl.DataFrame]:
        """`forecasts`, `summary`, `weights`, `duels`, `stops`, `keeps` and `failed`, a row each."""
        weights = "run:s member:s method:s proxy:s about:s weight:f relative_squared_error:f"
        return {
            "forecasts": frame_of(self.rows, ForecastRow),
            "summary": frame_of(self.summary, SummaryRow),
            "weights": frame_with((row for made in self.forecasts for row in _weights(made)), weights),
            "duels": frame_of(self.decisions.duels, Duel),
            "stops": frame_of(self.decisions.stops, Stop),
            "keeps": frame_of(self.decisions.keeps, Keep),
            "failed": pl.DataFrame(self.failed, dict.fromkeys(("run", "task", "error"), pl.String())),
        }


def _weights(forecast: RunForecast) -> list[tuple[Any, ...]]:
    """The members' weights, the largest first."""
    made = forecast.combination
    return [
        (forecast.run, str(key), *astuple(key), METHOD[key.method].about, weight, made.errors.get(key))
        for key, weight in sorted(made.weights.items(), key=lambda item: -item[1])
    ]


def forecast_checkpoints(
    table: Runs,
    options: CheckpointsOptions,
    *,
    members: bool = True,
    on_cost: Callable[[float, float], None] | None = None,
) -> CheckpointsResult:
    """Forecast every run of a table.

    Args:
        members: also rows of the combination's members.
        on_cost: called with how much is done, and of how much.

    Raises:
        InputError: a metric that no run has.
        NoDataError: no run has enough checkpoints up to `fit_until`.
    """
    _check_metric(table, options.target, "target")
    for proxy in options.proxies:
        _check_metric(table, proxy, "proxy")
    loss = _loss_metric(table, options)
    _check_chance(table, options)
    warnings = [*table.warnings, *_window_warnings(table, options)]
    warnings += [_loss_words(table, options, loss)] if options.loss is None else []
    options = replace(options, loss=loss)
    with_target = [_only_loss_task(run, options) for run in table.runs if run.of(options.target)]
    keys = [Key(m.name) for m in METHODS if m.kind != "member" or members]
    forecasts, rows, failed = [], [], []
    for place, run in enumerate(with_target):

        def done(part: int, of: int, place: int = place) -> None:
            if on_cost is not None:
                on_cost(place + part / of, len(with_target))

        found = forecast_run(run, options, done)
        forecasts.append(found)
        rows += [*rows_of(run, found, options, members), *failed_rows(found, options, keys)]
        failed += [{"run": run.name, "task": task, "error": why} for task, why in found.failed.items()]
        warnings += _run_warnings(run, found, options)
    if not any(found.tasks for found in forecasts):
        raise NoDataError(
            "nothing can be forecast:\n"
            + "\n".join(f"run {f['run']}, task {f['task']}: {f['error']}" for f in failed[:_SHOWN])
            + (f"\n... and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else "")
        )
    macros = [found.macro for found in forecasts if found.macro is not None]
    summary = summarise(rows, macros, options.confidence)
    return CheckpointsResult(
        options,
        table.runs[0].axis,
        tuple(forecasts),
        tuple(with_target),
        tuple(rows),
        tuple(summary),
        tuple(verdicts(summary)),
        decide(forecasts, options),
        tuple(dict.fromkeys(warnings)),
        tuple(failed),
    )


def _tasks(table: Runs, metric: str) -> list[str]:
    return sorted({task for run in table.runs for task in run.of(metric)})


def _check_metric(table: Runs, name: str, role: str) -> None:
    known = sorted({metric for run in table.runs for metric in run.metrics})
    if name not in known:
        raise InputError(
            f"no metric {name!r} in the table, asked for as --{role}; {did_you_mean(name, known)}"
        )


def _loss_metric(table: Runs, options: CheckpointsOptions) -> str | None:
    if options.loss is not None:
        _check_metric(table, options.loss, "cross-entropy")
        if options.loss_task is not None:
            texts = _tasks(table, options.loss)
            if options.loss_task not in texts:
                raise InputError(
                    f"no task {options.loss_task!r} has {options.loss!r}; "
                    f"{did_you_mean(options.loss_task, texts)}"
                )
        return options.loss
    named = {metric.lower(): metric for run in table.runs for metric in run.metrics}
    targets = set(_tasks(table, options.target))

    def generic(metric: str) -> bool:
        return metric != options.target and (
            metric not in options.proxies or not targets.issuperset(_tasks(table, metric))
        )

    return next((named[name] for name in GENERIC if name in named and generic(named[name])), None)


def _loss_words(table: Runs, options: CheckpointsOptions, loss: str | None) -> str:
    if loss is None:
        return (
            "no metric is the cross-entropy of generic texts (--cross-entropy METRIC names one): "
            "the two-step baselines are null"
        )
    tasks, targets = _tasks(table, loss), _tasks(table, options.target)
    generic = [task for task in tasks if task not in targets] or tasks
    return f"cross-entropy of generic texts: {loss} of {', '.join(generic)} (their mean)"


def _only_loss_task(run: Run, options: CheckpointsOptions) -> Run:
    if options.loss_task is None:
        return run
    kept = {k: s for k, s in run.series.items() if k[1] != options.loss or k[0] == options.loss_task}
    return replace(run, series=kept)


def _check_chance(table: Runs, options: CheckpointsOptions) -> None:
    tasks = _tasks(table, options.target)
    for task in options.chance:
        if task not in tasks:
            raise InputError(f"--chance {task}: no such task; {did_you_mean(task, tasks)}")


def _window_warnings(table: Runs, options: CheckpointsOptions) -> list[str]:
    found = []
    for run in table.runs:
        steps = [float(s.step[-1]) for s in run.of(options.target).values()]
        if not steps:
            found.append(f"run {run.name}: no {options.target}, left out")
        elif max(steps) < options.fit_until:
            found.append(
                f"run {run.name} ends at step {max(steps):g}, before --fit-until {options.fit_until:g}: "
                "all of it is the window, horizons count from its end, and there is nothing to compare with"
            )
    return found


def _run_warnings(run: Run, found: RunForecast, options: CheckpointsOptions) -> list[str]:
    warnings: list[str] = []
    if not found.tasks:
        return warnings
    weak = [task for task, own in found.tasks.items() if own.left_out]
    if weak:
        warnings.append(
            f"run {run.name}: {len(weak)} of {len(found.tasks) - (found.macro is not None)} tasks show too "
            f"little up to step {options.fit_until:g} (no change beyond noise), are forecast by their level "
            f"now and left out of macro and summary: {', '.join(weak)}"
        )
    if any(s.step[0] == 0 for s in run.of(options.target).values() if len(s.step)):
        warnings.append(f"run {run.name}: step 0 is not fitted, it has no place on a logarithmic axis")
    if not found.origins:
        warnings.append(
            f"run {run.name}: too few checkpoints for rolling origins, so the combination has its prior "
            "weights and intervals come from noise and the members' spread alone"
        )
    unproxied = [
        task
        for task, own in found.tasks.items()
        if options.proxies
        and task != found.macro
        and own.left_out is None
        and not any(task in p for p in found.window.proxies.values())
    ]
    if unproxied:
        warnings.append(
            f"run {run.name}: no {' or '.join(dict.fromkeys(options.proxies))} for {', '.join(unproxied)}: "
            "their proxy rows are null, their combination is of the other members"
        )
    for step in suspected_breaks(found, options):
        warnings.append(
            f"run {run.name}: the curves bend sharply near step {step:g}; if the learning-rate schedule "
            "breaks there, "
            f"say --break {step:g}"
        )
    return warnings
