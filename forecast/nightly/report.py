"""The dated report of a night: `report.md`, `report.html` and `night.json`, the facts behind both.

The same night gives the same bytes: nothing in them comes from the clock, the machine or chance.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from forecast import storage
from forecast.nightly.alert_rules import first_line
from forecast.nightly.answer import answers
from forecast.nightly.charts import run_charts
from forecast.nightly.history import reports_folder
from forecast.nightly.records import Alert, Comparison, Night, night_bytes
from forecast.proxies.token_proxies import PROXIES
from forecast.report import html, markdown
from forecast.report.document import Column, Document, Paragraph, Part, Section, Table, Warning
from forecast.report.format import INTEGER, NUMBER, interval, step_text
from forecast.report.records import frame_with

if TYPE_CHECKING:
    import polars as pl

MARKDOWN, PAGE, RECORD = "report.md", "report.html", "night.json"

_PROXIES = {proxy.name: proxy for proxy in PROXIES}
_MOST_ROWS = 100  # of a table
_MOST_RANKED = 20
_RANKS = interval(0)

_RUN, _TASK, _STEP = Column("run", "run"), Column("task", "task"), Column("step", "step", INTEGER)
_CANDIDATE, _SOURCE, _ERROR = (
    Column("candidate", "candidate"),
    Column("source", "source"),
    Column("error", "error"),
)
_VALUE = Column("value", "value", NUMBER)
_AGAINST_BEST = (
    Column("best_step", "best before, step", INTEGER),
    Column("best_value", "its value", NUMBER),
    Column("change", "change", NUMBER),
    Column("low", "low", NUMBER, "Lower end of the 95% interval of the change."),
    Column("high", "high", NUMBER),
    Column("verdict", "it is", help="Against the best before it; no different: within noise."),
)
_COLUMNS = {
    "new": (_RUN, _STEP, _CANDIDATE, _SOURCE),
    "waiting": (_RUN, _STEP, Column("reason", "why"), _SOURCE),
    "broken": (_RUN, _STEP, Column("since", "since"), _ERROR, _SOURCE),
    "runs": (
        _RUN,
        Column("checkpoints", "checkpoints", INTEGER),
        Column("newest_step", "newest step", INTEGER),
        Column("final_step", "final step", INTEGER),
        Column("last_new", "last new one on"),
        Column("problem", "problem tonight"),
    ),
    "forecasts": (
        _RUN,
        _TASK,
        Column("metric", "metric"),
        Column("step", "at step", INTEGER),
        Column("fit_until", "seen up to", INTEGER, "The last checkpoint that the forecast uses."),
        Column("forecast", "forecast", NUMBER),
        Column("low", "low", NUMBER),
        Column("high", "high", NUMBER),
        Column("earlier", "before", NUMBER),
        Column("change", "change", NUMBER),
        Column("method", "method"),
        Column("reason", "no interval, because"),
    ),
    "not_forecast": (_RUN, _TASK, Column("error", "not forecast, because")),
    "steps": (_STEP, _VALUE, *_AGAINST_BEST),
    "proxies": (_RUN, _TASK, Column("metric", "proxy"), _STEP, _VALUE, *_AGAINST_BEST),
    "scores": (_RUN, _TASK, Column("metric", "metric"), _STEP, _VALUE, *_AGAINST_BEST),
    "targets": (
        Column("target", "measured"),
        Column("n_candidates", "n", INTEGER),
        Column("plain", "plain cross-entropy: rho", NUMBER),
        Column("best", "best of 80"),
        Column("best_rho", "rho", NUMBER),
        Column("best_p", "p (best of 80)", NUMBER),
    ),
    "failed": (Column("what", "what"), _ERROR),
}


def report_folder(output: str, date: str) -> str:
    """Where the report of a night (YYYY-MM-DD) lies below a run's output; local or `s3://...`."""
    return storage.join(reports_folder(output), date)


def write_report(
    folder: str, night: Night, before: Sequence[Night], alerts: Sequence[Alert]
) -> tuple[str, ...]:
    """Write a night's report into its folder; each file whole or not at all, `night.json` last.

    A folder that has `night.json` has the whole report.

    Args:
        folder: see `report_folder`.
        before: earlier nights, oldest first; nights that are not earlier are left out.

    Returns:
        The paths that were written.

    Raises:
        ValueError: a number of the night is not finite.
    """
    record = night_bytes(night, tuple(alerts))
    content = document(night, [b for b in before if b.date < night.date], alerts)
    files = {
        MARKDOWN: markdown.render(content, PAGE).encode(),
        PAGE: html.render(content).encode(),
        RECORD: record,
    }
    paths = []
    for name, data in files.items():
        paths.append(storage.join(folder, name))
        storage.write_bytes(paths[-1], data)
    return tuple(paths)


