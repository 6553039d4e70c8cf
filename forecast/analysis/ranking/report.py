"""The report of `forecast rank`: the document, and the JSON with the same figures."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import polars as pl

from forecast.analysis.ranking.held_out import HeldOutResult
from forecast.analysis.ranking.held_out_report import counts_text, held_out_sections, order_section
from forecast.analysis.ranking.rank_uncertainty import Order
from forecast.analysis.ranking.single_proxy import Correlation, Ranking, TargetCorrelations, best_of
from forecast.analysis.ranking.splits import LEAVE_FAMILIES_OUT, LEAVE_MODELS_OUT
from forecast.analysis.ranking.warnings import ALPHA
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

_RHO, _RHO_INTERVAL = fixed(2, signed=True), interval(2, signed=True)
_VALUE_AND_RANK = Format(lambda value, rank: f"{figure(value)} ({figure(rank)})")
_RHO_AND_INTERVAL = Format(
    lambda rho, low, high: _RHO(rho) + ("" if is_missing(low) else f" {_RHO_INTERVAL(low, high)}")
)


def document(source: str, ranking: Ranking | None = None, held_out: HeldOutResult | None = None) -> Document:
    """Single proxies against measured targets, then scorers under held-out evaluation.

    Args:
        source: the table or configuration, for the title.
        ranking: where the source is a run: each proxy by itself.
        held_out: None where nothing is measured, or it was not asked for.
    """
    words = [*(ranking.warnings if ranking else ()), *(held_out.warnings if held_out else ())]
    sections = [Section("", (Paragraph(_answer(ranking, held_out)),))]
    subtitle = ""
    if held_out is not None and held_out.order is not None:
        sections.append(order_section(held_out, held_out.order))
    if ranking is not None:
        sections += _ranking_sections(ranking)
    if held_out is not None:
        made_with = [f"{name} {version}" for name, version in held_out.versions.items()]
        subtitle = f"{counts_text(held_out)}; seed {held_out.options.seed}; {', '.join(made_with)}"
        sections += held_out_sections(held_out)
    if ranking is not None:
        sections += [_every_proxy(ranking, report) for report in ranking.reports]
    if words:
        sections.append(Section("Notes", tuple(Warning(text) for text in words)))
    return Document(f"Ranking of {source}", subtitle, tuple(sections))


def _answer(ranking: Ranking | None, held_out: HeldOutResult | None) -> str:
    """Who leads, how sure that is, and what to do next."""
    if held_out is not None and held_out.order is not None:
        return _held_out_answer(held_out, held_out.order)
    if ranking is None:
        return "No ranking can be evaluated. Next: see the notes for what is missing."
    first, leading = ranking.standings[0], ranking.shown[0]
    text = f"{first.candidate} stands first by {leading}"
    known = [c for report in ranking.reports[:1] for c in report.correlations if c.proxy == leading]
    if not known or known[0].spearman is None:
        return f"{text}, unverified. Next: measure {MIN_CANDIDATES} candidates or more to check this order."
    c, best = known[0], ranking.reports[0].best()
    biased = ", optimistically biased (selected from 80 proxies)" if best is c else ""
    return (
        f"{text}; its rho with {c.target} is {_RHO_AND_INTERVAL(c.spearman, c.ci_low, c.ci_high)}, "
        f"n = {c.n_candidates}{biased}. Next: `forecast rank` evaluates whether this holds for new models."
    )


def _held_out_answer(result: HeldOutResult, order: Order) -> str:
    first = order.places[0]
    text = f"{first.candidate} stands first by {order.scorer}"
    if first.rank_low is not None and first.rank_high is not None:
        low, high = f"{first.rank_low:g}", f"{first.rank_high:g}"
        text += f" (rank {low})" if low == high else f" (rank {low} to {high})"
    own = [row for row in result.rows if row.scorer == order.scorer and row.spearman is not None]
    row = next(
        (r for name in (LEAVE_MODELS_OUT, LEAVE_FAMILIES_OUT) for r in own if r.protocol == name), None
    )
    if row is None or row.spearman is None:
        return f"{text}, unverified: no rho for models not seen. Next: see the notes for what is missing."
    p = "" if row.null.p is None else f", p = {row.null.p:.3f}"
    text += f"; rho for models not seen: {_RHO_AND_INTERVAL(row.spearman, row.ci_low, row.ci_high)}{p}"
    others = [r for r in result.rows if r.protocol == row.protocol and r.scorer not in result.options.scorers]
    known = [(r.spearman, r.scorer.removeprefix("baseline: ")) for r in others if r.spearman is not None]
    rho, name = max(known, default=(None, ""))
    if rho is not None:
        text += f"; the best baseline, {name}, reaches {_RHO(rho)}"
    if row.null.p is None or 1 / (result.options.permutations + 1) > ALPHA:
        return f"{text}. Next: more --permutations (200 or more), to tell it from chance."
    if row.null.p > ALPHA or (row.ci_low is not None and row.ci_low <= 0):
        return f"{text}. Next: measure more candidates; this may be chance."
    if rho is None:
        return f"{text}. Next: compare it with a baseline (--baselines)."
    if rho >= row.spearman:
        return f"{text}. Next: rank by {name}, as good and simpler."
    return f"{text}. Next: evaluate the leading candidates first."


def _ranking_sections(ranking: Ranking) -> list[Section]:
    sections = [Section("Candidates", (_standings(ranking),))]
    if ranking.reports:
        sections.append(Section("Proxy families", (_families(ranking.reports[0], ranking.confidence),)))
    if len(ranking.reports) > 1:
        sections.append(Section("Measured tasks", (_targets(ranking),)))
    return sections


def _standings(ranking: Ranking) -> Table:
    read = ", ".join(f"{task} ({n})" for task, n in ranking.n_instances.items())
    against = f", against {ranking.reports[0].target}" if ranking.reports else ""
    columns = (
        Column("forecast_rank", "rank", NUMBER, "By the first proxy; 1 is best."),
        Column("candidate", "candidate"),
        Column("family", "family", wide_only=True),
        Column("parameters", "params", COUNT),
        Column("measured", "measured ± se", plus_minus(3), also=("measured_stderr",)),
        Column("measured_rank", "measured rank", NUMBER),
        *(
            Column(
                name,
                name.replace("__", "\n× ") + "\n(rank)",
                _VALUE_AND_RANK,
                "Mean over tasks, and the rank by it.",
                also=(f"{name}_rank",),
            )
            for name in ranking.shown
        ),
    )
    caption = f"{len(ranking.standings)} candidates by {ranking.shown[0]}{against}; instances read: {read}"
    return Table(ranking.frames()["standings"], columns, caption)


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
    """A ranking with every correlation behind it."""
    return {
        "candidates": [asdict(standing) for standing in ranking.standings],
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
