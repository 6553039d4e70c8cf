"""The report of `forecast rank`: the document, and the JSON with the same figures."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import polars as pl

from forecast.analysis.ranking.held_out import HeldOutResult
from forecast.analysis.ranking.held_out_report import (
    MOST_PLACES,
    RANKS,
    counts_text,
    held_out_sections,
    order_section,
    standings_chart,
)
from forecast.analysis.ranking.leader import ALPHA, Leader
from forecast.analysis.ranking.rank_uncertainty import Place
from forecast.analysis.ranking.single_proxy import Correlation, Ranking, TargetCorrelations, best_of
from forecast.analysis.ranking.standings import Standing
from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES
from forecast.proxies.token_proxies import METRICS
from forecast.report.document import Chart, Column, Document, Paragraph, Part, Section, Table, Warning
from forecast.report.format import (
    COUNT,
    INTEGER,
    NUMBER,
    P_VALUE,
    Format,
    figure,
    fixed,
    interval,
    is_missing,
    plus_minus,
)

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt

_FEW = 4  # candidates that are named in the answer
_ROWS = 12  # of the standings in a terminal
_RHO, _RHO_INTERVAL = fixed(2, signed=True), interval(2, signed=True)
_SHARE = fixed(2)
_VALUE_AND_RANK = Format(lambda value, rank: f"{figure(value)} ({figure(rank)})")
_RHO_AND_INTERVAL = Format(
    lambda rho, low, high: _RHO(rho) + ("" if is_missing(low) else f" {_RHO_INTERVAL(low, high)}")
)


_ABOVE_NEXT = Column("p_above_next", "P(above next)", _SHARE, "Probability of standing above the next one.")
_MEASURED = (
    Column("measured", "measured ± se", plus_minus(3), also=("measured_stderr",)),
    Column("measured_rank", "measured rank", NUMBER),
)


def document(source: str, ranking: Ranking | None = None, held_out: HeldOutResult | None = None) -> Document:
    """The standings, then what they rest on: single proxies, scorers under held-out evaluation.

    Args:
        source: the table or configuration, for the title.
        ranking: where the source is a run.
        held_out: None where nothing is measured, or it was not asked for.
    """
    words = [*(ranking.warnings if ranking else ()), *(held_out.warnings if held_out else ())]
    if ranking is not None:
        order = None if held_out is None else held_out.order
        instead = [] if ranking.interval_reason is None else [ranking.interval_reason]
        words = instead + [text for text in words if order is None or text != order.reason]
    sections = [Section("", tuple(map(Paragraph, answer(ranking, held_out))))]
    subtitle = ""
    if ranking is not None:
        sections.append(_run_standings(ranking))
        if ranking.reports:
            sections.append(Section("Proxy families", (_families(ranking.reports[0], ranking.confidence),)))
        if len(ranking.reports) > 1:
            sections.append(Section("Measured tasks", (_targets(ranking),)))
    elif held_out is not None and held_out.order is not None:
        sections.append(order_section(held_out, held_out.order))
    if held_out is not None:
        made_with = [f"{name} {version}" for name, version in held_out.versions.items()]
        subtitle = f"{counts_text(held_out)}; seed {held_out.options.seed}; {', '.join(made_with)}"
        sections += held_out_sections(held_out)
    if ranking is not None:
        sections += [_every_proxy(ranking, report) for report in ranking.reports]
    if words:
        sections.append(Section("Notes", tuple(Warning(text) for text in words)))
    return Document(f"Ranking of {source}", subtitle, tuple(sections))


def answer(ranking: Ranking | None, held_out: HeldOutResult | None = None) -> tuple[str, ...]:
    """Who leads and how sure that is; what the order is by and why; what to do next."""
    found: Sequence[Standing | Place]
    if ranking is not None:
        leader, found = ranking.leader, ranking.standings
    elif held_out is not None and held_out.leader is not None and held_out.order is not None:
        leader, found = held_out.leader, held_out.order.places
    else:
        return ("No ranking can be evaluated.", "Next: see the notes for what is missing.")
    first = found[0]
    leads = f"{first.candidate} leads"
    if ranking is not None and ranking.run is not None:
        newest = ranking.standings[-1]
        found = sorted(ranking.standings, key=lambda standing: standing.rank)
        first = found[0]
        leads = f"{first.candidate} is the best checkpoint of {ranking.run} so far"
        if newest is not first:
            leads += f" (the newest, {newest.candidate}, is number {newest.rank:g})"
    if first.rank_low is not None and first.rank_high is not None:
        leads += f", rank {RANKS(first.rank_low, first.rank_high)} of {len(found)} over {_over(found)}"
    if first.p_above_next is not None and len(found) > 1:
        leads += f", above {found[1].candidate} with P = {first.p_above_next:.2f}"
    over = " over bytes" if ranking is not None and ranking.over == "bytes" else ""
    why = f"Ordered by {leader.name}{over}: {leader.reason}{_rho_of(ranking)}."
    return (f"{leads}.", why, f"Next: {_next_step(ranking, leader, found)}.")


def _next_step(ranking: Ranking | None, leader: Leader, found: "Sequence[Standing | Place]") -> str:
    if ranking is not None and not ranking.reports:
        return f"measure {MIN_CANDIDATES} candidates or more to check this order"
    if leader.null_p is None or leader.null_p > ALPHA:
        return "measure more candidates; nothing shows yet that this order holds downstream"
    best = [standing.candidate for standing in found if standing.rank_low == 1]
    if len(best) > _FEW:
        return f"evaluate the {len(best)} candidates whose rank interval includes 1"
    if len(best) > 1:
        return f"evaluate {', '.join(best[:-1])} and {best[-1]}: each may be the best"
    return f"evaluate {found[0].candidate} first"


def _rho_of(ranking: Ranking | None) -> str:
    """How far the leading proxy agrees with what is measured."""
    if ranking is None or not ranking.reports or ranking.leader.proxy is None or ranking.leader.held_out:
        return ""
    report = ranking.reports[0]
    c = next(c for c in report.correlations if c.proxy == ranking.leader.proxy)
    if c.spearman is None:
        return ""
    rho = _RHO_AND_INTERVAL(c.spearman, c.ci_low, c.ci_high)
    return f"; rho with {report.target} {rho}, n = {report.n_candidates}"


def _over(found: "Sequence[Standing | Place]") -> str | None:
    """What rank intervals are over."""
    return next((standing.interval_over for standing in found if standing.interval_over), None)


def _run_standings(ranking: Ranking) -> Section:
    read = ", ".join(f"{task} ({n})" for task, n in ranking.n_instances.items())
    against = f"measured: {ranking.reports[0].target}; " if ranking.reports else ""
    confidence = f"{100 * ranking.confidence:g}%"
    over = _over(ranking.standings)
    columns = (
        *([Column("step", "step", INTEGER)] if any(s.step is not None for s in ranking.standings) else []),
        Column("rank", "rank", NUMBER, "By the leader; 1 is best."),
        Column(
            "rank_low",
            f"{confidence} interval",
            RANKS,
            f"Of the rank, over {over}." if over else "There is none.",
            also=("rank_high",),
        ),
        Column("candidate", "candidate"),
        Column("family", "family", wide_only=True),
        Column("parameters", "params", COUNT, wide_only=True),
        *([] if ranking.run else [_ABOVE_NEXT]),  # along the steps the next row is not the next in rank
        *([Column("value", "forecast", NUMBER, "By the leading scorer.")] if ranking.leader.scorer else []),
        *(_MEASURED if any(standing.measured is not None for standing in ranking.standings) else ()),
        *(
            Column(
                name,
                name.replace("__", "\n× ") + " (rank)",
                _VALUE_AND_RANK,
                "Mean over tasks, and the rank by it.",
                wide_only=name != ranking.leader.proxy,
                also=(f"{name}_rank",),
            )
            for name in ranking.shown
        ),
    )
    what = f"checkpoints of {ranking.run} along the steps" if ranking.run else "candidates"
    caption = (
        f"{len(ranking.standings)} {what} by {ranking.leader.name} over {ranking.over}; {against}"
        f"rank intervals over {over or 'nothing: see the notes'}; instances read: {read}"
    )
    frame = ranking.frames()["standings"]
    parts: list[Part] = []
    if over and frame.height <= MOST_PLACES:
        parts.append(standings_chart(frame))
    return Section("Standings", (*parts, Table(frame, columns, caption, terminal_rows=_ROWS)))


def _families(report: TargetCorrelations, confidence: float) -> Table:
    items = "" if report.n_items is None else f", {report.n_items} evaluation items"
    rows = [{"family": "plain cross-entropy", "plain": True} | _cells("", report.plain_cross_entropy())]
    for metric in METRICS:
        own = [c for c in report.correlations if c.metric == metric.name]
        uniform, best = next(c for c in own if c.weighting == "uniform"), best_of(own)
        weighting = best.weighting if best else None
        rows.append(
            {"family": metric.name, "plain": False, "weighting": weighting}
            | _cells("", uniform)
            | _cells("best_", best)
        )
    texts = {"family": pl.String(), "plain": pl.Boolean(), "weighting": pl.String()}
    numbers = ("spearman", "ci_low", "ci_high", "kendall")
    schema = texts | {f"{which}{name}": pl.Float64() for which in ("", "best_") for name in numbers}
    label = f"{100 * confidence:g}% interval"
    columns = (
        Column("family", "proxy family"),
        Column("spearman", "uniform: rho", _RHO, "Spearman's rho of the unweighted proxy."),
        Column("ci_low", label, _RHO_INTERVAL, "Over solutions and questions.", also=("ci_high",)),
        Column("kendall", "tau-b", _RHO, "Kendall's tau-b of the unweighted proxy."),
        Column("weighting", "best weighting", help="Selected post hoc."),
        Column("best_spearman", "best: rho", _RHO, "Optimistically biased: selected post hoc."),
        Column("best_ci_low", label, _RHO_INTERVAL, "Over solutions and questions.", also=("best_ci_high",)),
        Column("best_kendall", "tau-b", _RHO, "Kendall's tau-b under the best weighting."),
    )
    caption = (
        f"Spearman's rho against {report.target}: n = {report.n_candidates} candidates{items}; "
        "positive = ranks good candidates high (low-is-better proxies are negated; entropy is not)"
    )
    return Table(pl.DataFrame(rows, schema=schema), columns, caption, group_by="plain", bold="plain")


def _cells(prefix: str, c: Correlation | None) -> dict[str, Any]:
    names = ("spearman", "ci_low", "ci_high", "kendall")
    return {prefix + name: None if c is None else getattr(c, name) for name in names}


def _targets(ranking: Ranking) -> Table:
    columns = (
        Column("target", "measured task"),
        Column("tasks", "proxies of", Format(", ".join, right=False)),
        Column("n_candidates", "n", INTEGER, "Candidates with a score."),
        Column("n_items", "items", INTEGER, "Questions behind the scores."),
        Column(
            "plain_spearman",
            "plain cross-entropy: rho",
            _RHO_AND_INTERVAL,
            "The baseline.",
            also=("plain_ci_low", "plain_ci_high"),
        ),
        Column("best", "best of 80", help="Selected post hoc."),
        Column(
            "best_spearman",
            "rho",
            _RHO_AND_INTERVAL,
            "Optimistically biased: selected post hoc.",
            also=("best_ci_low", "best_ci_high"),
        ),
        Column("best_p", "p (best of 80)", P_VALUE, "Against the best of 80 under shuffled scores."),
    )
    return Table(ranking.frames()["targets"], columns)


def _every_proxy(ranking: Ranking, report: TargetCorrelations) -> Section:
    frame = ranking.frames()["correlations"].filter(target=report.target)
    null = "there is no permutation null."
    if report.best_p is not None and report.best_null_mean is not None:
        null = (
            f"under shuffled scores the best reaches {report.best_null_mean:.2f} on average, "
            f"p = {report.best_p:.3f}."
        )
    questions = f", {report.n_items} questions" if report.n_items else ""
    parts: list[Part] = [
        Paragraph(
            f"n = {report.n_candidates} candidates{questions}. The best of 80 is selected post hoc and its "
            f"rho optimistically biased: {null}"
        )
    ]

    def grid() -> "alt.TopLevelMixin":
        from forecast.analysis.ranking.charts import proxy_grid

        return proxy_grid(frame)

    if frame["spearman"].count():
        caption = (
            "Spearman's rho of each metric under each weighting, positive where it ranks good candidates "
            "high (entropy: where more entropy is better)"
        )
        parts.append(Chart(grid, caption, "Grid of rank correlations of the 80 proxies"))
    columns = (
        Column("metric", "metric"),
        Column("weighting", "weighting"),
        Column("spearman", "rho", _RHO),
        Column("ci_low", f"{100 * ranking.confidence:g}% interval", _RHO_INTERVAL, also=("ci_high",)),
        Column("kendall", "tau-b", _RHO),
        Column("n_candidates", "n", INTEGER),
    )
    parts.append(Table(frame, columns, "intervals are over solutions and questions"))
    return Section(f"All proxies against {report.target}", tuple(parts), wide_only=True)


def rank_record(ranking: Ranking, failures: Iterable[dict[str, str]] = ()) -> dict[str, Any]:
    """A ranking with every correlation behind it; `candidates` are the standings under their older key."""
    standings = [asdict(standing) for standing in ranking.standings]
    return {
        "leader": asdict(ranking.leader),
        "over": ranking.over,
        "standings": standings,
        "interval_reason": ranking.interval_reason,
        "candidates": [{**standing, "forecast_rank": standing["rank"]} for standing in standings],
        "proxies_shown": list(ranking.shown),
        "targets": [_target_record(report) for report in ranking.reports],
        "instances": ranking.n_instances,
        "confidence": ranking.confidence,
        "warnings": list(ranking.warnings),
        "failed": list(failures),
    }


def _target_record(report: TargetCorrelations) -> dict[str, Any]:
    best = report.best()
    return {
        "target": report.target,
        "proxies_of": list(report.tasks),
        "n_candidates": report.n_candidates,
        "n_items": report.n_items,
        "plain_cross_entropy": asdict(report.plain_cross_entropy()),
        "best": asdict(best) if best else None,
        "best_of_80_p": report.best_p,
        "best_of_80_null_mean": report.best_null_mean,
        "correlations": [asdict(c) for c in report.correlations],
    }
