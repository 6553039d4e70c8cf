"""The held-out evaluation in the report of `forecast rank`, and its JSON."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import polars as pl

from forecast.analysis.ranking.held_out import HeldOutResult, chosen_counts
from forecast.analysis.ranking.held_out_metrics import ScorerRow
from forecast.analysis.ranking.permutation_null import Null
from forecast.analysis.ranking.rank_uncertainty import Order
from forecast.analysis.ranking.scorers.mean_score import OWN_MEAN
from forecast.report.document import Chart, Column, Paragraph, Part, Section, Table
from forecast.report.format import INTEGER, MISSING, NUMBER, P_VALUE, Format, fixed, interval, is_missing

if TYPE_CHECKING:  # takes most of a second to import
    import altair as alt


def _ranks(low: float | None, high: float | None) -> str:
    if is_missing(low) or is_missing(high):
        return MISSING
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


_RHO, _RHO_INTERVAL = fixed(2, signed=True), interval(2, signed=True)
_SHARE = fixed(2)
RANKS = Format(_ranks)
MOST_PLACES = 100  # more candidates make a chart of ranks too tall to read


def held_out_sections(result: HeldOutResult) -> list[Section]:
    """Scorers under protocols, and pairs of scorers."""
    sections = [_held_out(result)] if any(row.n_folds for row in result.rows) else []
    if result.comparisons:
        sections.append(_comparisons(result))
    return sections


def counts_text(result: HeldOutResult) -> str:
    """How much was evaluated."""
    return (
        f"{result.n_candidates} candidates of {result.n_families} families, {result.n_tasks} tasks, "
        f"{result.n_features} features"
    )


def _held_out(result: HeldOutResult) -> Section:
    """Rows by protocol, without protocols that the table is too small for: a warning names those."""
    every = result.frames()["held_out"]
    place = {name: k for k, name in enumerate(result.options.protocols)}
    frame = (
        every.with_columns(
            label=pl.col("scorer")
            + pl.when(scorer=OWN_MEAN).then(pl.lit(" (baseline)")).otherwise(pl.lit("")),
            chosen_text=pl.Series([_chosen(row) for row in result.rows], dtype=pl.String),
        )
        .filter(pl.col("n_folds") > 0)
        .sort(pl.col("protocol").replace_strict(place, return_dtype=pl.Int64), maintain_order=True)
    )
    confidence = f"{100 * result.options.confidence:g}%"
    given = [name for name in frame.columns if name.startswith("given_")]
    group = (Column("protocol", "protocol"), Column("label", "scorer"))
    columns = (
        *group,
        Column("spearman", "rho", _RHO, "Mean of Spearman's rho over held-out tasks."),
        Column(
            "ci_low",
            f"{confidence} interval",
            _RHO_INTERVAL,
            "Over candidates, families drawn together.",
            also=("ci_high",),
        ),
        Column("null_mean", "null: mean", _RHO, "Mean rho of the same pipeline on shuffled scores."),
        Column("null_q95", "null: 95%", _RHO, "95th percentile of that rho."),
        Column("null_p", "p", P_VALUE, "Share of shuffles that reach rho, rho itself counted in."),
        Column("tau_b", "tau-b", _RHO),
        Column("weighted_tau", "weighted tau", _RHO, "Vigna's; the top counts most."),
        Column("n_candidates", "n", INTEGER, "Candidates compared."),
        Column("n_families", "families", INTEGER, wide_only=True),
        Column("n_tasks", "tasks", INTEGER, wide_only=True),
        Column("n_rhos", "rhos", INTEGER, "Rhos that the mean is over.", wide_only=True),
        Column(
            "repeat_low",
            "over deals",
            _RHO_INTERVAL,
            "Lowest and highest rho of one deal to folds; rho is the mean over deals.",
            wide_only=True,
            also=("repeat_high",),
        ),
        *(
            Column(name, name.replace("_", " ", 1), _RHO, "Partial Spearman's rho, given this covariate.")
            for name in given
        ),
        Column(
            "smallest_detectable_rho",
            "smallest detectable rho",
            _SHARE,
            "True rho of one task that this n detects with a power of 80 %.",
            wide_only=True,
        ),
    )
    parts: list[Part] = [
        Paragraph(
            "Spearman's rho between forecasts and measured scores on held-out tasks. Null and p: the same "
            "pipeline on scores shuffled over candidates, alike on all tasks. Under leave-2-tasks-out a "
            "scorer may recognise the candidates; the null shows how large a rho that alone explains."
            + (
                f" Where chance deals candidates and tasks to folds, rho is the mean over {repeats} deals, "
                "in the null too."
                if (repeats := max(row.n_repeats for row in result.rows)) > 1
                else ""
            )
        )
    ]

    def chart() -> "alt.TopLevelMixin":
        from forecast.analysis.ranking.charts import held_out_chart

        return held_out_chart(every, result.options.protocols)

    if every["spearman"].count():
        parts.append(
            Chart(
                chart,
                f"rho with its {confidence} interval (blue); the null's mean to its 95th percentile (grey)",
                "Held-out rank correlation of every scorer under every protocol, with intervals and nulls",
            )
        )
    if frame.height:
        parts.append(Table(frame, columns, f"n = {counts_text(result)}", group_by="protocol"))
        chosen = Column("chosen_text", "chosen (folds), or the reason for what is missing")
        known = frame.filter(pl.col("chosen_text").is_not_null())
        parts.append(Table(known, (*group, chosen), "Most frequent choices", group_by="protocol"))
    return Section("Held-out evaluation", tuple(parts))


def _chosen(row: ScorerRow) -> str | None:
    """The three most frequent choices of the folds; the reason where there is no rho or no choice."""
    counts = chosen_counts(row.chosen)
    if row.spearman is None or not counts:
        return row.reason
    return "; ".join(f"{words} ({times} of {row.n_folds})" for words, times in list(counts.items())[:3])


def order_section(result: HeldOutResult, order: Order) -> Section:
    """Every candidate's place with its interval, beside the measured one."""
    frame = result.frames()["standings"]
    confidence = f"{100 * result.options.confidence:g}%"
    columns = (
        Column("rank", "rank", NUMBER),
        Column(
            "rank_low",
            f"{confidence} interval",
            RANKS,
            f"Of the rank, over {over}." if (over := order.places[0].interval_over) else "There is none.",
            also=("rank_high",),
        ),
        Column("candidate", "candidate"),
        Column("family", "family"),
        Column(
            "forecast", "forecast", _RHO, "Mean over tasks, in standard deviations of a task's forecasts."
        ),
        Column("p_above_next", "P(above next)", _SHARE),
        Column("measured_rank", "rank by mean standing", NUMBER, "By the mean standing over tasks."),
        Column("n_tasks_measured", "tasks measured", INTEGER),
    )
    how = "by fits that saw neither it nor the task" if order.unseen else "by a fit to all cells"
    caption = f"{frame.height} candidates by {order.scorer}, each {how}; {order.n_measured} are measured"
    plots = [standings_chart(frame)] if frame["rank_low"].count() and frame.height <= MOST_PLACES else []
    return Section("Standings", (*plots, Table(frame, columns, caption)))


