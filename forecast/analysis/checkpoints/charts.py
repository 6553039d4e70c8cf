"""The two plots of the report: error against horizon, and every task's checkpoints with its forecast."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from forecast.analysis.checkpoints.forecast import CheckpointsResult
from forecast.analysis.checkpoints.forecast_run import COMBINED_KEY, RunForecast, TaskForecast
from forecast.analysis.checkpoints.methods import COMBINED
from forecast.analysis.checkpoints.results import later_of
from forecast.analysis.checkpoints.summary import SummaryRow
from forecast.analysis.checkpoints.training_runs import Run

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt

_COMBINED, _OTHER, _MEASURED = "#2563eb", "#9aa0ad", "#1f2430"
_PANEL = (220, 130)  # pixels
_CURVE = 40  # points of a drawn curve


def error_chart(shown: Sequence[SummaryRow]) -> "alt.TopLevelMixin":
    """RMSE of every method against the horizon, both axes logarithmic; the combination in blue."""
    import altair as alt

    rows = [{"method": x.method, "horizon": x.horizon, "rmse": x.rmse} for x in shown]
    names = list(dict.fromkeys(x.method for x in shown))
    colours = [_COMBINED if name == COMBINED else _OTHER for name in names]
    colour = alt.Color("method:N", scale=alt.Scale(domain=names, range=colours), legend=None)
    across = alt.Scale(type="log", domain=[min(x.horizon for x in shown), max(x.horizon for x in shown)])
    up = alt.Scale(type="log", domainMin=0.95 * min(x.rmse for x in shown), nice=False)
    last = max(x.horizon for x in shown)
    places = _label_places([row for row in rows if row["horizon"] == last], [x.rmse for x in shown])
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("horizon:Q", scale=across, title="horizon, t / window"),
        y=alt.Y("rmse:Q", scale=up, title="RMSE of the accuracy"),
        color=colour,
    )
    labels = (
        alt.Chart(alt.Data(values=places))
        .mark_text(align="left", dx=8, fontSize=10, clip=False)
        .encode(
            x=alt.X("horizon:Q", scale=across), y=alt.Y("place:Q", scale=up), text="method:N", color=colour
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


def task_chart(
    result: CheckpointsResult, found: RunForecast, run: Run, shown: Sequence[TaskForecast]
) -> "alt.TopLevelMixin":
    """A panel per task: window, later checkpoints, combined forecast with its interval."""
    import altair as alt

    later = later_of(run, found, result.options)
    ends = [float(part.t[-1]) for part in later.values() if len(part.t)]
    horizons = np.geomspace(1.0, max([*result.options.horizons, *ends]), _CURVE)
    x = alt.X("t:Q", scale=alt.Scale(type="log", nice=False), title=None)
    y = {"scale": alt.Scale(zero=False), "title": None}
    colours = alt.Scale(domain=["window", "later"], range=[_MEASURED, _OTHER])
    panels = []
    for own in shown:
        after = later[own.task]
        points = _dots(own.points.u, own.points.y, "window") + _dots(after.t, after.value, "later")
        curve = [
            {"t": float(h), "at": float(at), "low": float(low), "high": float(high)}
            for h, at, low, high in zip(horizons, *own.interval(COMBINED_KEY, horizons), strict=True)
            if np.isfinite([at, low, high]).all()
        ]
        lines = alt.Chart(alt.Data(values=curve)).encode(x=x)
        dots = alt.Chart(alt.Data(values=points)).encode(x=x)
        layers = alt.layer(
            lines.mark_area(opacity=0.18, color=_COMBINED).encode(y=alt.Y("low:Q", **y), y2="high:Q"),
            dots.mark_circle(size=14, opacity=0.9).encode(
                y=alt.Y("value:Q", **y), color=alt.Color("when:N", scale=colours, legend=None)
            ),
            lines.mark_line(color=_COMBINED).encode(y=alt.Y("at:Q", **y)),
        )
        panels.append(layers.properties(title=own.task, width=_PANEL[0], height=_PANEL[1]))
    return alt.concat(*panels, columns=4)


def _dots(t: Any, value: Any, when: str) -> list[dict[str, Any]]:
    return [{"t": float(a), "value": float(b), "when": when} for a, b in zip(t, value, strict=True)]
