"""The report of `forecast extrapolate`: the document, and the JSON with the same figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from forecast.analysis.checkpoints.charts import error_chart, task_chart
from forecast.analysis.checkpoints.forecast import CheckpointsResult
from forecast.analysis.checkpoints.forecast_run import RunForecast
from forecast.analysis.checkpoints.methods import COMBINED, METHODS, Method
from forecast.analysis.checkpoints.summary import ALL_RUNS, SummaryRow
from forecast.analysis.checkpoints.training_runs import Run
from forecast.report.document import Chart, Column, Document, Paragraph, Part, Section, Table, Warning
from forecast.report.format import MISSING, PERCENT, Format, fixed, interval, is_missing
from forecast.report.records import frame_of, record_of

_MOST_PANELS = 30
_ACCURACY = fixed(4)
_STEP = Format(lambda step: f"{step:,.0f}", d3=",.0f")
_STEPS = Format(lambda steps: ", ".join(f"{step:,.0f}" for step in steps) or MISSING, right=False)
_HORIZON = Format(lambda horizon: f"{horizon:.3g}x", d3=".3~g")
_SKILL = fixed(2, signed=True)
_SKILL_INTERVAL = interval(2, signed=True)


def _forecast_text(predicted: float, lower: float | None, upper: float | None, actual: float | None) -> str:
    ends = "" if is_missing(lower) else f" {lower:.3f}..{upper:.3f}"
    return f"{predicted:.3f}{ends}" + ("" if is_missing(actual) else f" ({actual:.3f})")


_FORECAST = Format(_forecast_text)

_SKILL_HELP = "1 - RMSE / RMSE of the best baseline, selected post hoc; its interval is over tasks."
_ERRORS = (
    Column("method", "method"),
    Column("kind", "kind"),
    Column("horizon", "horizon", _HORIZON, "Training so far / training up to the end of the window."),
    Column("n", "tasks", help="Tasks with signal on which every method has an error."),
    Column("rmse", "RMSE", _ACCURACY, "Over all checkpoints up to the horizon, mean over tasks."),
    Column("error_at_horizon", "|error| at horizon", _ACCURACY, "Mean over tasks of |predicted - actual|."),
    Column(
        "covered_at_horizon",
        "in the interval at horizon",
        PERCENT,
        "Share of tasks whose checkpoint at the horizon is inside.",
    ),
    Column(
        "covered",
        "up to it",
        PERCENT,
        "Share of all checkpoints after the window and up to the horizon that are inside.",
    ),
    Column("skill", "skill", _SKILL, _SKILL_HELP),
    Column("skill_low", "interval of skill", _SKILL_INTERVAL, also=("skill_high",)),
)
_FORECASTS = (
    Column("task", "task"),
    Column("horizon", "horizon", _HORIZON),
    Column("step", "step", _STEP),
    Column("predicted", "forecast", _ACCURACY),
    Column("lower", "interval", interval(4), "For a single checkpoint, noise included.", also=("upper",)),
    Column("actual", "actual", _ACCURACY, "At the checkpoint nearest to the horizon, within 5 %."),
    Column("rmse", "RMSE", _ACCURACY, "Over all checkpoints after the window, up to the horizon."),
    Column("note", "note"),
)
_WEIGHTS = (
    Column("member", "member"),
    Column("weight", "weight", fixed(3)),
    Column(
        "relative_squared_error", "relative squared error", fixed(2), "1 is the error of the median member."
    ),
    Column("about", "what it does", wide_only=True),
)
_DUELS = (
    Column("first", "first"),
    Column("second", "second"),
    Column("step", "at step", _STEP, "Of the first run."),
    Column("difference", "difference", fixed(4, signed=True), "First minus second, expected."),
    Column("sd", "sd", _ACCURACY),
    Column("probability", "P(first above)", fixed(3)),
    Column("sure_since", "95% sure since step", _STEP),
    Column("tasks", "tasks", Format(lambda tasks: str(len(tasks)))),
)
_STOPS = (
    Column("run", "run"),
    Column("what", "task"),
    Column("step", "to step", _STEP),
    Column("gain", "gain", fixed(4, signed=True), "Expected from the end of the window to that step."),
    Column("probability", "P(gain above minimum)", fixed(2)),
    Column("min_gain", "minimum gain", Format(lambda gain: f"{gain:g}")),
    Column("stop_at", "below minimum from step", _STEP),
)
_KEEPS = (
    Column("run", "run"),
    Column("what", "task"),
    Column("step", "best step", _STEP),
    Column("value", "smoothed", _ACCURACY),
    Column("ties", "indistinguishable from", _STEPS, "Steps not worse at 90 % confidence."),
)
_DECISIONS = (
    ("duels", _DUELS, "which run is measured above the other at the longest horizon"),
    ("stops", _STOPS, "expected gain from continuing a run"),
    ("keeps", _KEEPS, "the best checkpoint so far"),
)
_METHODS = (Column("name", "method"), Column("kind", "kind"), Column("about", "what it does"))
_FAILED = (Column("run", "run"), Column("task", "task"), Column("error", "reason"))


def document(result: CheckpointsResult, source: str, members: bool = False) -> Document:
    """The answer, decisions, forecasts of every run, their errors, failures, methods, and warnings last.

    Args:
        source: the table or configuration, for the title.
        members: also the errors of the combination's members, one by one.
    """
    options, frames = result.options, result.frames()
    proxies = f" through {', '.join(options.proxies)}" if options.proxies else ""
    sections = [Section("", tuple(_answers(result)))]
    decided = tuple(Table(frames[name], cols, what) for name, cols, what in _DECISIONS if frames[name].height)
    if decided:
        sections.append(Section("Decisions", decided))
    for forecast, run in zip(result.forecasts, result.runs, strict=True):
        sections.append(_run(result, frames, forecast, run))
    if result.verdicts:
        verdicts = tuple(Paragraph(verdict) for verdict in result.verdicts)
        sections.append(Section("Combination against single methods", verdicts))
    for name in dict.fromkeys(row.run for row in result.summary):
        shown = [row for row in result.summary if row.run == name and (members or row.kind != "member")]
        sections.append(_errors(name, shown))
    if result.failed:
        sections.append(Section("Not forecast", (Table(frames["failed"], _FAILED),), wide_only=True))
    sections.append(Section("Methods", (Table(frame_of(METHODS, Method), _METHODS),), wide_only=True))
    if result.warnings:
        sections.append(Section("Notes", tuple(Warning(warning) for warning in result.warnings)))
    subtitle = f"{options.target}{proxies}, fitted up to step {options.fit_until:,g}, over {result.axis}"
    return Document(f"Forecast of {source}", subtitle, tuple(sections))


def _answers(result: CheckpointsResult) -> list[Paragraph]:
    """For every run the forecast at the longest horizon, how sure it is, and whether to continue."""
    confidence, horizon = result.options.confidence, max(result.options.horizons)
    stops = {stop.run: stop for stop in result.decisions.stops}
    rows = {(row.run, row.task, row.method, row.horizon): row for row in result.rows}
    answers = []
    for forecast in result.forecasts:
        stop = stops.get(forecast.run)
        if stop is None:
            answers.append(Paragraph(f"Run {forecast.run}: no combined forecast beyond the current levels."))
            continue
        row = rows[forecast.run, stop.what, COMBINED, horizon]
        gain = f"expected gain {stop.gain:+.4f}, P(above {stop.min_gain:g}) = {stop.probability:.2f}"
        if stop.gain < stop.min_gain:
            advice = f"stop ({gain})"
        elif stop.stop_at is None:
            advice = f"continue ({gain})"
        else:
            advice = (
                f"continue ({gain}) to step {stop.stop_at:,.0f}; beyond it the "
                f"expected gain is below {stop.min_gain:g}"
            )
        ends = interval(4)(row.lower, row.upper)
        answers.append(
            Paragraph(
                f"Run {forecast.run}, {stop.what}: {_ACCURACY(row.predicted)} at step {row.step:,.0f} "
                f"({horizon:.3g}x), {100 * confidence:g}% interval {ends} for one checkpoint. Next: {advice}."
            )
        )
    return answers


def _errors(run: str, rows: Sequence[SummaryRow]) -> Section:
    frame = frame_of(rows, SummaryRow)
    horizons = sorted({row.horizon for row in rows})
    far = ("error_at_horizon", "covered_at_horizon", "covered", "skill", "skill_low", "skill_high")
    by_method = frame.group_by("method", "kind", maintain_order=True).agg(
        *(_at(horizon, "rmse", f"rmse_{i}") for i, horizon in enumerate(horizons)),
        *(_at(horizons[-1], name, name) for name in far),
    )
    columns = (
        *_ERRORS[:2],
        *(Column(f"rmse_{i}", f"{h:.3g}x", _ACCURACY) for i, h in enumerate(horizons)),
        *_ERRORS[5:],
    )
    table = Table(
        by_method.with_columns(combined=pl.col("method") == COMBINED),
        columns,
        f"RMSE of the accuracy up to a horizon (t / window), mean over {max(row.n for row in rows)} tasks "
        f"with signal; the other columns are at {horizons[-1]:.3g}x",
        group_by="kind",
        bold="combined",
    )
    drawn = [row for row in rows if row.kind != "member"]
    chart = Chart(
        lambda: error_chart(drawn),
        "RMSE of the accuracy over all checkpoints up to a horizon, mean over tasks; both axes logarithmic. "
        "Blue: the combination.",
        "Error of every method against the horizon",
    )
    every = Table(frame, _ERRORS, f"every horizon; skill: {_SKILL_HELP}", wide_only=True)
    parts: tuple[Part, ...] = (chart, table, every) if len(horizons) > 1 else (table, every)
    return Section(f"Error against horizon: {run if run == ALL_RUNS else 'run ' + run}", parts)


def _run(
    result: CheckpointsResult, frames: Mapping[str, pl.DataFrame], forecast: RunForecast, run: Run
) -> Section:
    confidence = f"{100 * result.options.confidence:g}%"
    weak = "too little signal: forecast by its current level"
    note = pl.when(pl.col("predicted").is_null()).then("reason").when(~pl.col("signal")).then(pl.lit(weak))
    own = frames["forecasts"].filter(run=forecast.run, method=COMBINED).with_columns(note=note)
    horizons = sorted(set(own["horizon"]))
    now = {task: float(known.points.y[-1]) for task, known in forecast.tasks.items() if len(known.points.y)}
    fields = ("predicted", "lower", "upper", "actual")
    by_task = own.group_by("task", maintain_order=True).agg(
        *(_at(h, name, f"{name}_{i}") for i, h in enumerate(horizons) for name in fields),
        label=pl.col("task").first()
        + pl.when(pl.col("signal").first()).then(pl.lit("")).otherwise(pl.lit(" *")),
    )
    by_task = by_task.with_columns(
        now=pl.col("task").replace_strict(now, default=None, return_dtype=pl.Float64)
    )
    columns = [Column("label", "task"), Column("now", "now", fixed(3))]
    for i, h in enumerate(horizons):
        also = tuple(f"{name}_{i}" for name in fields[1:])
        label = f"{h:.3g}x: step {h * forecast.window.step_end:,.0f}"
        columns.append(Column(f"predicted_{i}", label, _FORECAST, also=also))
    title = (
        f"combined forecast from step {forecast.window.step_end:g}, {confidence} interval of one checkpoint; "
        "actual values in brackets; * too little signal: its current level, without an interval, not in the "
        "macro"
    )
    parts: list[Part] = [Table(by_task, tuple(columns), title)]
    if forecast.tasks:
        parts = [*_chart(result, forecast, run, confidence), *parts]
        parts.append(Table(own, _FORECASTS, "the combined forecast at every horizon", wide_only=True))
        weights = (
            f"members of the combination, weighted by squared errors at {len(forecast.origins)} rolling "
            f"origins inside the window, {forecast.combination.n_tasks} tasks"
        )
        parts.append(Table(frames["weights"].filter(run=forecast.run), _WEIGHTS, weights))
    return Section(f"Run {forecast.run}", tuple(parts))


def _chart(result: CheckpointsResult, forecast: RunForecast, run: Run, confidence: str) -> list[Part]:
    tasks = forecast.tasks.values()
    shown = [own for own in tasks if own.left_out is None] or list(tasks)
    first = f"The first {_MOST_PANELS} of {len(shown)} tasks with signal are drawn."
    parts: list[Part] = [Paragraph(first, wide_only=True)] if len(shown) > _MOST_PANELS else []
    chart = Chart(
        lambda: task_chart(result, forecast, run, shown[:_MOST_PANELS]),
        f"Black: the window; grey: later checkpoints; blue: the combined forecast with its {confidence} "
        "interval for one checkpoint. t in lengths of the window, logarithmic.",
        "Checkpoints and combined forecast of every task with signal",
    )
    return [*parts, chart]


def _at(horizon: float, column: str, name: str) -> pl.Expr:
    return pl.col(column).filter(pl.col("horizon") == horizon).first().alias(name)


def record(result: CheckpointsResult, source: str, members: bool = False) -> dict[str, Any]:
    """All of a result as JSON.

    Args:
        members: also the rows of the combination's members.
    """
    hidden = set() if members else {method.name for method in METHODS if method.kind == "member"}
    options = result.options
    return {
        "source": source,
        "target": options.target,
        "proxies": list(options.proxies),
        "cross_entropy": options.loss,
        "fit_until": options.fit_until,
        "axis": result.axis,
        "confidence": options.confidence,
        "rows": record_of([row for row in result.rows if row.method not in hidden]),
        "summary": record_of([row for row in result.summary if row.method not in hidden]),
        "verdicts": list(result.verdicts),
        "runs": [_run_record(forecast) for forecast in result.forecasts],
        "decisions": record_of(result.decisions),
        "methods": {m.name: m.about for m in METHODS if m.name not in hidden},
        "warnings": list(result.warnings),
        "failed": list(result.failed),
    }


def _run_record(forecast: RunForecast) -> dict[str, Any]:
    combination = forecast.combination
    return {
        "run": forecast.run,
        "window_ends_at_step": forecast.window.step_end,
        "rolling_origins": [_short(origin.u * forecast.window.step_end) for origin in forecast.origins],
        "proxy": combination.proxy,
        "weights": {str(key): round(weight, 6) for key, weight in combination.weights.items()},
        "relative_squared_errors": {str(key): _short(value) for key, value in combination.errors.items()},
        "tasks_that_decided": combination.n_tasks,
        "macro": forecast.macro,
        "left_out": {task: own.left_out for task, own in forecast.tasks.items() if own.left_out is not None},
        "parameters": {
            task: {str(key): record_of(fit.parameters) for key, fit in own.fits.items() if fit.parameters}
            for task, own in forecast.tasks.items()
        },
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")
