"""A report for the terminal; no arithmetic beyond formatting. What is missing is a dash."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forecast.analysis.corpora.budget_choice import Purchase
from forecast.analysis.corpora.compare import Report
from forecast.analysis.corpora.observations_from_file import MEAN
from forecast.analysis.corpora.pareto_frontier import Way
from forecast.analysis.corpora.results import Row
from forecast.analysis.corpora.scaling_law_rows import LawRow

_MOST = 60  # rows of one table; --json and --html have all


def report_tables(report: Report) -> RenderableType:
    """The main task's rows, all tasks in short, frontier, purchases and scaling laws; then notes in words."""
    main = report.targets.main.task
    parts: list[RenderableType] = [_rows(report, main)]
    if len(report.targets.tasks) > 1:
        parts.append(_tasks(report))
    if report.frontiers[main]:
        parts.append(_frontier(report, main))
    if bought := [purchase for purchase in report.purchases if purchase.task == main]:
        parts.append(_purchases(bought, report, main))
    if laws := [row for row in report.laws if row.task == main]:
        parts.append(_laws(laws, main))
    parts += [
        Text("note: " + words, style="yellow") for words in [*_best_words(report, main), *report.warnings]
    ]
    return Group(*parts)


def _rows(report: Report, task: str) -> Table:
    rows = [row for row in report.rows if row.task == task]
    seeds = [seed for seed in report.panel.seeds if any(row.seed == seed for row in rows)]
    many_steps = len({row.step for row in rows}) > 1
    ceiling = next(c for c in report.ceilings if c.task == task)
    words = "" if ceiling.decision_accuracy is None else f"; noise ceiling {ceiling.decision_accuracy:.3f}"
    table = Table(
        title=_title(
            f"Decision accuracy against {report.targets.metric} of {task}: "
            f"{len(report.panel.corpora)} corpora{words}\n"
            "interval: over corpora drawn again with their runs; seeds: the same corpora with other seeds"
        )
    )
    table.add_column("metric", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    if many_steps:
        table.add_column("step", justify="right", no_wrap=True)
    table.add_column("compute", justify="right", no_wrap=True)
    for seed in seeds:
        table.add_column(f"seed {seed}", justify="right", no_wrap=True)
    interval = f"{100 * report.options.confidence:g}%"
    for column in ("mean of seeds", f"{interval} interval", f"{interval} seeds", "rho", "pairs", "ties"):
        table.add_column(column, justify="right", no_wrap=True)
    means = [row for row in rows if row.seed == MEAN]
    by_seed = {(row.metric, row.size, row.step, row.seed): row for row in rows}
    last = None
    for row in means[:_MOST]:
        if last not in (None, row.metric):
            table.add_section()
        cells = [Text(row.metric if row.metric != last else ""), Text(row.size)]
        cells += [
            Text("-" if row.step is None else f"{row.step:g}" if isinstance(row.step, float) else row.step)
        ] * (1 if many_steps else 0)
        cells.append(Text(_fraction(row.compute_fraction)))
        for seed in seeds:
            one = by_seed.get((row.metric, row.size, row.step, seed))
            cells.append(Text(_share(one.decision_accuracy if one else None)))
        table.add_row(
            *cells,
            _share(row.decision_accuracy),
            _interval(row.ci_low, row.ci_high),
            _interval(row.seed_low, row.seed_high),
            "-" if row.spearman is None else f"{row.spearman:+.2f}",
            str(row.n_pairs),
            str(row.n_ties),
        )
        last = row.metric
    if len(means) > _MOST:
        table.caption = f"the first {_MOST} of {len(means)} rows; --json and --html have all"
    return table


def _tasks(report: Report) -> Table:
    """Best row of each task, and one metric's figures per size where there is one checkpoint of each."""
    table = Table(title=_title("By task: the best mean of seeds below the target's size"))
    for column in ("task", "best metric"):
        table.add_column(column)
    for column in ("size", "decision accuracy", "interval", "p (best of all)", "best by chance", "ceiling"):
        table.add_column(column, justify="right", no_wrap=True)
    ceilings = {ceiling.task: ceiling for ceiling in report.ceilings}
    for target in report.targets.tasks:
        found = report.best.get(target.task)
        row: Row | None = found[1] if found else None
        null = found[0].null if found else None
        table.add_row(
            Text(target.task),
            Text(row.metric if row else "-"),
            Text(row.size if row else "-"),
            _share(row.decision_accuracy if row else None),
            _interval(row.ci_low, row.ci_high) if row else "-",
            "-" if null is None or null.p is None else f"{null.p:.3f}",
            _share(null.mean if null else None),
            _share(ceilings[target.task].decision_accuracy),
        )
    return table


def _frontier(report: Report, task: str) -> Table:
    table = Table(
        title=_title(
            f"Pareto frontier for {task}: nothing as cheap decides better\n"
            "cost: compute of all runs of one corpus over that of one target run"
        )
    )
    table.add_column("metric")
    table.add_column("kind", no_wrap=True)
    for column in ("size", "step", "runs", "cost", "decision accuracy"):
        table.add_column(column, justify="right", no_wrap=True)
    for way in report.frontiers[task][:_MOST]:
        table.add_row(
            Text(way.metric),
            way.kind,
            Text(way.size),
            _step(way),
            str(way.n_runs),
            _fraction(way.cost),
            _share(way.accuracy),
        )
    return table


def _purchases(bought: Sequence[Purchase], report: Report, task: str) -> Table:
    table = Table(
        title=_title(
            f"What to buy, and what its choice gives away of {report.targets.metric} of {task}\n"
            "expected: over corpora drawn again; anew: with the purchase made again in every draw"
        )
    )
    table.add_column("budget", justify="right", no_wrap=True)
    table.add_column("metric")
    for column in ("size", "step", "runs", "decision accuracy", "regret", "expected", "anew", "at random"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("bought again", justify="right", no_wrap=True)
    for p in bought:
        if p.way is None or p.regret is None:
            table.add_row(_fraction(p.budget), "nothing is that cheap", *["-"] * 9)
            continue
        table.add_row(
            _fraction(p.budget),
            Text(p.way.metric),
            Text(p.way.size),
            _step(p.way),
            str(p.way.n_runs),
            _share(p.way.accuracy),
            *(_small(v) for v in (p.regret.observed, p.regret.expected, p.expected_anew, p.regret.random)),
            "-" if p.bought_again is None else f"{100 * p.bought_again:.0f}%",
        )
    return table


def _laws(rows: Sequence[LawRow], task: str) -> Table:
    table = Table(
        title=_title(
            f"Scaling laws fitted to means of seeds, for {task}\n"
            "errors: mean over corpora of the forecast for the target's size"
        )
    )
    table.add_column("law", no_wrap=True)
    table.add_column("sizes", no_wrap=True)
    for column in ("cost", "decision accuracy", "rho", "relative error", "absolute error", "failed"):
        table.add_column(column, justify="right", no_wrap=True)
    best: dict[tuple[str, ...], list[LawRow]] = {}
    for row in rows:
        best.setdefault((row.law, *row.metrics), []).append(row)
    # Of each law the smallest, the largest and the best set of sizes.
    for own in best.values():
        fitted = [row for row in own if row.decision_accuracy is not None]
        shown = (
            [own[0], max(fitted, key=lambda row: row.decision_accuracy or 0.0), own[-1]]
            if fitted
            else own[:1]
        )
        for one in [row for i, row in enumerate(shown) if row not in shown[:i]]:
            table.add_row(
                Text(one.law),
                Text(f"{one.sizes[0]} to {one.sizes[-1]}"),
                _fraction(one.cost_fraction),
                _share(one.decision_accuracy),
                "-" if one.spearman is None else f"{one.spearman:+.2f}",
                "-" if one.relative_error is None else f"{100 * one.relative_error:.1f}%",
                _small(one.absolute_error),
                str(len(one.failed)),
            )
    return table


def _best_words(report: Report, task: str) -> list[str]:
    found = report.best.get(task)
    if found is None or found[0].n_rows < 2 or found[0].null.mean is None:
        return []
    best, row = found
    return [
        f"{row.metric} at {row.size} is the best of {best.n_rows} rows that were compared on the "
        f"targets shown here: "
        f"its {best.accuracy:.3f} is too good by selection (best under dealt-out targets: "
        f"{best.null.mean:.2f} on "
        f"average, p = {best.null.p:.3f})"
    ]


def _title(text: str) -> Text:
    return Text(text, style="table.title", justify="center")


def _step(way: Way) -> Text:
    return Text(
        "-" if way.step is None else f"{way.step:g}" if isinstance(way.step, float) else str(way.step)
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _small(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"


def _fraction(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}" if value < 0.1 else f"{value:.3g}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"
