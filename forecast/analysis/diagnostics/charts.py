"""Charts of the diagnostics, from plain rows."""

from typing import Any

import altair as alt

_INK = "#9aa0ad"
_WIDTH = 520  # pixels of a plot, without axes


def bars(rows: list[dict[str, Any]]) -> alt.TopLevelMixin:
    """A range for every candidate and task; rows: candidate, task, low, high."""
    names = list(dict.fromkeys(row["candidate"] for row in rows))
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("candidate:N", sort=names, title=None))
    bars = base.mark_rule(strokeWidth=6).encode(
        x=alt.X("low:Q", title="top-1 accuracy", scale=alt.Scale(zero=False)),
        x2="high:Q",
        color=alt.Color("task:N", title=None, legend=alt.Legend(orient="top")),
        yOffset="task:N",
    )
    return bars.properties(width=_WIDTH)


def lines(rows: list[dict[str, Any]]) -> alt.TopLevelMixin:
    """Rho of the orders against the window, a line for each proxy; rows: last_tokens, proxy, rho."""
    y_title = "rho with the order by all tokens"
    lows = [row["rho"] for row in rows]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X(
                "last_tokens:Q", title="last tokens of each solution", scale=alt.Scale(type="log", nice=False)
            ),
            y=alt.Y("rho:Q", title=y_title, scale=alt.Scale(domain=[min(0.0, *lows), 1.0])),
            color=alt.Color("proxy:N", title=None, legend=alt.Legend(orient="top")),
        )
        .properties(width=_WIDTH, height=220)
    )


def curve(rows: list[dict[str, Any]]) -> alt.TopLevelMixin:
    """Rho against instances with the range of its draws; rows: n, proxy, rho, low, high."""
    scale = alt.Scale(zero=False)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("n:Q", title="instances", scale=alt.Scale(type="log", nice=False)),
        color=alt.Color("proxy:N", title=None, legend=alt.Legend(orient="top")),
    )
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title="rho", scale=scale), y2="high:Q")
    line = base.mark_line(point=True).encode(y=alt.Y("rho:Q", scale=scale))
    return alt.layer(band, line).properties(width=_WIDTH, height=240)


def dots(rows: list[dict[str, Any]]) -> alt.TopLevelMixin:
    """Excess of every candidate; rows: candidate, task, excess."""
    names = list(dict.fromkeys(row["candidate"] for row in rows))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("excess:Q", title="excess"), y=alt.Y("candidate:N", sort=names, title=None)
    )
    dots = base.mark_circle(size=70, opacity=1).encode(
        color=alt.Color("task:N", title=None, legend=alt.Legend(orient="top"))
    )
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(color=_INK).encode(x="x:Q")
    return alt.layer(zero, dots).properties(width=_WIDTH)
