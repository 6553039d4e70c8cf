"""The report as one HTML file: the same figures as in the terminal, with plots."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from forecast.analysis.checkpoints.forecast import Report
from forecast.analysis.checkpoints.forecast_run import COMBINED_KEY, RunForecast, TaskForecast
from forecast.analysis.checkpoints.methods import COMBINED, METHOD, METHODS
from forecast.analysis.checkpoints.results import later_of
from forecast.analysis.checkpoints.summary import ALL_RUNS, Line
from forecast.analysis.checkpoints.training_runs import Run
from forecast.report.page import Page

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt

_FOUND, _OTHER, _MEASURED = "#2563eb", "#9aa0ad", "#1f2430"
_MOST_PANELS = 30
_PANEL = (220, 130)  # pixels
_CURVE = 40  # points of a drawn curve


def report_page(report: Report, source: str) -> Page:
    """Everything that `forecast extrapolate` says."""
    asked = report.question
    proxies = f" through {', '.join(asked.proxies)}" if asked.proxies else ""
    page = Page(
        f"Forecast of {source}",
        f"{asked.target}{proxies}, fitted up to step {asked.fit_until:,g}, over {report.axis}",
    )
    for warning in report.warnings:
        page.warning(warning)
    for verdict in report.verdicts:
        page.text(verdict)
    for run in dict.fromkeys(line.run for line in report.summary):
        _errors(page, run, [line for line in report.summary if line.run == run])
    for found, run_data in zip(report.forecasts, report.runs, strict=True):
        if found.tasks:
            _run(page, report, found, run_data)
    _decisions(page, report)
    if report.failed:
        page.heading("Not forecast")
        page.table(["run", "task", "why"], [[f["run"], f["task"], f["error"]] for f in report.failed])
    page.heading("Methods")
    page.table(["method", "kind", "what it does"], [[m.name, m.kind, m.about] for m in METHODS])
    return page


def _errors(page: Page, run: str, lines: Sequence[Line]) -> None:
    page.heading(f"Error against horizon: {run if run == ALL_RUNS else 'run ' + run}")
    if len({line.horizon for line in lines}) > 1:
        page.chart(
            _error_chart([line for line in lines if line.kind != "member"]),
            "RMSE of the accuracy over all checkpoints up to a horizon, mean over tasks; both axes "
            "logarithmic. "
            "Blue: the combination.",
            "Error of every method against the horizon",
        )
    page.table(
        [
            "method",
            "kind",
            "horizon",
            "tasks",
            "RMSE",
            "|error| there",
            "in the interval",
            "skill",
            "low",
            "high",
        ],
        [
            [
                line.method,
                line.kind,
                line.horizon,
                line.n,
                _round(line.rmse),
                _round(line.error_at_horizon),
                _round(line.covered),
                _round(line.skill),
                _round(line.skill_low),
                _round(line.skill_high),
            ]
            for line in lines
        ],
        "skill: 1 - RMSE / that of the best baseline, which is picked afterwards; its interval is over tasks",
    )


def _error_chart(lines: Sequence[Line]) -> "alt.TopLevelMixin":
    import altair as alt

    rows = [{"method": x.method, "horizon": x.horizon, "rmse": x.rmse} for x in lines]
    names = list(dict.fromkeys(x.method for x in lines))
    colours = [_FOUND if name == COMBINED else _OTHER for name in names]
    across = alt.Scale(type="log", domain=[min(x.horizon for x in lines), max(x.horizon for x in lines)])
    up = alt.Scale(type="log", domainMin=0.95 * min(x.rmse for x in lines), nice=False)
    last = max(x.horizon for x in lines)
    places = _label_places([row for row in rows if row["horizon"] == last], [x.rmse for x in lines])
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("horizon:Q", scale=across, title="horizon, t / window"),
        y=alt.Y("rmse:Q", scale=up, title="RMSE of the accuracy"),
        color=alt.Color("method:N", scale=alt.Scale(domain=names, range=colours), legend=None),
    )
    labels = (
        alt.Chart(alt.Data(values=places))
        .mark_text(align="left", dx=8, fontSize=10, clip=False)
        .encode(
            x=alt.X("horizon:Q", scale=across),
            y=alt.Y("place:Q", scale=up),
            text="method:N",
            color=alt.Color("method:N", scale=alt.Scale(domain=names, range=colours), legend=None),
        )
    )
    return alt.layer(base.mark_line(point=True), labels).properties(width=480, height=320)


def _label_places(ends: Sequence[dict[str, Any]], everything: Sequence[float]) -> list[dict[str, Any]]:
    """Names at the lines' ends, pushed apart upwards where they would overlap."""
    gap = (max(everything) / min(everything)) ** 0.045
    placed: list[dict[str, Any]] = []
    for row in sorted(ends, key=lambda row: row["rmse"]):
        place = max(row["rmse"], placed[-1]["place"] * gap) if placed else row["rmse"]
        placed.append({**row, "place": place})
    return placed


