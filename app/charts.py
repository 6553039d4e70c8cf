"""Charts of the Models page."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from forecast.proxies import METRICS, WEIGHTINGS, Proxy
from forecast.ranking.results import Correlation


def scatter(points: Sequence[dict[str, Any]], proxy: Proxy, target: str) -> alt.LayerChart:
    """Proxy against measured score, a labelled dot per candidate with the score's standard error.

    Args:
        points: candidate, family, proxy, measured, low, high (measured -+ standard error, None if unknown).
    """
    direction = {"low": "low is better", "high": "high is better", "learned": "direction learned"}
    x = alt.X(
        "proxy:Q",
        title=f"{proxy.metric.name} × {proxy.weighting.name} ({direction[proxy.metric.better]})",
        # The better candidates stand on the right, whichever way the proxy runs.
        scale=alt.Scale(zero=False, padding=24, reverse=proxy.metric.better == "low"),
    )
    y = alt.Y("measured:Q", title=f"measured: {target}", scale=alt.Scale(zero=False, padding=12))
    base = alt.Chart(alt.Data(values=list(points)))
    bars = base.mark_rule(opacity=0.35).encode(
        x=x, y=alt.Y("low:Q", title=f"measured: {target}"), y2="high:Q"
    )
    dots = base.mark_circle(size=90, opacity=0.9).encode(
        x=x,
        y=y,
        color=alt.Color("family:N", title="family") if _several(points) else alt.value("#3b82f6"),
        tooltip=[
            alt.Tooltip("candidate:N"),
            alt.Tooltip("family:N"),
            alt.Tooltip("proxy:Q", title=proxy.name, format=".4g"),
            alt.Tooltip("measured:Q", format=".3f"),
        ],
    )
    names = base.mark_text(align="left", dx=8, dy=-8, fontSize=11, color="#808495").encode(
        x=x, y=y, text="candidate:N"
    )
    return alt.layer(bars, dots, names).properties(height=430).interactive()


def heatmap(correlations: Sequence[Correlation]) -> alt.LayerChart:
    """All 80 rhos, metric by weighting."""
    values = [
        {
            "metric": c.metric,
            "weighting": c.weighting,
            "rho": c.spearman,
            "label": "-" if c.spearman is None else f"{c.spearman:+.2f}",
            "interval": "-"
            if c.ci_low is None or c.ci_high is None
            else f"[{c.ci_low:+.2f}, {c.ci_high:+.2f}]",
            "strong": c.spearman is not None and abs(c.spearman) > 0.6,
        }
        for c in correlations
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X(
            "weighting:N",
            sort=[w.name for w in WEIGHTINGS],
            title=None,
            axis=alt.Axis(labelAngle=-30, orient="top", labelLimit=140),
        ),
        y=alt.Y("metric:N", sort=[m.name for m in METRICS], title=None, axis=alt.Axis(labelLimit=160)),
    )
    cells = base.mark_rect().encode(
        color=alt.Color("rho:Q", scale=alt.Scale(scheme="redblue", domain=[-1, 1]), title="rho"),
        tooltip=["metric:N", "weighting:N", alt.Tooltip("label:N", title="rho"), "interval:N"],
    )
    text = base.mark_text(fontSize=11).encode(
        text="label:N",
        color=alt.condition("datum.strong", alt.value("white"), alt.value("#222")),
    )
    return alt.layer(cells, text).properties(height=340)


def _several(points: Sequence[dict[str, Any]]) -> bool:
    return len({point["family"] for point in points}) > 1


def finite(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None
