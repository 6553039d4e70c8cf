"""A table's report for the terminal; no arithmetic beyond formatting. What is missing is a dash."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forecast.analysis.ranking.held_out import TableReport, chosen_counts
from forecast.analysis.ranking.held_out_metrics import Row
from forecast.analysis.ranking.rank_uncertainty import Order
from forecast.analysis.ranking.scorers.mean_score import OWN_MEAN


def report_tables(report: TableReport) -> RenderableType:
    """Scorers under protocols, how they compare, the order of the candidates, and notes in words."""
    rows = report.shown_rows()
    parts: list[RenderableType] = [_scorers(report, rows), _choices(rows)] if rows else []
    if report.comparisons:
        parts.append(_comparisons(report))
    if report.order is not None:
        parts.append(_order(report.order, report.options.confidence))
    parts += [Text("note: " + warning, style="yellow") for warning in report.warnings]
    return Group(*parts)


def _scorers(report: TableReport, rows: Sequence[Row]) -> Table:
    table = Table(
        title=_title(
            f"Held-out Spearman rho: n = {report.n_candidates} candidates of {report.n_families} families, "
            f"{report.n_tasks} tasks, {report.n_features} features\n"
            "p: against the same pipeline with scores dealt out to other candidates, alike on all tasks"
        )
    )
    table.add_column("protocol", no_wrap=True)
    table.add_column("scorer", no_wrap=True)
    interval = f"{100 * report.options.confidence:g}% interval"
    for column in ("rho", interval, "null: mean", "null: 95%", "p", "tau-b", "weighted tau", "n"):
        table.add_column(column, justify="right", no_wrap=True)
    partials = list(dict.fromkeys(name for row in report.rows for name in row.partial))
    for name in partials:
        table.add_column(f"given {name}", justify="right")
    last = None
    for row in rows:
        if last not in (None, row.protocol):
            table.add_section()
        table.add_row(
            row.protocol if row.protocol != last else "",
            Text(row.scorer + (" (the bar)" if row.scorer == OWN_MEAN else "")),
            _signed(row.spearman),
            _interval(row.ci_low, row.ci_high),
            _signed(row.null.mean),
            _signed(row.null.q95),
            "-" if row.null.p is None else f"{row.null.p:.3f}",
            _signed(row.tau_b),
            _signed(row.weighted_tau),
            str(row.n_candidates),
            *(_signed(row.partial.get(name)) for name in partials),
        )
        last = row.protocol
    return table


def _choices(rows: Sequence[Row]) -> Table:
    """What the folds chose most often, or why there is no figure."""
    table = Table(title=_title("What the folds chose most often"))
    table.add_column("protocol", no_wrap=True)
    table.add_column("scorer", no_wrap=True)
    table.add_column("chosen, or why there is no rho")
    last = None
    for row in rows:
        counts = chosen_counts(row.chosen)
        if row.spearman is not None and not counts:
            continue  # it looks at no features, so it chooses none
        words = row.reason or "-"
        if row.spearman is not None:
            words, times = next(iter(counts.items()))
            words = f"{words} ({times} of {row.n_folds} folds)"
        table.add_row(row.protocol if row.protocol != last else "", Text(row.scorer), Text(words))
        last = row.protocol
    return table


def _comparisons(report: TableReport) -> Table:
    table = Table(
        title=_title(
            "Differences of rho on the same held-out cells, families drawn again; "
            "smallest: what this n finds four times in five"
        )
    )
    table.add_column("protocol", no_wrap=True)
    table.add_column("first - second", no_wrap=True)
    for column in ("difference", "interval", "P(first better)", "smallest", "Zou (one task)", "Williams p"):
        table.add_column(column, justify="right", no_wrap=True)
    last = None
    for c in report.comparisons:
        if last not in (None, c.protocol):
            table.add_section()
        table.add_row(
            c.protocol if c.protocol != last else "",
            Text(f"{c.first} - {c.second}"),
            _signed(c.difference),
            _interval(c.ci_low, c.ci_high),
            "-" if c.probability is None else f"{c.probability:.2f}",
            "-" if c.smallest_detectable_difference is None else f"{c.smallest_detectable_difference:.2f}",
            _interval(c.zou_low, c.zou_high),
            "-" if c.williams_p is None else f"{c.williams_p:.3f}",
        )
        last = c.protocol
    return table


def _order(order: Order, confidence: float) -> Table:
    how = "each by fits that saw neither it nor the task" if order.unseen else "by a fit to all cells"
    table = Table(
        title=_title(
            f"{len(order.places)} candidates by {order.scorer}, {how}; {order.n_measured} are measured"
        )
    )
    table.add_column("rank", justify="right")
    table.add_column(f"{100 * confidence:g}%", justify="right", no_wrap=True)
    table.add_column("candidate", no_wrap=True)
    table.add_column("family")
    for column in ("forecast", "P(above next)", "measured rank", "tasks measured"):
        table.add_column(column, justify="right")
    for place in order.places:
        known = place.rank_low is not None and place.rank_high is not None
        table.add_row(
            f"{place.rank:g}",
            f"{place.rank_low:g} to {place.rank_high:g}" if known else "-",
            Text(place.candidate),
            Text(place.family),
            f"{place.forecast:+.2f}",
            "-" if place.above_next is None else f"{place.above_next:.2f}",
            "-" if place.measured_rank is None else f"{place.measured_rank:g}",
            str(place.n_tasks_measured),
        )
    return table


def _title(text: str) -> Text:
    return Text(text, style="table.title", justify="center")


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:+.2f}, {high:+.2f}]"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
