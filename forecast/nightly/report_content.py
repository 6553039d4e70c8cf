"""What a night's report says, in the order in which it is read: what needs somebody comes first."""

from collections.abc import Sequence
from typing import Any

from forecast.nightly.alert_rules import first_line
from forecast.nightly.charts import nights_chart, proxy_chart, training_chart
from forecast.nightly.records import Alert, EndForecast, Night, Value
from forecast.nightly.report_parts import Cell, Document, Grid, Plot, Section, Text, Warn, grid
from forecast.proxies.token_proxies import PROXIES
from forecast.report.format import step_text

_PROXIES = {proxy.name: proxy for proxy in PROXIES}
_MOST_ROWS = 100  # of a table
_MOST_RANKED = 20
_MOST_PANELS = 12  # of a plot

Part = Text | Warn | Grid | Plot


def document(night: Night, before: Sequence[Night], alerts: Sequence[Alert]) -> Document:
    """The whole report.

    Args:
        before: earlier nights, oldest first.
    """
    last = before[-1] if before else None
    sections = [
        _section("Alerts", _alerts(alerts)),
        _section("New checkpoints", _new(night)),
        _section("Waiting", _waiting(night)),
        _section("Broken", _broken(night)),
        _section("Watched runs", _runs(night)),
        _section("Forecasts for the end of training", _forecasts(night, last)),
        *(_section(f"Run {run}", parts) for run in _run_names(night) if (parts := _run(night, before, run))),
        _section("Proxies at the newest checkpoint", _newest(night, "proxies")),
        _section("Measured scores at the newest checkpoint", _newest(night, "scores")),
        _section("Ranking", _ranking(night)),
        _section("Also failed", _failed(night.failed)),
    ]
    return Document(
        f"{night.config}, night of {night.date}",
        _subtitle(night, last, alerts),
        tuple(section for section in sections if section.parts),
    )


def _section(heading: str, parts: Sequence[Part]) -> Section:
    return Section(heading, tuple(parts))


def _subtitle(night: Night, last: Night | None, alerts: Sequence[Alert]) -> str:
    counts = [
        _count(len(alerts), "alert"),
        _count(len(night.new), "new checkpoint"),
        f"{len(night.waiting)} waiting",
        f"{len(night.broken)} broken",
        f"{len(night.failed)} failed otherwise",
    ]
    text = ", ".join(counts) + (f"; the report before is of {last.date}" if last else "; the first report")
    if night.missed:
        text += f"; nights without a report: {', '.join(night.missed)}"
    return text


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _alerts(alerts: Sequence[Alert]) -> list[Part]:
    return [Warn(alert.text, alert.rule) for alert in alerts] or [Text("None.")]


def _new(night: Night) -> list[Part]:
    if not night.new:
        return [Text("None.")]
    rows = [(c.run, c.step, c.name, _source(c.source, c.revision)) for c in night.new]
    return _table(("run", "step", "candidate", "source"), rows)


def _waiting(night: Night) -> list[Part]:
    rows = [(w.checkpoint.run, w.checkpoint.step, w.reason, w.checkpoint.source) for w in night.waiting]
    return _table(("run", "step", "why", "source"), rows)


def _broken(night: Night) -> list[Part]:
    rows = [
        (b.checkpoint.run, b.checkpoint.step, b.since, first_line(b.error), b.checkpoint.source)
        for b in night.broken
    ]
    return _table(("run", "step", "since", "error", "source"), rows)


def _runs(night: Night) -> list[Part]:
    rows = [
        (
            run.run,
            len(run.steps),
            run.steps[-1] if run.steps else None,
            run.final_step,
            run.last_new,
            run.problem,
        )
        for run in night.runs
    ]
    columns = ("run", "checkpoints", "newest step", "final step", "last new one on", "problem tonight")
    return _table(columns, rows)


def _forecasts(night: Night, last: Night | None) -> list[Part]:
    parts: list[Part] = []
    earlier = {_number_of(f): f for f in last.forecasts} if last else {}
    rows: list[tuple[Cell, ...]] = []
    for f in night.forecasts:
        then = earlier.get(_number_of(f))
        change = None if then is None else round(f.forecast - then.forecast, 4)
        was = None if then is None else then.forecast
        rows.append(
            (f.run, f.task, f.metric, f.step, f.fit_until, f.forecast, f.low, f.high, was, change, f.method)
        )
    columns = (
        *("run", "task", "metric", "at step", "seen up to", "forecast", "low", "high"),
        *("before", "change", "method"),
    )
    intervals = " and ".join(sorted({f"{100 * f.confidence:g}%" for f in night.forecasts}))
    caption = f"low, high: {intervals} interval"
    caption += f"; before: in the report of {last.date}" if last else "; before: there is no earlier report"
    parts += _table(columns, rows, caption)
    parts += _table(
        ("run", "task", "not forecast, because"),
        [(n.get("run"), n.get("task"), n.get("error")) for n in night.not_forecast],
    )
    return parts or [Text("None.")]


def _number_of(f: EndForecast) -> tuple[str, str, str, int]:
    """Which number is forecast."""
    return f.run, f.task, f.metric, f.step


def _run_names(night: Night) -> list[str]:
    names = [*(r.run for r in night.runs), *(v.run for v in night.values), *(f.run for f in night.forecasts)]
    return list(dict.fromkeys(names))


