"""Charts of one watched run: its proxies, its measured scores, and its forecasts night by night."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from forecast.nightly.records import EndForecast, Night, Value
from forecast.proxies.token_proxies import PROXIES
from forecast.report.document import Chart, Paragraph, Part
from forecast.safe_text import clean

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt

_FOUND, _OTHER, _MEASURED = "#2563eb", "#9aa0ad", "#1f2430"
_PANEL = (220, 130)  # pixels
_COLUMNS = 4
_MOST_PANELS = 12  # of a chart
_PROXIES = {proxy.name for proxy in PROXIES}


def run_charts(run: str, night: Night, before: Sequence[Night]) -> tuple[Part, ...]:
    """The charts of one run; empty where there is nothing to draw.

    Args:
        before: earlier nights, oldest first.
    """
    parts: list[Part] = []
    values = [v for v in night.values if v.run == run]
    if proxies := list(dict.fromkeys(v.metric for v in values if v.metric in _PROXIES)):
        shown = [v for v in values if v.metric in proxies[:_MOST_PANELS]]
        parts += _left_out(len(proxies), "proxies")
        parts.append(
            Chart(
                lambda: proxy_chart(shown),
                "proxies along the training steps, a line for each task",
                f"Proxies of run {run} along its training steps",
            )
        )
    forecasts = [f for f in night.forecasts if f.run == run]
    scores = [v for v in values if v.metric not in _PROXIES]
    if tasks := list(dict.fromkeys((v.task, v.metric) for v in scores)):
        parts += _left_out(len(tasks), "measured tasks")
        parts.append(
            Chart(
                lambda: training_chart(tasks[:_MOST_PANELS], scores, forecasts),
                "measured scores along the training steps (black), and the forecast for the end of training "
                "with its interval (blue)",
                f"Measured scores of run {run} along its training steps, and the forecast for its end",
            )
        )
    ends = list(dict.fromkeys((f.task, f.metric) for f in forecasts))
    numbers = {f.number for f in forecasts}
    history = [(n.date, f) for n in [*before, night] for f in n.forecasts if f.number in numbers]
    if len({date for date, _ in history}) > 1:
        parts += _left_out(len(ends), "forecast tasks")
        parts.append(
            Chart(
                lambda: nights_chart(ends[:_MOST_PANELS], history),
                "the forecast for the end of training with its interval, night by night",
                f"Forecasts for the end of run {run}, night by night",
            )
        )
    return tuple(parts)


def _left_out(n: int, what: str) -> list[Part]:
    return [Paragraph(f"The first {_MOST_PANELS} of {n} {what} are drawn.")] if n > _MOST_PANELS else []


def proxy_chart(values: Sequence[Value]) -> "alt.TopLevelMixin":
    """A panel for each proxy, a line for each task."""
    import altair as alt

    rows = [{"step": v.step, "task": clean(v.task), "proxy": v.metric, "value": v.value} for v in values]
    tasks = sorted({str(row["task"]) for row in rows})
    colour = alt.Color("task:N", scale=alt.Scale(domain=tasks), title="task")
    panels = []
    for proxy in dict.fromkeys(v.metric for v in values):
        base = alt.Chart(alt.Data(values=[row for row in rows if row["proxy"] == proxy])).encode(
            x=_steps(alt), y=alt.Y("value:Q", scale=alt.Scale(zero=False), title=None), color=colour
        )
        panels.append(_panel(alt, [base.mark_line(), base.mark_circle(size=22, opacity=1)], proxy))
    return alt.concat(*panels, columns=_COLUMNS)


def training_chart(
    tasks: Sequence[tuple[str, str]], values: Sequence[Value], forecasts: Sequence[EndForecast]
) -> "alt.TopLevelMixin":
    """A panel for each (task, metric): measured scores along the training, and the forecast for its end."""
    import altair as alt

    panels = []
    for task, metric in tasks:
        dots = [{"step": v.step, "value": v.value} for v in values if (v.task, v.metric) == (task, metric)]
        ends = [
            {"step": f.step, "value": f.forecast, "low": f.low, "high": f.high}
            for f in forecasts
            if (f.task, f.metric) == (task, metric)
        ]
        spans = [end for end in ends if end["low"] is not None]
        measured = alt.Chart(alt.Data(values=dots)).encode(x=_steps(alt), y=_score(alt, "value"))
        end = alt.Chart(alt.Data(values=ends)).encode(x=_steps(alt))
        layers = [
            measured.mark_line(color=_OTHER, strokeWidth=1),
            measured.mark_circle(color=_MEASURED, size=22, opacity=1),
            alt.Chart(alt.Data(values=spans))
            .mark_rule(color=_FOUND, strokeWidth=5, opacity=0.3)
            .encode(x=_steps(alt), y=_score(alt, "low"), y2="high:Q"),
            end.mark_circle(color=_FOUND, size=60, opacity=1).encode(y=_score(alt, "value")),
        ]
        panels.append(_panel(alt, layers, f"{clean(task)}: {clean(metric)}"))
    return alt.concat(*panels, columns=_COLUMNS)


def nights_chart(
    tasks: Sequence[tuple[str, str]], history: Sequence[tuple[str, EndForecast]]
) -> "alt.TopLevelMixin":
    """A panel for each (task, metric): the forecast for the end of training, night by night."""
    import altair as alt

    panels = []
    nights = sorted({_midnight(date) for date, _ in history})
    for task, metric in tasks:
        rows: list[dict[str, Any]] = [
            {"night": _midnight(date), "value": f.forecast, "low": f.low, "high": f.high}
            for date, f in history
            if (f.task, f.metric) == (task, metric)
        ]
        x = alt.X(
            "night:T",
            scale=alt.Scale(type="utc", domain=[nights[0], nights[-1]], padding=12),
            axis=alt.Axis(format="%b %d", tickCount=4, labelOverlap=True, values=_some(nights)),
            title=None,
        )
        base = alt.Chart(alt.Data(values=rows)).encode(x=x)
        spans = [row for row in rows if row["low"] is not None]
        layers = [
            alt.Chart(alt.Data(values=spans))
            .mark_rule(color=_FOUND, strokeWidth=5, opacity=0.3)
            .encode(x=x, y=_score(alt, "low"), y2="high:Q"),
            base.mark_line(color=_FOUND, strokeWidth=1).encode(y=_score(alt, "value")),
            base.mark_circle(color=_FOUND, size=40, opacity=1).encode(y=_score(alt, "value")),
        ]
        panels.append(_panel(alt, layers, f"{clean(task)}: {clean(metric)}"))
    return alt.concat(*panels, columns=_COLUMNS)


def _midnight(date: str) -> int:
    """In milliseconds of UTC; in local time a day could be drawn as the day before."""
    return round(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() * 1000)


def _some(nights: Sequence[int]) -> list[int]:
    """At most four nights, the first and the last among them."""
    last, most = len(nights) - 1, 3
    return [nights[i] for i in sorted({round(last * k / most) for k in range(most + 1)})]


def _panel(alt: Any, layers: Sequence[Any], title: str) -> Any:
    return alt.layer(*layers).properties(
        title=alt.TitleParams(title, limit=_PANEL[0] + 20), width=_PANEL[0], height=_PANEL[1]
    )


def _steps(alt: Any) -> Any:
    return alt.X(
        "step:Q",
        scale=alt.Scale(zero=False, padding=8),
        axis=alt.Axis(format="~s", tickCount=4),
        title=None,
    )


def _score(alt: Any, field: str) -> Any:
    return alt.Y(f"{field}:Q", scale=alt.Scale(zero=False), title=None)