def document(night: Night, before: Sequence[Night], alerts: Sequence[Alert]) -> Document:
    """The whole report, in the order in which it is read: what needs attention comes first.

    Args:
        before: earlier nights, oldest first.
    """
    last = before[-1] if before else None
    tables = frames(night, last)

    def table(name: str, caption: str = "") -> tuple[Part, ...]:
        return _table(tables[name], _COLUMNS[name], caption)

    none = (Paragraph("None."),)
    parts: dict[str, tuple[Part, ...]] = {
        "Best so far": tuple(Paragraph(answer) for answer in answers(night)),
        "Alerts": tuple(Warning(alert.text, alert.rule) for alert in alerts) or none,
        "New checkpoints": table("new") or none,
        "Waiting": table("waiting"),
        "Broken": table("broken"),
        "Watched runs": table("runs"),
        "Forecasts for the end of training": (
            *table("forecasts", _forecasts_caption(night, last)),
            *table("not_forecast"),
        )
        or none,
        **{
            f"Run {run}": (*_steps(run, night, tables["steps"]), *run_charts(run, night, before))
            for run in _run_names(night)
        },
        "Proxies at the newest checkpoint": table("proxies"),
        "Measured scores at the newest checkpoint": table("scores"),
        "Ranking": (
            *_ranking(night, tables["standings"]),
            *table("targets", "Spearman's rho; the best of 80 is selected post hoc: optimistically biased"),
        )
        or none,
        "Also failed": table("failed"),
    }
    return Document(
        f"{night.config}, night of {night.date}",
        _subtitle(night, last, alerts),
        tuple(Section(heading, own) for heading, own in parts.items() if own),
    )


def frames(night: Night, last: Night | None) -> dict[str, "pl.DataFrame"]:
    """The tables of the report, with all their rows, by name; values of `last`, the report before, beside.

    `new`, `waiting`, `broken`: checkpoints. `runs`: how far each is. `forecasts`: for the end of training,
    `not_forecast`: why there is none. `steps`: the checkpoints of each run in their order. `proxies`,
    `scores`: of each run, task and metric the newest against the best before.
    `standings`, `targets`: of the ranking. `failed`: everything else.
    """
    ranking = night.ranking or {"candidates": [], "proxies_shown": [], "targets": []}
    newest = _newest(night)
    against = "step:i value:f best_step:i best_value:f change:f low:f high:f verdict:s"
    values = f"run:s task:s metric:s {against}"
    return {
        "new": frame_with(
            [(c.run, c.step, c.name, _source(c.source, c.revision)) for c in night.new],
            "run:s step:i candidate:s source:s",
        ),
        "waiting": frame_with(
            [(w.checkpoint.run, w.checkpoint.step, w.reason, w.checkpoint.source) for w in night.waiting],
            "run:s step:i reason:s source:s",
        ),
        "broken": frame_with(
            [
                (b.checkpoint.run, b.checkpoint.step, b.since, first_line(b.error), b.checkpoint.source)
                for b in night.broken
            ],
            "run:s step:i since:s error:s source:s",
        ),
        "runs": frame_with(
            [
                (r.run, len(r.steps), r.steps[-1] if r.steps else None, r.final_step, r.last_new, r.problem)
                for r in night.runs
            ],
            "run:s checkpoints:i newest_step:i final_step:i last_new:s problem:s",
        ),
        "forecasts": _forecasts(night, last),
        "not_forecast": frame_with(
            [(n.get("run"), n.get("task"), n.get("error")) for n in night.not_forecast],
            "run:s task:s error:s",
        ),
        "steps": frame_with(_along_the_steps(night), f"run:s {against} is_best:b"),
        "proxies": frame_with([row for row in newest if row[2] in _PROXIES], values),
        "scores": frame_with([row for row in newest if row[2] not in _PROXIES], values),
        "standings": frame_with(
            [_standing(s, ranking["proxies_shown"]) for s in ranking["candidates"]],
            "forecast_rank:f rank_low:f rank_high:f p_above_next:f candidate:s "
            f"{' '.join(f'{name}:f' for name in ranking['proxies_shown'])} "
            "measured:f measured_stderr:f measured_rank:f",
        ),
        "targets": frame_with(
            [_target(target) for target in ranking["targets"]],
            "target:s n_candidates:i plain:f best:s best_rho:f best_p:f",
        ),
        "failed": frame_with([_failure(failed) for failed in night.failed], "what:s error:s"),
    }


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


def _forecasts(night: Night, last: Night | None) -> "pl.DataFrame":
    before = {f.number: f.forecast for f in last.forecasts} if last else {}
    rows = []
    for f in night.forecasts:
        earlier = before.get(f.number)
        change = None if earlier is None else round(f.forecast - earlier, 4)
        rows.append((*f.number, f.fit_until, f.forecast, f.low, f.high, earlier, change, f.method, f.reason))
    return frame_with(
        rows,
        "run:s task:s metric:s step:i fit_until:i forecast:f low:f high:f earlier:f change:f method:s "
        "reason:s",
    )


def _forecasts_caption(night: Night, last: Night | None) -> str:
    intervals = " and ".join(sorted({f"{100 * f.confidence:g}%" for f in night.forecasts}))
    before = f"in the report of {last.date}" if last else "there is no earlier report"
    return f"low, high: {intervals} interval; before: {before}"


def _run_names(night: Night) -> list[str]:
    names = [*(r.run for r in night.runs), *(v.run for v in night.values), *(f.run for f in night.forecasts)]
    return list(dict.fromkeys(names))