def _run(night: Night, before: Sequence[Night], run: str) -> list[Part]:
    """Plots of one run; nothing where there is nothing to draw."""
    parts: list[Part] = []
    values = [v for v in night.values if v.run == run]
    proxies = list(dict.fromkeys(v.metric for v in values if v.metric in _PROXIES))
    if proxies:
        parts += _left_out(len(proxies), "proxies")
        shown = [v for v in values if v.metric in proxies[:_MOST_PANELS]]
        parts.append(
            Plot(
                lambda: proxy_chart(shown),
                "proxies along the training steps, a line for each task",
                f"Proxies of run {run} along its training steps",
            )
        )
    forecasts = [f for f in night.forecasts if f.run == run]
    scores = [v for v in values if v.metric not in _PROXIES]
    ends = list(dict.fromkeys((f.task, f.metric) for f in forecasts))
    tasks = list(dict.fromkeys((v.task, v.metric) for v in scores))
    if tasks:
        parts += _left_out(len(tasks), "measured tasks")
        parts.append(
            Plot(
                lambda: training_chart(tasks[:_MOST_PANELS], scores, forecasts),
                "measured scores along the training steps (black), and what is forecast for its end, with "
                "its interval (blue)",
                f"Measured scores of run {run} along its training steps, and the forecast for its end",
            )
        )
    history = [
        (n.date, f)
        for n in [*before, night]
        for f in n.forecasts
        if _number_of(f) in map(_number_of, forecasts)
    ]
    if len({date for date, _ in history}) > 1:
        parts += _left_out(len(ends), "forecast tasks")
        parts.append(
            Plot(
                lambda: nights_chart(ends[:_MOST_PANELS], history),
                "the forecast for the end of training with its interval, night by night",
                f"Forecasts for the end of run {run}, night by night",
            )
        )
    return parts


def _left_out(n: int, what: str) -> list[Part]:
    """Nothing is left out silently."""
    return [Text(f"The first {_MOST_PANELS} of {n} {what} are drawn.")] if n > _MOST_PANELS else []


def _newest(night: Night, which: str) -> list[Part]:
    """The last two values of each run, task and metric."""
    rows: list[tuple[Cell, ...]] = []
    series: dict[tuple[str, str, str], list[Value]] = {}
    for value in sorted(night.values, key=lambda v: v.step):
        if (value.metric in _PROXIES) == (which == "proxies"):
            series.setdefault((value.run, value.task, value.metric), []).append(value)
    order = list(dict.fromkeys((v.run, v.task, v.metric) for v in night.values))
    for key in sorted(series, key=order.index):
        now, then = series[key][-1], series[key][-2] if len(series[key]) > 1 else None
        change = None if then is None else now.value - then.value
        verdict = (_verdict(key[2], change),) if which == "proxies" else ()
        before = (then.step, then.value) if then else (None, None)
        rows.append((*key, now.step, now.value, *before, change, *verdict))
    last = ("now it is",) if which == "proxies" else ()
    name = "proxy" if which == "proxies" else "metric"
    return _table(
        ("run", "task", name, "step", "value", "step before", "value before", "change", *last), rows
    )


def _verdict(proxy: str, change: float | None) -> str | None:
    """None where no direction is known to be good."""
    if change is None or _PROXIES[proxy].learned:
        return None
    return "the same" if change == 0 else "better" if _PROXIES[proxy].sign * change > 0 else "worse"


def _ranking(night: Night) -> list[Part]:
    parts: list[Part] = []
    if night.ranking_problem is not None:
        parts.append(Warn(night.ranking_problem, "no ranking"))
    if night.ranking is None:
        return parts or [Text("None.")]
    parts += [Warn(warning) for warning in night.ranking["warnings"]]
    standings: list[dict[str, Any]] = night.ranking["candidates"]
    shown: list[str] = night.ranking["proxies_shown"]
    rows: list[tuple[Cell, ...]] = [
        (
            s["forecast_rank"],
            s["candidate"],
            *(s["values"][name] for name in shown),
            s["measured"],
            s["measured_stderr"],
            s["measured_rank"],
        )
        for s in standings[:_MOST_RANKED]
    ]
    by = f"by {shown[0]}" if shown else None
    if len(standings) > _MOST_RANKED:
        by = f"the first {_MOST_RANKED} of {len(standings)} candidates" + (f", {by}" if by else "")
    parts.append(grid(("rank", "candidate", *shown, "measured", "± se", "measured rank"), rows, by))
    targets = [_target(target) for target in night.ranking["targets"]]
    if targets:
        columns = ("measured", "n", "plain cross-entropy: rho", "best of 80", "rho", "p (best of 80)")
        parts += _table(columns, targets, "Spearman's rho; picked after looking, the best of 80 is too good")
    return parts


def _target(target: dict[str, Any]) -> tuple[Cell, ...]:
    best = target["best"] or {}
    return (
        target["target"],
        target["n_candidates"],
        target["plain_cross_entropy"]["spearman"],
        best.get("proxy"),
        best.get("spearman"),
        target["best_of_80_p"],
    )


def _failed(failed: Sequence[dict[str, str]]) -> list[Part]:
    rows: list[tuple[Cell, ...]] = [
        (", ".join(f"{key} {value}" for key, value in f.items() if key != "error") or None, f.get("error"))
        for f in failed
    ]
    return _table(("what", "error"), rows)


def _source(source: str, revision: str | None) -> str:
    return source if revision is None else f"{source}@{revision}"


def _table(
    columns: tuple[str, ...], rows: Sequence[tuple[Cell, ...]], caption: str | None = None
) -> list[Part]:
    """Nothing where there are no rows; of very many the first, and a sentence that says so."""
    if not rows:
        return []
    parts: list[Part] = [grid(columns, list(rows[:_MOST_ROWS]), caption)]
    if len(rows) > _MOST_ROWS:
        parts.append(Text(f"The first {_MOST_ROWS} of {step_text(len(rows))} rows; all are in night.json."))
    return parts
