"""The scatter: a proxy against the measured score, a named dot per candidate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from app.labels import place, shortened
from app.text import direction, proxy_title
from forecast.analysis.ranking.single_proxy import TargetCorrelations, proxy_values, target_scores
from forecast.proxies.token_proxies import Proxy
from forecast.safe_text import clean
from forecast.warehouse.population import Population

HEIGHT = 460  # pixels, with axes, titles and legend
# Pixels that names are laid out for: a little less than the plot itself has in a window of 1280. A wider one
# has room to spare.
PLOT = (740, 340)
_INK = "#808495"  # a grey that can be read on white and on black


@dataclass(frozen=True)
class Dot:
    """One candidate."""

    candidate: str
    family: str
    proxy: float  # in the proxy's own unit
    measured: float
    stderr: float | None  # of measured; None where unknown


@dataclass(frozen=True)
class Scale:
    """One axis: its domain, and where on it a value lies."""

    low: float
    high: float
    log: bool = False
    reverse: bool = False

    def share(self, value: float) -> float:
        """0 at the axis' start, 1 at its end."""
        low, high, v = (self._straight(x) for x in (self.low, self.high, value))
        share = (v - low) / (high - low)
        return 1 - share if self.reverse else share

    def value(self, share: float) -> float:
        """The inverse of `share`."""
        low, high = self._straight(self.low), self._straight(self.high)
        v = low + (1 - share if self.reverse else share) * (high - low)
        return math.exp(v) if self.log else v

    def _straight(self, value: float) -> float:
        return math.log(value) if self.log else value

    def altair(self) -> alt.Scale:
        """For a chart."""
        kind = "log" if self.log else "linear"
        return alt.Scale(type=kind, domain=[self.low, self.high], nice=False, reverse=self.reverse)


def scale_of(values: Sequence[float], log: bool = False, reverse: bool = False) -> Scale:
    """An axis that holds the values with a margin of 8 % on both sides; of one value alone, around it."""
    low, high = min(values), max(values)
    if log:
        margin = (high / low) ** 0.08 if high > low else 1.5
        return Scale(low / margin, high * margin, True, reverse)
    margin = 0.08 * (high - low) if high > low else abs(high) / 10 or 1.0
    return Scale(low - margin, high + margin, False, reverse)


def dots_of(population: Population, report: TargetCorrelations, proxy: Proxy) -> list[Dot]:
    """The candidates that have a score of the target."""
    values = proxy_values(population, report, proxy)
    scores, errors = target_scores(population, report)
    return [
        Dot(
            clean(name),
            clean(family or "unknown"),
            float(values[i]),
            float(scores[i]),
            float(errors[i]) if math.isfinite(errors[i]) else None,
        )
        for i, (name, family) in enumerate(zip(population.candidates, population.families, strict=True))
        if math.isfinite(scores[i])
    ]


def scatter(dots: Sequence[Dot], proxy: Proxy, measured: str) -> tuple[alt.LayerChart, int]:
    """The chart, and how many names do not fit into it.

    The better candidates stand on the right, whichever way the proxy runs. A mean rank, which spans decades,
    has a logarithmic axis.
    """
    log = proxy.metric.name == "rank"
    across = scale_of([d.proxy for d in dots], log, reverse=proxy.metric.better == "low")
    up = scale_of([end for d in dots for end in _ends(d)])
    note = f"{direction(proxy)}; logarithmic" if log else direction(proxy)
    title = f"{proxy_title(proxy.name)} ({note})"
    ticks = alt.Axis(format="~s" if log else "~g", tickCount=8)
    # Every layer has the same two axes: one that leaves them open would draw 0 into the picture.
    x = {"scale": across.altair(), "title": title, "axis": ticks}
    y = {"scale": up.altair(), "title": measured, "axis": alt.Axis(tickCount=7)}
    rows = [_row(dot) for dot in dots]
    base = alt.Chart(alt.Data(values=rows)).encode(x=alt.X("proxy:Q", **x))
    families = {dot.family for dot in dots}
    bars = base.mark_rule(color=_INK, opacity=0.7).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    points = base.mark_circle(size=90, opacity=1).encode(
        y=alt.Y("measured:Q", **y),
        color=alt.Color("family:N", legend=alt.Legend(orient="top", title=None))
        if len(families) > 1
        else alt.value("#3b82f6"),
        tooltip=[
            alt.Tooltip("candidate:N"),
            alt.Tooltip("family:N"),
            alt.Tooltip("proxy:Q", title=proxy_title(proxy.name), format=".4g"),
            alt.Tooltip("score:N", title="measured"),
        ],
    )
    names, unnamed = _names(dots, across, up)
    layers = [*_name_layers(names, alt.X("x:Q", **x), alt.Y("y:Q", **y)), bars, points]
    return alt.layer(*layers).properties(height=HEIGHT), unnamed


def _ends(dot: Dot) -> tuple[float, float]:
    """Low and high end of the error bar; the score itself where its error is unknown."""
    error = dot.stderr or 0.0
    return dot.measured - error, dot.measured + error


def _row(dot: Dot) -> dict[str, Any]:
    error = dot.stderr
    low, high = _ends(dot)
    return {
        "candidate": dot.candidate,
        "family": dot.family,
        "proxy": dot.proxy,
        "measured": dot.measured,
        "low": low,
        "high": high,
        "score": f"{dot.measured:.3f}" + ("" if error is None else f" ± {error:.3f}"),
    }


def _names(dots: Sequence[Dot], across: Scale, up: Scale) -> tuple[list[dict[str, Any]], int]:
    """Rows of the names that have a place, in the units of the axes, and how many have none."""
    width, height = PLOT
    pixels = [(across.share(d.proxy) * width, (1 - up.share(d.measured)) * height) for d in dots]
    ends = [_ends(dot) for dot in dots]
    bars = [((1 - up.share(high)) * height, (1 - up.share(low)) * height) for low, high in ends]
    spots = place(pixels, [d.candidate for d in dots], width, height, bars)
    rows = [
        {
            "name": shortened(dot.candidate),
            "x": across.value(spot.x / width),
            "y": up.value(1 - spot.y / height),
            "dot_x": dot.proxy,
            "dot_y": dot.measured,
            "align": spot.align,
            "far": spot.far,
        }
        for dot, spot in zip(dots, spots, strict=True)
        if spot is not None
    ]
    return rows, len(dots) - len(rows)


def _name_layers(rows: Sequence[dict[str, Any]], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    base = alt.Chart(alt.Data(values=list(rows))).encode(x=x, y=y)
    lines = base.transform_filter("datum.far").mark_rule(color=_INK, opacity=0.5, strokeWidth=0.7)
    texts = [
        base.transform_filter(f"datum.align == '{align}'")
        .mark_text(align=align, baseline="middle", fontSize=11, color=_INK)
        .encode(text="name:N")
        for align in sorted({row["align"] for row in rows})
    ]
    return [lines.encode(x2="dot_x:Q", y2="dot_y:Q"), *texts]
