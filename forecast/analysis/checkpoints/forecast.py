"""Forecasts of all runs of a table: metrics resolved, every run forecast, rows compared and summarised."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from forecast.analysis.checkpoints.forecast_run import CheckpointsOptions, RunForecast, forecast_run
from forecast.analysis.checkpoints.lr_breaks import suspected_break
from forecast.analysis.checkpoints.methods import METHOD
from forecast.analysis.checkpoints.results import ForecastRow, rows_of
from forecast.analysis.checkpoints.run_decisions import Duel, Keep, RunDecisions, Stop, decide
from forecast.analysis.checkpoints.summary import SummaryRow, summarise, verdicts
from forecast.analysis.checkpoints.training_runs import Run, Runs
from forecast.errors import ConfigError, NoDataError, did_you_mean
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
    on_cost: Callable[[float, float], None] | None = None,
) -> CheckpointsResult:
    """Forecast every run of a table.

    Args:
        on_cost: called with how much is done, and of how much.

    Raises:
        ConfigError: a metric that no run has.
        NoDataError: no run has enough checkpoints up to `fit_until`.
    """
    for name, role in ((options.target, "target"), *((proxy, "proxy") for proxy in options.proxies)):
        _check(name, table.metrics, f"no metric {name!r} in the table, asked for as --{role}")
    for task in options.chance:
        _check(task, table.tasks(options.target), f"--chance {task}: no such task")
    loss = _loss_metric(table, options)
    warnings = [*table.warnings, *_window_warnings(table, options)]
    warnings += [_loss_words(table, options, loss)] if options.loss is None else []
    options = replace(options, loss=loss)
    with_target = [_only_loss_task(run, options) for run in table.runs if run.of(options.target)]
    forecasts, rows, failed = [], [], []
    for place, run in enumerate(with_target):

        def done(part: int, of: int, place: int = place) -> None:
            if on_cost is not None:
                on_cost(place + part / of, len(with_target))

        found = forecast_run(run, options, done)
        forecasts.append(found)
        rows += rows_of(run, found, options)
        failed += [{"run": run.name, "task": task, "error": why} for task, why in found.failed.items()]
        warnings += _run_warnings(found, run, options)
    if not any(found.tasks for found in forecasts):
        raise NoDataError(
            "nothing can be forecast:\n"
            + "\n".join(failure_text(failure) for failure in failed[:_SHOWN])
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


def failure_text(failure: Mapping[str, str]) -> str:
    """One of `CheckpointsResult.failed` on a line."""
    return f"run {failure['run']}, task {failure['task']}: {failure['error']}"


def _check(name: str, known: Sequence[str], message: str) -> None:
    if name not in known:
        raise ConfigError(f"{message}; {did_you_mean(name, known)}")


def _loss_metric(table: Runs, options: CheckpointsOptions) -> str | None:
    if (loss := options.loss) is not None:
        _check(loss, table.metrics, f"no metric {loss!r} in the table, asked for as --cross-entropy")
        if (text := options.loss_task) is not None:
            _check(text, table.tasks(loss), f"no task {text!r} has {loss!r}")
        return loss
    named = {metric.lower(): metric for run in table.runs for metric in run.metrics}
    targets = set(table.tasks(options.target))

    def generic(metric: str) -> bool:
        return metric != options.target and (
            metric not in options.proxies or not targets.issuperset(table.tasks(metric))
        )

    return next((named[name] for name in GENERIC if name in named and generic(named[name])), None)


def _loss_words(table: Runs, options: CheckpointsOptions, loss: str | None) -> str:
    if loss is None:
        return (
            "no metric is the cross-entropy of generic texts (--cross-entropy METRIC names one): "
            "the two-step baselines are null"
        )
    tasks, targets = table.tasks(loss), table.tasks(options.target)
    generic = [task for task in tasks if task not in targets] or tasks
    return f"cross-entropy of generic texts: {loss} of {', '.join(generic)} (their mean)"


def _only_loss_task(run: Run, options: CheckpointsOptions) -> Run:
    if options.loss_task is None:
        return run
    kept = {k: s for k, s in run.series.items() if k[1] != options.loss or k[0] == options.loss_task}
    return replace(run, series=kept)


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


def _run_warnings(found: RunForecast, run: Run, options: CheckpointsOptions) -> list[str]:
    if not found.tasks:
        return []
    warnings = []
    weak = [task for task, own in found.tasks.items() if own.left_out]
    if weak:
        warnings.append(
            f"{len(weak)} of {len(found.window.targets)} tasks show too little up to step "
            f"{options.fit_until:g} (no change beyond noise), are forecast by their level now and left out "
            f"of macro and summary: {', '.join(weak)}"
        )
    if any(s.step[0] == 0 for s in run.of(options.target).values()):
        warnings.append("step 0 is not fitted, it has no place on a logarithmic axis")
    if not found.origins:
        warnings.append(
            "too few checkpoints for rolling origins, so the combination has its prior weights and intervals "
            "come from noise and the members' spread alone"
        )
    proxied = {task for by_task in found.window.proxies.values() for task in by_task}
    unproxied = [task for task in found.with_signal if task not in proxied]
    if options.proxies and unproxied:
        warnings.append(
            f"no {' or '.join(dict.fromkeys(options.proxies))} for {', '.join(unproxied)}: their proxy rows "
            "are null, their combination is of the other members"
        )
    if (step := suspected_break(found)) is not None:
        warnings.append(
            f"the curves bend sharply near step {step:g}; if the learning-rate schedule breaks there, say "
            f"--break {step:g}"
        )
    return [f"run {run.name}: {text}" for text in warnings]
