"""The chart of `forecast corpora`: decision accuracy against compute."""

from typing import TYPE_CHECKING, Any

from forecast.analysis.corpora.corpora_result import CorporaResult
from forecast.analysis.corpora.pareto_frontier import comes_first, frontier_of

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt

_CEILING = "#1f2430"
_COLOURS = {"proxy": "#2563eb", "accuracy": "#d97706", "cross-entropy": "#059669", "scaling law": "#9aa0ad"}
_WIDTH, _HEIGHT = 640, 360  # pixels of a plot, without axes


def frontier_chart(result: CorporaResult, task: str) -> "alt.TopLevelMixin":
    """Every way to decide about a task that has a cost, the frontier of each kind, and the noise ceiling."""
    import altair as alt

    ways = [way for way in result.ways[task] if way.cost is not None]
    dots = [
        {"kind": w.kind, "cost": w.cost, "accuracy": w.accuracy, "size": 30 if w.n_runs == 1 else 90}
        for w in ways
    ]
    lines: list[dict[str, Any]] = []
    kinds = [kind for kind in _COLOURS if any(way.kind == kind for way in ways)]
    for kind in kinds:
        own = [w for w in ways if w.kind == kind and comes_first(w, result.accounting.target_size)]
        lines += [
            {"kind": kind, "cost": point.way.cost, "accuracy": point.way.accuracy}
            for point in frontier_of(own)
        ]
    x = alt.X(
        "cost:Q",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format=".0e", tickCount=7),
        title="compute of all runs of one corpus, as a share of one target run",
    )
    lowest = max(0.0, min(0.5, *(way.accuracy for way in ways)) - 0.03)
    y = alt.Y("accuracy:Q", scale=alt.Scale(domain=[lowest, 1.0]), title="decision accuracy")
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=kinds, range=[_COLOURS[kind] for kind in kinds]),
        legend=alt.Legend(orient="top", title=None),
    )
    layers = [
        alt.Chart(alt.Data(values=dots))
        .mark_circle(opacity=0.55)
        .encode(x=x, y=y, color=colour, size=alt.Size("size:Q", scale=None)),
        alt.Chart(alt.Data(values=lines)).mark_line(interpolate="step-after").encode(x=x, y=y, color=colour),
    ]
    ceiling = next(c for c in result.ceilings if c.task == task).decision_accuracy
    if ceiling is not None:
        rule = alt.Chart(alt.Data(values=[{"accuracy": ceiling}]))
        layers.append(rule.mark_rule(color=_CEILING, strokeDash=[6, 4]).encode(y=y))
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT)
