"""Forecasts of all runs of a table: metrics resolved, every run forecast, rows compared and summarised."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from forecast.analysis.checkpoints.forecast_run import RunForecast, Settings, forecast_run
from forecast.analysis.checkpoints.lr_breaks import suspected_breaks
from forecast.analysis.checkpoints.methods import METHODS, Key
from forecast.analysis.checkpoints.results import Row, failed_rows, rows_of
from forecast.analysis.checkpoints.run_decisions import Decisions, decide
from forecast.analysis.checkpoints.summary import Line, summarise, verdicts
from forecast.analysis.checkpoints.training_runs import Run, Runs
from forecast.errors import InputError, NoDataError, did_you_mean

# Metrics that are taken as the cross-entropy of generic texts where none is named.
GENERIC = ("cross_entropy", "cross_entropy_loss", "crossentropyloss", "ce", "loss", "nll", "validation_loss")

_SHOWN = 10  # failures in one message


@dataclass(frozen=True)
class Question:
    """What a user asks; see the options of `forecast extrapolate`."""

    target: str
    proxies: tuple[str, ...]
    fit_until: float
    loss: str | None = None
    loss_task: str | None = None
    horizons: tuple[float, ...] = (2.0, 4.0, 8.0, 18.0)
    chance: Mapping[str, float] = field(default_factory=dict)
    breaks: tuple[float, ...] = ()
    confidence: float = 0.9
    min_gain: float = 0.01  # accuracy; below it going on is not worth it


@dataclass(frozen=True)
class Report:
    """Everything that is printed, written and answered."""

    question: Question
    settings: Settings
    axis: str
    loss: str | None
    forecasts: tuple[RunForecast, ...]
    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    summary: tuple[Line, ...]
    verdicts: tuple[str, ...]
    decisions: Decisions
    warnings: tuple[str, ...]
    failed: tuple[dict[str, str], ...]  # run, task, error


def report_of(
    table: Runs,
    question: Question,
    *,
    members: bool = True,
    on_cost: Callable[[float, float], None] | None = None,
) -> Report:
    """Forecast every run of a table.

    Args:
        members: also rows of the combination's members.
        on_cost: is told how much is done, of how much.

    Raises:
        InputError: a metric that no run has.
        NoDataError: no run has enough checkpoints up to `fit_until`.
    """
    _check_metric(table, question.target, "target")
    for proxy in question.proxies:
        _check_metric(table, proxy, "proxy")
    loss = _loss_metric(table, question)
    settings = Settings(
        question.target,
        tuple(dict.fromkeys(question.proxies)),
        question.fit_until,
        loss,
        question.horizons,
        question.chance,
        question.breaks,
        question.confidence,
    )
    _check_chance(table, settings)
    warnings = [*table.warnings, *_window_warnings(table, question)]
    warnings += [_loss_words(table, question, loss)] if question.loss is None else []
    forecasts, rows, failed, shown = [], [], [], []
    with_target = [run for run in table.runs if run.of(question.target)]
    for place, run in enumerate(with_target):

        def done(part: int, of: int, place: int = place) -> None:
            if on_cost is not None:
                on_cost(place + part / of, len(with_target))

        seen = _only_loss_task(run, loss, question.loss_task)
        found = forecast_run(seen, settings, done)
        forecasts.append(found)
        shown.append(seen)
        singles = [Key(m.name) for m in METHODS if m.kind != "member" or members]
        rows += [*rows_of(seen, found, settings, members), *failed_rows(found, settings, singles)]
        failed += [{"run": run.name, "task": task, "error": why} for task, why in found.failed.items()]
        warnings += _run_warnings(seen, found, settings)
    if not any(found.tasks for found in forecasts):
        raise NoDataError(
            "nothing can be forecast:\n"
            + "\n".join(f"run {f['run']}, task {f['task']}: {f['error']}" for f in failed[:_SHOWN])
            + (f"\n... and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else "")
        )
    macros = [found.macro for found in forecasts if found.macro is not None]
    lines = summarise(rows, macros, question.confidence)
    return Report(
        question,
        settings,
        table.runs[0].axis,
        loss,
        tuple(forecasts),
        tuple(shown),
        tuple(rows),
        tuple(lines),
        tuple(verdicts(lines)),
        decide(forecasts, settings, question.min_gain),
        tuple(dict.fromkeys(warnings)),
        tuple(failed),
    )


def _check_metric(table: Runs, name: str, role: str) -> None:
    known = sorted({metric for run in table.runs for metric in run.metrics})
    if name not in known:
        raise InputError(
            f"no metric {name!r} in the table, asked for as --{role}; {did_you_mean(name, known)}"
        )


def _loss_metric(table: Runs, question: Question) -> str | None:
    if question.loss is not None:
        _check_metric(table, question.loss, "cross-entropy")
        if question.loss_task is not None:
            texts = sorted({task for run in table.runs for task in run.of(question.loss)})
            if question.loss_task not in texts:
                raise InputError(
                    f"no task {question.loss_task!r} has {question.loss!r}; "
                    f"{did_you_mean(question.loss_task, texts)}"
                )
        return question.loss
    named = {metric.lower(): metric for run in table.runs for metric in run.metrics}
    targets = {task for run in table.runs for task in run.of(question.target)}

    def generic(metric: str) -> bool:
        texts = {task for run in table.runs for task in run.of(metric)}
        return metric != question.target and (metric not in question.proxies or bool(texts - targets))

    return next((named[name] for name in GENERIC if name in named and generic(named[name])), None)


def _loss_words(table: Runs, question: Question, loss: str | None) -> str:
    if loss is None:
        return (
            "no metric is the cross-entropy of generic texts (--cross-entropy METRIC names one): "
            "the two-step baselines are null"
        )
    tasks = sorted({task for run in table.runs for task in run.of(loss)})
    targets = {task for run in table.runs for task in run.of(question.target)}
    generic = [task for task in tasks if task not in targets] or tasks
    return f"cross-entropy of generic texts: {loss} of {', '.join(generic)} (their mean)"


def _only_loss_task(run: Run, loss: str | None, task: str | None) -> Run:
    if task is None:
        return run
    return replace(run, series={k: s for k, s in run.series.items() if k[1] != loss or k[0] == task})


def _check_chance(table: Runs, settings: Settings) -> None:
    tasks = sorted({task for run in table.runs for task in run.of(settings.target)})
    for task in settings.chance:
        if task not in tasks:
            raise InputError(f"--chance {task}: no such task; {did_you_mean(task, tasks)}")


def _window_warnings(table: Runs, question: Question) -> list[str]:
    found = []
    for run in table.runs:
        steps = [float(s.step[-1]) for s in run.of(question.target).values()]
        if not steps:
            found.append(f"run {run.name}: no {question.target}, left out")
        elif max(steps) < question.fit_until:
            found.append(
                f"run {run.name} ends at step {max(steps):g}, before --fit-until {question.fit_until:g}: "
                "all of it "
                "is the window, horizons count from its end, and there is nothing to compare with"
            )
    return found


def _run_warnings(run: Run, found: RunForecast, settings: Settings) -> list[str]:
    warnings: list[str] = []
    if not found.tasks:
        return warnings
    weak = [task for task, own in found.tasks.items() if own.left_out]
    if weak:
        warnings.append(
            f"run {run.name}: {len(weak)} of {len(found.tasks) - (found.macro is not None)} tasks show too "
            f"little up to step {settings.fit_until:g} (no change beyond noise), are forecast by their level "
            "now "
            f"and left out of macro and summary: {', '.join(weak)}"
        )
    if any(s.step[0] == 0 for s in run.of(settings.target).values() if len(s.step)):
        warnings.append(f"run {run.name}: step 0 is not fitted, it has no place on a logarithmic axis")
    if not found.origins:
        warnings.append(
            f"run {run.name}: too few checkpoints for rolling origins, so the combination has its prior "
            "weights and "
            "intervals come from noise and the members' spread alone"
        )
    unproxied = [
        task
        for task, own in found.tasks.items()
        if settings.proxies
        and task != found.macro
        and own.left_out is None
        and not any(task in p for p in found.window.proxies.values())
    ]
    if unproxied:
        warnings.append(
            f"run {run.name}: no {' or '.join(settings.proxies)} for {', '.join(unproxied)}: their proxy "
            "rows are null, their combination is of the other members"
        )
    for step in suspected_breaks(found, settings):
        warnings.append(
            f"run {run.name}: the curves bend sharply near step {step:g}; if the learning-rate schedule "
            "breaks there, "
            f"say --break {step:g}"
        )
    return warnings