def _newest(night: Night) -> list[tuple[Any, ...]]:
    """Of each run, task and metric the newest checkpoint against the best before it."""
    compared = {(c.run, c.task, c.metric): c for c in night.comparisons}  # the last one is the newest
    alone = {(v.run, v.task, v.metric): v for v in sorted(night.values, key=lambda v: v.step)}
    rows: list[tuple[Any, ...]] = [(*key, *_against_best(one)) for key, one in compared.items()]
    rows += [(*key, one.step, one.value, *[None] * 6) for key, one in alone.items() if key not in compared]
    return sorted(rows, key=lambda row: (row[0], row[2]))


def _along_the_steps(night: Night) -> list[tuple[Any, ...]]:
    return [
        (c.run, *_against_best(c), c.step == best.step)
        for best in night.best_so_far
        for c in night.comparisons
        if c.overall and (c.run, c.metric) == (best.run, best.metric)
    ]


def _against_best(one: Comparison) -> tuple[Any, ...]:
    verdict = one.verdict or f"unknown ({one.reason})"
    numbers = (one.step, one.value, one.best_step, one.best_value, one.change, one.low, one.high)
    return (*numbers, "the first" if one.verdict == "first" else verdict)


def _steps(run: str, night: Night, steps: "pl.DataFrame") -> tuple[Part, ...]:
    """The newest checkpoints of a run, in the order of their steps; the best so far is emphasised."""
    own = steps.filter(steps["run"] == run)
    best = next((b for b in night.best_so_far if b.run == run), None)
    if best is None or not own.height:
        return ()
    cut = f"the last {_MOST_RANKED} of {own.height} checkpoints, " if own.height > _MOST_RANKED else ""
    caption = f"{cut}{best.metric}, {best.task}; low, high: 95% interval of the change over the texts"
    return (Table(own.tail(_MOST_RANKED), _COLUMNS["steps"], caption, bold="is_best"),)


def _has_others(night: Night) -> bool:
    """Whether more is ranked than checkpoints of runs, whose order is along their steps."""
    checkpoints = {f"{run.run} @ {step}" for run in night.runs for step in run.steps}
    ranked = night.ranking["candidates"] if night.ranking is not None else []
    return any(standing["candidate"] not in checkpoints for standing in ranked)


def _ranking(night: Night, standings: "pl.DataFrame") -> list[Part]:
    parts: list[Part] = []
    if night.ranking_problem is not None:
        parts.append(Warning(night.ranking_problem, "no ranking"))
    if night.ranking is None or not _has_others(night):
        return parts
    parts += [Warning(warning) for warning in night.ranking["warnings"]]
    shown: list[str] = night.ranking["proxies_shown"]
    columns = (
        Column("forecast_rank", "rank", NUMBER),
        Column("rank_low", "interval", _RANKS, "Of the rank.", also=("rank_high",)),
        Column("p_above_next", "P(above next)", NUMBER),
        _CANDIDATE,
        *(Column(name, name, NUMBER) for name in shown),
        Column("measured", "measured", NUMBER),
        Column("measured_stderr", "± se", NUMBER),
        Column("measured_rank", "measured rank", NUMBER),
    )
    cut = standings.height > _MOST_RANKED
    caption = [f"the first {_MOST_RANKED} of {standings.height} candidates"] if cut else []
    leader = night.ranking["leader"]
    caption.append(f"by {leader['proxy'] or leader['scorer']}: {leader['reason']}")
    parts.append(Table(standings.head(_MOST_RANKED), columns, ", ".join(caption)))
    return parts


def _standing(standing: dict[str, Any], proxies: Sequence[str]) -> tuple[Any, ...]:
    values = (standing["values"][name] for name in proxies)
    measured = (standing[name] for name in ("measured", "measured_stderr", "measured_rank"))
    rank = (standing[name] for name in ("forecast_rank", "rank_low", "rank_high", "p_above_next"))
    return (*rank, standing["candidate"], *values, *measured)


def _target(target: dict[str, Any]) -> tuple[Any, ...]:
    best = target["best"] or {}
    return (
        target["target"],
        target["n_candidates"],
        target["plain_cross_entropy"]["spearman"],
        best.get("proxy"),
        best.get("spearman"),
        target["best_of_80_p"],
    )


def _failure(failed: dict[str, str]) -> tuple[str | None, str | None]:
    what = ", ".join(f"{key} {value}" for key, value in failed.items() if key != "error")
    return what or None, failed.get("error")


def _source(source: str, revision: str | None) -> str:
    return source if revision is None else f"{source}@{revision}"


def _table(frame: "pl.DataFrame", columns: tuple[Column, ...], caption: str = "") -> tuple[Part, ...]:
    """Empty where there are no rows; of very many the first, and a sentence that says so."""
    if not frame.height:
        return ()
    table = Table(frame.head(_MOST_ROWS), columns, caption)
    if frame.height <= _MOST_ROWS:
        return (table,)
    return (table, Paragraph(f"The first {_MOST_ROWS} of {step_text(frame.height)} rows; all in {RECORD}."))
