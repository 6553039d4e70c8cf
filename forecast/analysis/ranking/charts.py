"""Plots of the ranking report: held-out rhos with their nulls, intervals of ranks, the grid of proxies."""

from collections.abc import Sequence

import altair as alt
import polars as pl

_BLUE, _GREY, _BLACK = "#2563eb", "#9aa0ad", "#1f2430"
_WIDTH = 520  # pixels of a plot, without axes


def held_out_chart(held_out: pl.DataFrame, protocols: Sequence[str]) -> alt.TopLevelMixin:
    """Rho with its interval (blue) and its null from mean to 95th percentile (grey), by protocol."""
    columns = ("scorer", "protocol", "spearman", "ci_low", "ci_high", "null_mean", "null_q95")
    rows = held_out.filter(pl.col("spearman").is_not_null()).select(columns).to_dicts()
    names = list(dict.fromkeys(row["scorer"] for row in rows))
    x = alt.Scale(domain=[-1, 1])
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("scorer:N", sort=names, title=None))
    null = base.mark_bar(color=_GREY, opacity=0.45, height=12).encode(
        x=alt.X("null_mean:Q", scale=x, title="Spearman's rho"), x2="null_q95:Q"
    )
    interval = base.mark_rule(color=_BLUE).encode(x=alt.X("ci_low:Q", scale=x), x2="ci_high:Q")
    points = base.mark_circle(color=_BLUE, size=70, opacity=1).encode(x=alt.X("spearman:Q", scale=x))
    layers = alt.layer(null, interval, points).properties(width=_WIDTH)
    header = alt.Header(labelAngle=0, labelAlign="left")
    by_protocol = alt.Row("protocol:N", sort=list(protocols), title=None, header=header)
    return layers.facet(row=by_protocol).resolve_scale(y="independent")


def order_chart(order: pl.DataFrame) -> alt.TopLevelMixin:
    """Forecast rank with its interval (blue), rank by the measured scores (ring), by candidate."""
    rows = order.select("candidate", "rank", "rank_low", "rank_high", "measured_rank").to_dicts()
    names = [row["candidate"] for row in rows]
    x = alt.Scale(domain=[1, max(2, len(rows))], nice=False, padding=8)
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("candidate:N", sort=names, title=None))
    interval = base.mark_rule(color=_BLUE, strokeWidth=5, opacity=0.3).encode(
        x=alt.X("rank_low:Q", scale=x, title="rank (1 is best)"), x2="rank_high:Q"
    )
    forecast = base.mark_circle(color=_BLUE, size=60, opacity=1).encode(x=alt.X("rank:Q", scale=x))
    measured = base.mark_point(color=_BLACK, size=90).encode(x=alt.X("measured_rank:Q", scale=x))
    known = measured.transform_filter("datum.measured_rank != null")
    return alt.layer(interval, forecast, known).properties(width=_WIDTH)


def proxy_grid(correlations: pl.DataFrame) -> alt.TopLevelMixin:
    """Spearman's rho of each metric under each weighting."""
    rows = (
        correlations.filter(pl.col("spearman").is_not_null())
        .select("metric", "weighting", "spearman")
        .to_dicts()
    )
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("weighting:N", sort=list(dict.fromkeys(r["weighting"] for r in rows)), title=None),
        y=alt.Y("metric:N", sort=list(dict.fromkeys(r["metric"] for r in rows)), title=None),
    )
    scale = alt.Scale(scheme="redblue", domain=[-1, 1])
    tiles = base.mark_rect().encode(color=alt.Color("spearman:Q", scale=scale, title="rho"))
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text("spearman:Q", format="+.2f"),
        color=alt.condition("abs(datum.spearman) > 0.6", alt.value("white"), alt.value(_BLACK)),
    )
    return alt.layer(tiles, numbers).properties(width=_WIDTH, height=300)