def _run(page: Page, report: Report, found: RunForecast, run: Run) -> None:
    page.heading(f"Run {found.run}")
    shown = [own for own in found.tasks.values() if own.left_out is None] or list(found.tasks.values())
    if len(shown) > _MOST_PANELS:
        page.text(f"The first {_MOST_PANELS} of {len(shown)} tasks with signal are drawn.")
    page.chart(
        _task_chart(report, found, run, shown[:_MOST_PANELS]),
        f"Black: the window; grey: what came later; blue: the combined forecast with its "
        f"{100 * report.question.confidence:g}% interval for one checkpoint. t in lengths of the window, "
        "logarithmic.",
        "Checkpoints and combined forecast of every task with signal",
    )
    own_rows = [row for row in report.rows if row.run == found.run and row.method == COMBINED]
    page.table(
        ["task", "horizon", "step", "forecast", "low", "high", "came", "RMSE", "note"],
        [
            [
                row.task,
                row.horizon,
                round(row.step),
                _round(row.predicted),
                _round(row.lower),
                _round(row.upper),
                _round(row.actual),
                _round(row.rmse),
                None if row.signal else "too little signal: its level now",
            ]
            for row in own_rows
        ],
        "the combined forecast",
    )
    made = found.combination
    page.table(
        ["member", "weight", "relative squared error", "what it does"],
        [
            [str(key), _round(weight), _round(made.errors.get(key)), METHOD[key.method].about]
            for key, weight in sorted(made.weights.items(), key=lambda item: -item[1])
        ],
        f"the combination: weights by squared errors at {len(found.origins)} rolling origins inside the "
        "window, "
        f"{made.n_tasks} tasks; 1 is the error of the middle member",
    )


def _task_chart(
    report: Report, found: RunForecast, run: Run, shown: Sequence[TaskForecast]
) -> "alt.TopLevelMixin":
    import altair as alt

    later = later_of(run, found, report.settings)
    ends = [float(part.horizon[-1]) for part in later.values() if len(part.horizon)]
    end = max([*report.question.horizons, *ends])
    points: list[dict[str, Any]] = []
    curve: list[dict[str, Any]] = []
    for own in shown:
        points += _dots(own.task, own.points.u, own.points.y, "window")
        points += _dots(own.task, later[own.task].horizon, later[own.task].value, "later")
        horizons = np.geomspace(1.0, end, _CURVE)
        at, low, high = own.interval(COMBINED_KEY, horizons)
        curve += [
            {"task": own.task, "t": float(h), "at": float(a), "low": float(lo), "high": float(hi)}
            for h, a, lo, hi in zip(horizons, at, low, high, strict=True)
            if np.isfinite([a, lo, hi]).all()
        ]
    x = alt.X("t:Q", scale=alt.Scale(type="log", nice=False), title=None)
    y = {"scale": alt.Scale(zero=False), "title": None}
    panels = []
    for own in shown:
        lines = alt.Chart(alt.Data(values=[row for row in curve if row["task"] == own.task])).encode(x=x)
        dots = alt.Chart(alt.Data(values=[row for row in points if row["task"] == own.task])).encode(x=x)
        colour = alt.Color(
            "when:N", scale=alt.Scale(domain=["window", "later"], range=[_MEASURED, _OTHER]), legend=None
        )
        layers = alt.layer(
            lines.mark_area(opacity=0.18, color=_FOUND).encode(y=alt.Y("low:Q", **y), y2="high:Q"),
            dots.mark_circle(size=14, opacity=0.9).encode(y=alt.Y("value:Q", **y), color=colour),
            lines.mark_line(color=_FOUND).encode(y=alt.Y("at:Q", **y)),
        )
        panels.append(layers.properties(title=own.task, width=_PANEL[0], height=_PANEL[1]))
    return alt.concat(*panels, columns=4)


def _dots(task: str, t: Any, value: Any, when: str) -> list[dict[str, Any]]:
    return [
        {"task": task, "t": float(a), "value": float(b), "when": when} for a, b in zip(t, value, strict=True)
    ]


def _decisions(page: Page, report: Report) -> None:
    found = report.decisions
    if found.duels or found.stops or found.keeps:
        page.heading("Decisions")
    if found.duels:
        page.table(
            [
                "first",
                "second",
                "at step",
                "difference",
                "sd",
                "P(first above)",
                "95% sure since step",
                "tasks",
            ],
            [
                [
                    d.first,
                    d.second,
                    round(d.step),
                    _round(d.difference),
                    _round(d.sd),
                    _round(d.probability),
                    None if d.sure_since is None else round(d.sure_since),
                    len(d.tasks),
                ]
                for d in found.duels
            ],
            "which run is measured above the other at the longest horizon",
        )
    if found.stops:
        page.table(
            ["run", "of", "to step", "gain", "P(more than enough)", "enough", "less than enough from step"],
            [
                [
                    s.run,
                    s.what,
                    round(s.step),
                    _round(s.gain),
                    _round(s.probability),
                    s.min_gain,
                    None if s.stop_at is None else round(s.stop_at),
                ]
                for s in found.stops
            ],
            "what going on is expected to bring",
        )
    if found.keeps:
        page.table(
            ["run", "of", "best step", "smoothed", "not told apart from"],
            [
                [
                    k.run,
                    k.what,
                    round(k.step),
                    _round(k.value),
                    ", ".join(f"{s:,.0f}" for s in k.ties) or None,
                ]
                for k in found.keeps
            ],
            "the best checkpoint so far",
        )


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
