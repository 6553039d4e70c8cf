"""A report for the terminal; no arithmetic beyond formatting. What is missing is a dash."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forecast.analysis.checkpoints.forecast import Report
from forecast.analysis.checkpoints.forecast_run import RunForecast
from forecast.analysis.checkpoints.methods import COMBINED
from forecast.analysis.checkpoints.results import Row
from forecast.analysis.checkpoints.run_decisions import Decisions
from forecast.analysis.checkpoints.summary import ALL_RUNS, Line


def report_tables(report: Report, members: bool = False) -> RenderableType:
    """Errors against horizon, the combined forecast of every task, weights, decisions, and notes in words."""
    parts: list[RenderableType] = []
    for run in dict.fromkeys(line.run for line in report.summary):
        parts.append(_errors(run, [line for line in report.summary if line.run == run], members))
    parts += [_forecasts(found, report.rows, report.question.confidence) for found in report.forecasts]
    parts += [_weights(found) for found in report.forecasts if found.tasks]
    parts += _decisions(report.decisions)
    parts += [Text(verdict, style="bold") for verdict in report.verdicts]
    parts += [Text("note: " + warning, style="yellow") for warning in report.warnings]
    return Group(*parts)


def _errors(run: str, lines: Sequence[Line], members: bool) -> Table:
    horizons = sorted({line.horizon for line in lines})
    far = horizons[-1]
    n = max(line.n for line in lines)
    who = run if run == ALL_RUNS else f"run {run}"
    table = Table(
        title=_title(
            f"{who}: RMSE of the accuracy up to a horizon (t / window), mean over {n} tasks with signal\n"
            "skill: 1 - RMSE / that of the best baseline, which is picked afterwards; interval over tasks"
        )
    )
    table.add_column("method", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for horizon in horizons:
        table.add_column(f"{horizon:.3g}x", justify="right", no_wrap=True)
    for column in (f"|error| at {far:.3g}x", "in the interval", f"skill at {far:.3g}x", "interval"):
        table.add_column(column, justify="right")
    by_method: dict[str, dict[float, Line]] = {}
    for line in lines:
        by_method.setdefault(line.method, {})[line.horizon] = line
    last = None
    for method, own in by_method.items():
        line = next(iter(own.values()))
        if line.kind == "member" and not members:
            continue
        if last not in (None, line.kind):
            table.add_section()
        last = line.kind
        end = own.get(far)
        table.add_row(
            Text(method, style="bold" if method == COMBINED else ""),
            line.kind,
            *(_number(own[h].rmse, 4) if h in own else "-" for h in horizons),
            _number(None if end is None else end.error_at_horizon, 4),
            "-" if end is None or end.covered is None else f"{100 * end.covered:.0f}%",
            _signed(None if end is None else end.skill),
            "-"
            if end is None or end.skill_low is None
            else f"[{end.skill_low:+.2f}, {_signed(end.skill_high)}]",
        )
    return table


def _forecasts(found: RunForecast, rows: Sequence[Row], confidence: float) -> Table:
    """The combined forecast of every task; what came, in brackets."""
    own = [row for row in rows if row.run == found.run and row.method == COMBINED]
    horizons = sorted({row.horizon for row in own})
    table = Table(
        title=_title(
            f"run {found.run}: combined forecast from step {found.step_end:g}, {100 * confidence:g}% "
            "interval "
            "of one checkpoint; in brackets what came"
        )
    )
    table.add_column("task", no_wrap=True)
    table.add_column("now", justify="right", no_wrap=True)
    for horizon in horizons:
        table.add_column(
            f"{horizon:.3g}x: step {horizon * found.step_end:,.0f}", justify="right", no_wrap=True
        )
    for task in dict.fromkeys(row.task for row in own):
        cells = {row.horizon: row for row in own if row.task == task}
        known = found.tasks.get(task)
        weak = known is None or known.left_out is not None
        now = "-" if known is None or not len(known.points.y) else f"{known.points.y[-1]:.3f}"
        table.add_row(
            Text(task + (" *" if weak else ""), style="dim" if weak else ""),
            now,
            *(_cell(cells[h]) if h in cells else "-" for h in horizons),
        )
    if any(own_task.left_out for own_task in found.tasks.values()) or found.failed:
        table.caption = (
            "* too little signal: its level now, with an interval that holds while it stays there; "
            "not in the macro"
        )
    return table


def _cell(row: Row) -> str:
    if row.predicted is None:
        return "-"
    interval = "" if row.lower is None else f" {row.lower:.3f}..{row.upper:.3f}"
    return f"{row.predicted:.3f}{interval}" + ("" if row.actual is None else f" ({row.actual:.3f})")


def _weights(found: RunForecast) -> Table:
    made = found.combination
    table = Table(
        title=_title(
            f"run {found.run}: members of the combination, weighted by squared errors at "
            f"{len(found.origins)} "
            f"rolling origins, {made.n_tasks} tasks (1 = as the middle member)"
        )
    )
    for column in ("member", "weight", "relative squared error"):
        table.add_column(column, justify="left" if column == "member" else "right", no_wrap=True)
    for key, weight in sorted(made.weights.items(), key=lambda item: -item[1]):
        table.add_row(Text(str(key)), f"{weight:.3f}", _number(made.errors.get(key), 2))
    return table


def _decisions(decisions: Decisions) -> list[RenderableType]:
    words = []
    for duel in decisions.duels:
        since = "not sure yet" if duel.sure_since is None else f"95% sure since step {duel.sure_since:,.0f}"
        words.append(
            f"P({duel.first} above {duel.second} at step {duel.step:,.0f}) = {duel.probability:.3f}: "
            f"{duel.difference:+.4f} ± {duel.sd:.4f} over {len(duel.tasks)} tasks, {since}"
        )
    for stop in decisions.stops:
        where = (
            "the gain lasts to the end"
            if stop.stop_at is None
            else f"less than {stop.min_gain:g} is expected from step {stop.stop_at:,.0f} on"
        )
        words.append(
            f"{stop.run}: going on to step {stop.step:,.0f} brings {stop.gain:+.4f} ({stop.what}), more than "
            f"{stop.min_gain:g} with probability {stop.probability:.2f}; {where}"
        )
    for keep in decisions.keeps:
        ties = f"; not told apart from: {', '.join(f'{s:,.0f}' for s in keep.ties)}" if keep.ties else ""
        words.append(
            f"{keep.run}: best checkpoint so far at step {keep.step:,.0f} ({keep.what} {keep.value:.4f}, "
            f"smoothed){ties}"
        )
    return [Text(word) for word in words]


def _title(text: str) -> Text:
    return Text(text, style="table.title", justify="center")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
