"""Tables for the terminal, drawn from rankings and records; no arithmetic beyond formatting.

What is missing is a dash. Names come from users and may hold square brackets or colons: they reach rich as
`Text`, since it would read a plain string as markup.
"""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forecast.analysis.ranking.results import Correlation, Ranking, TargetReport, best_of
from forecast.proxies.token_proxies import METRICS


def plan_table(record: dict[str, Any]) -> RenderableType:
    """The plan of `--dry-run`."""
    table = Table(title=_title(f"Plan of {record['name']}: {record['done']} of {record['units']} units done"))
    table.add_column("candidate")
    for column in ("dtype", "parameters", "units", "done", "tokens left (est.)", "FLOPs left (est.)"):
        table.add_column(column, justify="right")
    for c in record["candidates"]:
        table.add_row(
            Text(c["candidate"]),
            c["dtype"],
            count(c["parameters"]),
            str(c["units"]),
            str(c["done"]),
            f"{c['estimated_tokens']:,}",
            "-" if c["estimated_flops"] is None else f"{c['estimated_flops']:.2g}",
        )
    tasks = ", ".join(f"{task} ({n} trajectories)" for task, n in record["tasks"].items())
    direct = ", ".join(f"{task} ({n} items)" for task, n in record["direct_evaluation"].items())
    lines = [Text(f"tasks: {tasks or 'none'}; window: {record['window']}")]
    lines += [Text(f"direct evaluation: {direct}")] if direct else []
    return Group(table, *lines, Text(f"output: {record['output']}"))


def ranking_tables(ranking: Ranking) -> RenderableType:
    """The ranking, and below it how far its proxies can be trusted."""
    parts: list[RenderableType] = [_standings(ranking)]
    if ranking.reports:
        parts.append(_families(ranking.reports[0], ranking.confidence))
        if len(ranking.reports) > 1:
            parts.append(_targets(ranking))
    parts += [Text("note: " + warning, style="yellow") for warning in ranking.warnings]
    return Group(*parts)


def _standings(ranking: Ranking) -> Table:
    read = ", ".join(f"{task} ({n})" for task, n in ranking.n_instances.items())
    against = f", against {ranking.reports[0].target}" if ranking.reports else ""
    by = f"{len(ranking.standings)} candidates by {ranking.shown[0]}{against}"
    table = Table(title=_title(f"{by}; instances read: {read}"))
    table.add_column("rank", justify="right")
    table.add_column("candidate", no_wrap=True)
    table.add_column("params", justify="right")
    table.add_column("measured ± se", justify="right", no_wrap=True)
    table.add_column("measured rank", justify="right")
    for name in ranking.shown:
        table.add_column(name.replace("__", "\n× ") + "\n(rank)", justify="right")
    for s in ranking.standings:
        error = "" if s.measured_stderr is None else f" ± {s.measured_stderr:.3f}"
        table.add_row(
            _rank(s.forecast_rank),
            Text(s.candidate),
            count(s.parameters),
            "-" if s.measured is None else f"{s.measured:.3f}{error}",
            _rank(s.measured_rank),
            *(f"{s.values[name]:.4g} ({_rank(s.ranks[name])})" for name in ranking.shown),
        )
    return table


def _families(report: TargetReport, confidence: float) -> Table:
    items = "" if report.n_items is None else f", {report.n_items} evaluation items"
    table = Table(
        title=_title(
            f"Spearman rho against {report.target}: n = {report.n_candidates} candidates{items}\n"
            "positive = ranks good candidates high (low-is-better proxies are turned round; entropy as it is)"
        )
    )
    table.add_column("proxy family", no_wrap=True)
    interval = f"{100 * confidence:g}% interval"
    for column in ("uniform: rho", interval, "tau-b"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("best weighting", no_wrap=True)
    for column in ("rho", interval, "tau-b"):
        table.add_column(column, justify="right", no_wrap=True)
    plain = report.plain_cross_entropy()
    table.add_row("plain cross-entropy", *_cells(plain), "", "", "", "", style="bold")
    table.add_section()
    for metric in METRICS:
        own = [c for c in report.correlations if c.metric == metric.name]
        uniform = next(c for c in own if c.weighting == "uniform")
        best = best_of(own)
        table.add_row(metric.name, *_cells(uniform), best.weighting if best else "-", *_cells(best))
    return table


def _targets(ranking: Ranking) -> Table:
    table = Table(title=_title("Per measured task"))
    table.add_column("measured task")
    table.add_column("proxies of")
    table.add_column("n", justify="right")
    table.add_column("items", justify="right")
    table.add_column("plain cross-entropy: rho", justify="right", no_wrap=True)
    table.add_column("best of 80")
    table.add_column("rho", justify="right", no_wrap=True)
    table.add_column("p (best of 80)", justify="right")
    for report in ranking.reports:
        best, plain = report.best(), report.plain_cross_entropy()
        table.add_row(
            Text(report.target),
            Text(", ".join(report.tasks)),
            str(report.n_candidates),
            "-" if report.n_items is None else str(report.n_items),
            _rho(plain),
            best.proxy if best else "-",
            _rho(best),
            "-" if report.best_p is None else f"{report.best_p:.3f}",
        )
    return table


def _title(text: str) -> Text:
    return Text(text, style="table.title", justify="center")


def _cells(c: Correlation | None) -> tuple[str, str, str]:
    """Rho, its interval and tau-b."""
    if c is None:
        return "-", "-", "-"
    return _signed(c.spearman), _interval(c), _signed(c.kendall)


def _rho(c: Correlation | None) -> str:
    """Rho and its interval in one cell."""
    if c is None or c.spearman is None:
        return "-"
    return _signed(c.spearman) + ("" if c.ci_low is None else f" {_interval(c)}")


def _interval(c: Correlation) -> str:
    return "-" if c.ci_low is None or c.ci_high is None else f"[{c.ci_low:+.2f}, {c.ci_high:+.2f}]"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _rank(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def count(value: int | None) -> str:
    """135000000 as 135M."""
    if value is None:
        return "-"
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * limit:  # 999,999 is 1M, not 1e+03k
            return f"{value / limit:.3g}{unit}"
    return str(value)
