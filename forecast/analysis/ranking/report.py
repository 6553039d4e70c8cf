"""The report as one HTML file: the same figures as in the terminal, with plots."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forecast.analysis.ranking.held_out import TableReport, chosen_counts
from forecast.analysis.ranking.held_out_metrics import Row
from forecast.analysis.ranking.results import Ranking
from forecast.report.page import Page

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt

_FOUND, _CHANCE, _MEASURED = "#2563eb", "#9aa0ad", "#1f2430"
_WIDTH = 520  # pixels of a plot, without axes


def report_page(report: TableReport | None, source: str, ranking: Ranking | None = None) -> Page:
    """Everything that `forecast rank` says.

    Args:
        report: the held-out figures; None where nothing is measured.
        source: the file that was ranked.
        ranking: where the source is a run: every proxy by itself.
    """
    n = ""
    if report is not None:
        n = (
            f"{report.n_candidates} candidates of {report.n_families} families, {report.n_tasks} tasks, "
            f"{report.n_features} features; seed {report.options.seed}; "
            + ", ".join(f"{name} {version}" for name, version in report.versions.items())
        )
    page = Page(f"Ranking of {source}", n)
    for warning in [*(report.warnings if report else ()), *(ranking.warnings if ranking else ())]:
        page.warning(warning)
    if report is not None:
        _held_out(page, report)
        _order(page, report)
        _comparisons(page, report)
    if ranking is not None:
        _proxies(page, ranking)
    return page


def _held_out(page: Page, report: TableReport) -> None:
    page.heading("How well each scorer ranks what it has not seen")
    page.text(
        "Spearman's rho between forecasts and measured scores on held-out tasks. The grey bar is what the "
        "same pipeline reaches when scores are dealt out to other candidates (mean to 95th percentile): "
        "under leave-2-tasks-out a scorer may recognise the candidates, and the bar shows how far that goes."
    )
    if any(row.spearman is not None for row in report.rows):
        page.chart(
            _rows_chart(report),
            f"rho with its {100 * report.options.confidence:g}% interval over candidates, families drawn "
            "together",
            "Held-out rank correlation of every scorer under every protocol, with intervals and nulls",
        )
    shown = report.shown_rows()
    partials = list(dict.fromkeys(name for row in shown for name in row.partial))
    figures: dict[str, Sequence[object]] = {
        "protocol": [row.protocol for row in shown],
        "scorer": [row.scorer for row in shown],
        "rho": [row.spearman for row in shown],
        "low": [row.ci_low for row in shown],
        "high": [row.ci_high for row in shown],
        "null: mean": [row.null.mean for row in shown],
        "null: 95%": [row.null.q95 for row in shown],
        "p": [row.null.p for row in shown],
        "tau-b": [row.tau_b for row in shown],
        "weighted tau": [row.weighted_tau for row in shown],
        "n": [row.n_candidates for row in shown],
        "families": [row.n_families for row in shown],
        "tasks": [row.n_tasks for row in shown],
        "rhos": [row.n_panels for row in shown],
        **{f"given {name}": [row.partial.get(name) for row in shown] for name in partials},
        "smallest rho found": [row.smallest_detectable_rho for row in shown],
        "chosen, or why not": [_chosen(row) for row in shown],
    }
    _table(
        page,
        figures,
        "smallest rho found: on one task, four times in five, with this many candidates",
    )


def _table(page: Page, columns: Mapping[str, Sequence[object]], caption: str) -> None:
    """With three decimals: more would say more than these figures know."""
    rows = [
        [round(cell, 3) if isinstance(cell, float) else cell for cell in row]
        for row in zip(*columns.values(), strict=True)
    ]
    page.table(list(columns), rows, caption)


def _chosen(row: Row) -> str | None:
    counts = chosen_counts(row.chosen)
    if row.spearman is None or not counts:
        return row.reason
    return "; ".join(f"{words} ({times} of {row.n_folds})" for words, times in list(counts.items())[:3])


def _rows_chart(report: TableReport) -> "alt.TopLevelMixin":
    import altair as alt

    rows: list[dict[str, Any]] = [
        {
            "scorer": row.scorer,
            "protocol": row.protocol,
            "rho": row.spearman,
            "low": row.ci_low,
            "high": row.ci_high,
            "null_mean": row.null.mean,
            "null_high": row.null.q95,
        }
        for row in report.rows
        if row.spearman is not None
    ]
    names = list(dict.fromkeys(row["scorer"] for row in rows))
    x = alt.Scale(domain=[-1, 1])
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("scorer:N", sort=names, title=None))
    null = base.mark_bar(color=_CHANCE, opacity=0.45, height=12).encode(
        x=alt.X("null_mean:Q", scale=x, title="Spearman's rho"), x2="null_high:Q"
    )
    interval = base.mark_rule(color=_FOUND).encode(x=alt.X("low:Q", scale=x), x2="high:Q")
    points = base.mark_circle(color=_FOUND, size=70, opacity=1).encode(x=alt.X("rho:Q", scale=x))
    layers = alt.layer(null, interval, points).properties(width=_WIDTH)
    return layers.facet(
        row=alt.Row(
            "protocol:N",
            sort=list(report.options.protocols),
            title=None,
            header=alt.Header(labelAngle=0, labelAlign="left"),
        )
    ).resolve_scale(y="independent")


def _order(page: Page, report: TableReport) -> None:
    order = report.order
    if order is None:
        return
    page.heading("The order of the candidates")
    how = "by fits that saw neither it nor the task" if order.unseen else "by a fit to all cells"
    page.text(
        f"By {order.scorer}; each candidate is forecast {how}; {order.n_measured} are measured."
        + (f" There are {order.reason}." if order.reason else "")
    )
    if any(place.rank_low is not None for place in order.places) and len(order.places) <= 100:
        page.chart(
            _order_chart(report),
            "forecast rank with its interval (blue), rank by the measured scores (ring)",
            "Interval of the rank of every candidate, and its measured rank",
        )
    _table(
        page,
        {
            "rank": [p.rank for p in order.places],
            "low": [p.rank_low for p in order.places],
            "high": [p.rank_high for p in order.places],
            "candidate": [p.candidate for p in order.places],
            "family": [p.family for p in order.places],
            "forecast": [p.forecast for p in order.places],
            "P(above next)": [p.above_next for p in order.places],
            "measured rank": [p.measured_rank for p in order.places],
            "tasks": [p.n_tasks_measured for p in order.places],
        },
        f"low, high: {100 * report.options.confidence:g}% interval of the rank of a candidate like this one",
    )


def _order_chart(report: TableReport) -> "alt.TopLevelMixin":
    import altair as alt

    assert report.order is not None
    rows = [
        {
            "candidate": p.candidate,
            "rank": p.rank,
            "low": p.rank_low,
            "high": p.rank_high,
            "measured": p.measured_rank,
        }
        for p in report.order.places
    ]
    names = [row["candidate"] for row in rows]
    x = alt.Scale(domain=[1, max(2, len(rows))], nice=False, padding=8)
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("candidate:N", sort=names, title=None))
    interval = base.mark_rule(color=_FOUND, strokeWidth=5, opacity=0.3).encode(
        x=alt.X("low:Q", scale=x, title="rank (1 is best)"), x2="high:Q"
    )
    forecast = base.mark_circle(color=_FOUND, size=60, opacity=1).encode(x=alt.X("rank:Q", scale=x))
    measured = base.mark_point(color=_MEASURED, size=90).encode(x=alt.X("measured:Q", scale=x))
    return alt.layer(interval, forecast, measured.transform_filter("datum.measured != null")).properties(
        width=_WIDTH
    )


def _comparisons(page: Page, report: TableReport) -> None:
    if not report.comparisons:
        return
    page.heading("Is one scorer better than another?")
    pairs = report.comparisons
    _table(
        page,
        {
            "protocol": [c.protocol for c in pairs],
            "first": [c.first for c in pairs],
            "second": [c.second for c in pairs],
            "difference": [c.difference for c in pairs],
            "low": [c.ci_low for c in pairs],
            "high": [c.ci_high for c in pairs],
            "P(first better)": [c.probability for c in pairs],
            "smallest found": [c.smallest_detectable_difference for c in pairs],
            "Zou low": [c.zou_low for c in pairs],
            "Zou high": [c.zou_high for c in pairs],
            "Williams p": [c.williams_p for c in pairs],
            "n": [c.n_candidates for c in pairs],
        },
        "on the same held-out cells, families drawn again; smallest found: the true difference that this n "
        "finds four times in five; Zou and Williams: as if the mean rhos were of one task",
    )


def _proxies(page: Page, ranking: Ranking) -> None:
    for report in ranking.reports:
        page.heading(f"Every proxy by itself against {report.target}")
        page.text(
            f"n = {report.n_candidates} candidates"
            + (f", {report.n_items} questions" if report.n_items else "")
            + ". Picked after looking, the best of 80 is too good: "
            + (
                f"under shuffled scores the best reaches {report.best_null_mean:.2f} on average, "
                f"p = {report.best_p:.3f}."
                if report.best_p is not None and report.best_null_mean is not None
                else "there is no null."
            )
        )
        if any(c.spearman is not None for c in report.correlations):
            page.chart(
                _grid(report.correlations),
                "Spearman's rho of each metric under each weighting, positive where it ranks good candidates "
                "high (entropy: where more entropy is better)",
                "Grid of rank correlations of the 80 proxies",
            )
        known = report.correlations
        _table(
            page,
            {
                "metric": [c.metric for c in known],
                "weighting": [c.weighting for c in known],
                "rho": [c.spearman for c in known],
                "low": [c.ci_low for c in known],
                "high": [c.ci_high for c in known],
                "tau-b": [c.kendall for c in known],
                "n": [c.n_candidates for c in known],
            },
            f"{100 * ranking.confidence:g}% intervals over solutions and questions",
        )


def _grid(correlations: Any) -> "alt.TopLevelMixin":
    import altair as alt

    rows = [
        {"metric": c.metric, "weighting": c.weighting, "rho": c.spearman}
        for c in correlations
        if c.spearman is not None
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("weighting:N", sort=list(dict.fromkeys(r["weighting"] for r in rows)), title=None),
        y=alt.Y("metric:N", sort=list(dict.fromkeys(r["metric"] for r in rows)), title=None),
    )
    scale = alt.Scale(scheme="redblue", domain=[-1, 1])
    tiles = base.mark_rect().encode(color=alt.Color("rho:Q", scale=scale, title="rho"))
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text("rho:Q", format="+.2f"),
        color=alt.condition("abs(datum.rho) > 0.6", alt.value("white"), alt.value("#1f2430")),
    )
    return alt.layer(tiles, numbers).properties(width=_WIDTH, height=300)