def standings_chart(frame: pl.DataFrame) -> Chart:
    """Ranks with their intervals, of a frame of standings."""

    def chart() -> "alt.TopLevelMixin":
        from forecast.analysis.ranking.charts import order_chart

        return order_chart(frame)

    return Chart(
        chart,
        "rank with its interval (blue), rank by the measured scores (ring)",
        "Interval of the rank of every candidate, and its measured rank",
    )


def _comparisons(result: HeldOutResult) -> Section:
    one_task = "As if the mean rhos were of one task."
    columns = (
        Column("protocol", "protocol"),
        Column("first", "first"),
        Column("second", "second"),
        Column("difference", "difference", _RHO, "Rho of the first minus rho of the second."),
        Column("ci_low", "interval", _RHO_INTERVAL, "Families drawn again.", also=("ci_high",)),
        Column("probability", "P(first better)", _SHARE, "Share of bootstrap samples."),
        Column(
            "smallest_detectable_difference",
            "smallest",
            _SHARE,
            "True difference that this n detects with a power of 80 %.",
        ),
        Column("zou_low", "Zou (one task)", _RHO_INTERVAL, one_task, also=("zou_high",)),
        Column("williams_p", "Williams p", P_VALUE, one_task),
        Column("n_candidates", "n", INTEGER, wide_only=True),
    )
    caption = (
        "Differences of rho on the same held-out cells, families drawn again; "
        "smallest: difference detectable with a power of 80 %"
    )
    table = Table(result.frames()["comparisons"], columns, caption, group_by="protocol")
    return Section("Scorers compared", (table,), wide_only=True)


def report_record(report: HeldOutResult, table: str) -> dict[str, Any]:
    """The whole report; `table` is the file's name."""
    best = report.best
    return {
        "table": table,
        "leader": None if report.leader is None else asdict(report.leader),
        "standings": report.frames()["standings"].to_dicts(),
        "n_candidates": report.n_candidates,
        "n_families": report.n_families,
        "n_tasks": report.n_tasks,
        "n_features": report.n_features,
        "rows": [_row(row) for row in report.rows],
        "comparisons": [asdict(comparison) for comparison in report.comparisons],
        "ranking": None if report.order is None else asdict(report.order),
        "best_of_features": None
        if best is None
        else {
            "feature": best.feature,
            "mean_spearman": best.rho,
            "mean_abs_spearman": best.mean_abs_rho,
            "n_features": best.n_features,
            **_null(best.null),
        },
        "options": asdict(report.options),
        "versions": report.versions,
        "warnings": list(report.warnings),
    }


def _row(row: ScorerRow) -> dict[str, Any]:
    record = asdict(row) | _null(row.null) | {"chosen": chosen_counts(row.chosen)}
    del record["null"]
    return record | {"partial_spearman": record.pop("partial"), "n_rhos": record.pop("n_panels")}


def _null(null: Null) -> dict[str, Any]:
    return {"null_p": null.p, "null_mean": null.mean, "null_q95": null.q95, "n_permutations": null.n}
