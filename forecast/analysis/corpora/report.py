"""The report as one HTML file: the same figures as in the terminal, with plots."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forecast.analysis.corpora.compare import Report
from forecast.analysis.corpora.observations_from_file import MEAN
from forecast.analysis.corpora.report_record import ACCOUNTING
from forecast.report.page import Page

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt

_CEILING, _INK = "#1f2430", "#5b6170"
_COLOURS = {"proxy": "#2563eb", "accuracy": "#d97706", "cross-entropy": "#059669", "scaling law": "#9aa0ad"}
_WIDTH, _HEIGHT = 640, 360  # pixels of a plot, without axes
_MOST_ROWS = 600  # of the table of all rows


def report_page(report: Report, source: str) -> Page:
    """Everything that `forecast corpora` says."""
    main = report.targets.main.task
    page = Page(
        f"Corpora of {source}",
        f"{len(report.panel.corpora)} corpora, {len(report.panel.sizes)} sizes, "
        f"{len(report.panel.metrics)} metrics, "
        f"{len(report.targets.tasks)} target tasks; target: {report.targets.metric} of "
        f"{report.accounting.target_size or 'the target runs'}; seed {report.options.seed}",
    )
    for warning in report.warnings:
        page.warning(warning)
    for target in sorted(report.targets.tasks, key=lambda target: target.task != main):
        _task(page, report, target.task, target.task == main)
    _laws(page, report, main)
    _all_rows(page, report)
    page.heading("What is counted as compute")
    page.text(ACCOUNTING + ".")
    if report.accounting.expert_flops is not None:
        share = report.accounting.expert_flops / report.accounting.target_flops
        page.text(
            f"Making the experts' solutions: {report.accounting.expert_flops:.3g} FLOPs ({share:.2e}), once."
        )
    return page


def _task(page: Page, report: Report, task: str, is_main: bool) -> None:
    page.heading(f"Decisions about {task}")
    if is_main:
        page.text(
            "Share of corpus pairs that a small run orders as the target does, against what the "
            "runs of one corpus "
            "cost, as a share of one target run. Lines are the frontier of each kind: nothing "
            "as cheap decides "
            "better. Small dots: one run of each corpus; large: the mean over seeds, at the cost of all runs."
        )
    ways = [way for way in report.ways[task] if way.cost is not None]
    if ways:
        page.chart(
            _frontier_chart(report, task),
            "decision accuracy against compute; dashed: noise ceiling where seeds of the target are known",
            f"Pareto frontier of decision accuracy on {task} against compute, by kind of metric",
        )
    if is_main:
        _purchases(page, report, task)
    found = report.best.get(task)
    if found is not None and found[0].null.mean is not None:
        best, row = found
        page.text(
            f"Best of {best.n_rows} rows: {row.metric} at {row.size}, {best.accuracy:.3f}. With "
            f"the targets dealt out "
            f"to other corpora the best of as many reaches {best.null.mean:.2f} on average and "
            f"{best.null.q95 or 0:.2f} in 5 % of cases (p = {best.null.p:.3f})."
        )


def _frontier_chart(report: Report, task: str) -> "alt.TopLevelMixin":
    import altair as alt

    from forecast.analysis.corpora.pareto_frontier import comes_first, frontier_of

    ways = [way for way in report.ways[task] if way.cost is not None]
    dots = [
        {"kind": w.kind, "cost": w.cost, "accuracy": w.accuracy, "size": 30 if w.n_runs == 1 else 90}
        for w in ways
    ]
    lines: list[dict[str, Any]] = []
    kinds = [kind for kind in _COLOURS if any(way.kind == kind for way in ways)]
    for kind in kinds:
        own = [w for w in ways if w.kind == kind and comes_first(w, report.accounting.target_size)]
        lines += [{"kind": kind, "cost": w.cost, "accuracy": w.accuracy} for w in frontier_of(own)]
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
    ceiling = next(c for c in report.ceilings if c.task == task).decision_accuracy
    if ceiling is not None:
        rule = alt.Chart(alt.Data(values=[{"accuracy": ceiling}]))
        layers.append(rule.mark_rule(color=_CEILING, strokeDash=[6, 4]).encode(y=y))
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT)


def _purchases(page: Page, report: Report, task: str) -> None:
    bought = [p for p in report.purchases if p.task == task]
    if not bought:
        return
    page.heading("What to buy for a budget")
    _table(
        page,
        {
            "budget": [p.budget for p in bought],
            "metric": [p.way.metric if p.way else "nothing is that cheap" for p in bought],
            "size": [p.way.size if p.way else None for p in bought],
            "step": [p.way.step if p.way else None for p in bought],
            "runs": [p.way.n_runs if p.way else None for p in bought],
            "cost": [p.way.cost if p.way else None for p in bought],
            "decision accuracy": [p.way.accuracy if p.way else None for p in bought],
            "regret": [p.regret.observed if p.regret else None for p in bought],
            "expected": [p.regret.expected if p.regret else None for p in bought],
            "low": [p.regret.low if p.regret else None for p in bought],
            "high": [p.regret.high if p.regret else None for p in bought],
            "anew": [p.expected_anew for p in bought],
            "at random": [p.regret.random if p.regret else None for p in bought],
            "bought again": [p.bought_again for p in bought],
            "puts first": [", ".join(dict.fromkeys(p.regret.first)) if p.regret else None for p in bought],
        },
        f"regret: {report.targets.metric} of the best corpus less that of the chosen one; "
        f"expected, low, high: over "
        "corpora drawn again; anew: with the purchase made again in every draw; at random: any corpus",
    )


def _laws(page: Page, report: Report, task: str) -> None:
    rows = [row for row in report.laws if row.task == task]
    if not rows:
        return
    page.heading(f"Scaling laws, for {task}")
    page.text(
        "Fitted to the means over seeds of each corpus, and read off at the target's size. "
        "Errors are means over "
        "corpora of the forecast, against what the last columns name."
    )
    _table(
        page,
        {
            "law": [row.law for row in rows],
            "of": [", ".join(row.metrics) for row in rows],
            "sizes": [f"{row.sizes[0]} to {row.sizes[-1]}" for row in rows],
            "cost": [row.cost_fraction for row in rows],
            "decision accuracy": [row.decision_accuracy for row in rows],
            "rho": [row.spearman for row in rows],
            "relative error": [row.relative_error for row in rows],
            "absolute error": [row.absolute_error for row in rows],
            "compared with": [row.compared_with for row in rows],
            "failed": [len(row.failed) for row in rows],
            "why not": [row.reason for row in rows],
        },
        "failed: corpora whose fit failed; such a law is no way to decide",
    )


def _all_rows(page: Page, report: Report) -> None:
    page.heading("All rows")
    rows = report.rows[:_MOST_ROWS]
    many_steps = len({row.step for row in rows}) > 1
    _table(
        page,
        {
            "task": [row.task for row in rows],
            "metric": [row.metric for row in rows],
            "size": [row.size for row in rows],
            **({"step": [row.step for row in rows]} if many_steps else {}),
            "seed": [f"{row.seed} of {row.n_seeds}" if row.seed == MEAN else row.seed for row in rows],
            "compute": [row.compute_fraction for row in rows],
            "decision accuracy": [row.decision_accuracy for row in rows],
            "low": [row.ci_low for row in rows],
            "high": [row.ci_high for row in rows],
            "seeds: low": [row.seed_low for row in rows],
            "seeds: high": [row.seed_high for row in rows],
            "rho": [row.spearman for row in rows],
            "corpora": [row.n_corpora for row in rows],
            "pairs": [row.n_pairs for row in rows],
            "ties": [row.n_ties for row in rows],
            "predicted ties": [row.n_predicted_ties for row in rows],
            "why not": [row.reason for row in rows],
        },
        f"low, high: {100 * report.options.confidence:g}% interval over corpora drawn again with their runs; "
        "seeds: the same corpora with other seeds; ties: pairs tied in the target, left out"
        + (f"; the first {_MOST_ROWS} of {len(report.rows)} rows" if len(report.rows) > _MOST_ROWS else ""),
    )


def _table(page: Page, columns: Mapping[str, Sequence[object]], caption: str) -> None:
    page.table(
        list(columns), [[_cell(c) for c in row] for row in zip(*columns.values(), strict=True)], caption
    )


def _cell(value: object) -> object:
    """Four digits; NaN is a dash."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if value == value else None
    return value
