"""The heatmap: rho of all 80 proxies, metric by weighting."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from app.text import interval, signed
from forecast.analysis.ranking.single_proxy import Correlation
from forecast.proxies.token_proxies import METRICS, WEIGHTINGS

# Pixels: of a row, of what stands above the first one.
_ROW = 30
_HEADINGS = 50
# Streamlit's theme pushes the outermost labels inwards, off the middle of their cells.
_BARE = {"ticks": False, "domain": False, "labelOverlap": False, "labelFlush": False}


def heatmap(correlations: Sequence[Correlation], chosen: str) -> alt.LayerChart:
    """A cell with its figure for each; the proxy that is chosen is framed."""
    values: list[dict[str, Any]] = [
        {
            "metric": c.metric,
            "weighting": c.weighting,
            "rho": c.spearman,
            "label": "–" if c.spearman is None else signed(c.spearman),
            "interval": interval(c) or "–",
            "tau": "–" if c.kendall is None else signed(c.kendall),
            "ink": _ink(c.spearman),
            "chosen": c.proxy == chosen,
        }
        for c in correlations
    ]
    columns = alt.X(
        "weighting:N",
        sort=[w.name for w in WEIGHTINGS],
        title="weighting of the tokens",
        axis=alt.Axis(labelAngle=0, orient="top", labelLimit=140, **_BARE),
        scale=alt.Scale(paddingInner=0.03),
    )
    rows = alt.Y(
        "metric:N",
        sort=[m.name for m in METRICS],
        title="metric",
        axis=alt.Axis(labelLimit=160, **_BARE),
        scale=alt.Scale(paddingInner=0.08),
    )
    base = alt.Chart(alt.Data(values=values)).encode(x=columns, y=rows)
    cells = base.mark_rect(cornerRadius=3).encode(
        color=alt.Color("rho:Q", scale=alt.Scale(scheme="redblue", domain=[-1, 1]), legend=None),
        tooltip=[
            "metric:N",
            "weighting:N",
            alt.Tooltip("label:N", title="rho"),
            alt.Tooltip("interval:N"),
            alt.Tooltip("tau:N", title="tau-b"),
        ],
    )
    frame = base.transform_filter("datum.chosen").mark_rect(
        filled=False, stroke="#f59e0b", strokeWidth=3, cornerRadius=3
    )
    # A layer per colour of the figures: a colour scale of their own would be merged with that of the cells.
    texts = [
        base.transform_filter(f"datum.ink == '{ink}'")
        .mark_text(fontSize=12, color=ink)
        .encode(text="label:N")
        for ink in sorted({value["ink"] for value in values})
    ]
    return alt.layer(cells, frame, *texts).properties(height=_ROW * len(METRICS) + _HEADINGS)


def _ink(rho: float | None) -> str:
    """A colour that can be read on the cell of this figure; cells without one show the page."""
    if rho is None:
        return "#808495"
    return "#fff" if abs(rho) > 0.6 else "#222"
