"""Models: which candidate leads, how sure that is, and what the proxies agree with."""

from typing import Any

import polars as pl
import streamlit as st

from app.charts import finite, heatmap, scatter
from app.data import RunView, current_run, follow
from forecast.errors import ForecastError
from forecast.proxies import METRICS, PROXIES, WEIGHTINGS
from forecast.ranking.points import proxy_values, target_scores
from forecast.ranking.results import TargetReport


def page() -> None:
    """Draw the page."""
    try:
        run, identity = current_run()
    except ForecastError as error:
        st.title("Models")
        st.info(f"Nothing to show yet: {error}. This page appears by itself as soon as there is something.")
        follow(None)
        return
    ranking = run.ranking
    st.title(run.name)
    read = ", ".join(f"{n} {task}" for task, n in ranking.n_instances.items())
    st.caption(
        f"{len(ranking.standings)} candidates have read {read} solutions · window {run.window} · "
        f"built {run.built_at.replace('T', ' ').replace('+00:00', '')} UTC"
    )
    if run.failures:
        with st.expander(f":red[**{len(run.failures)} failed**] and are not in the ranking", expanded=True):
            for failure in run.failures:
                st.code(failure.error, language=None, wrap_lines=True)
    _standings(run)
    for warning in ranking.warnings:
        st.caption(f":material/info: {warning}")
    if ranking.reports:
        _agreement(run)
    else:
        st.info(
            "No measured scores yet, so nothing says how far the proxies can be trusted. "
            "Add measured_scores or direct_evaluation to the configuration."
        )
    follow(identity)


def _standings(run: RunView) -> None:
    ranking = run.ranking
    measured = any(s.measured is not None for s in ranking.standings)
    rows: list[dict[str, Any]] = []
    for s in ranking.standings:
        row: dict[str, Any] = {
            "rank": s.forecast_rank,
            "candidate": s.candidate,
            "family": s.family,
            "parameters": None if s.parameters is None else s.parameters / 1e6,
        }
        if measured:
            row |= {"measured": s.measured, "± se": s.measured_stderr, "measured rank": s.measured_rank}
        rows.append(row | {name: s.values[name] for name in ranking.shown})
    table = pl.DataFrame(rows, infer_schema_length=None)
    against = f", which agrees best with {ranking.reports[0].target}" if ranking.reports else ""
    st.subheader("Ranking")
    st.caption(f"In the order of **{_title(ranking.shown[0])}**{against}.")
    st.dataframe(
        table,
        hide_index=True,
        height=35 * (len(rows) + 1) + 3 if len(rows) <= 20 else 740,
        column_config={
            "rank": st.column_config.NumberColumn(format="%g", width="small"),
            "candidate": st.column_config.TextColumn(width="medium", pinned=True),
            "parameters": st.column_config.NumberColumn("parameters (M)", format="%.1f"),
            "measured": st.column_config.NumberColumn(format="%.3f"),
            "± se": st.column_config.NumberColumn(format="%.3f"),
            "measured rank": st.column_config.NumberColumn(format="%g"),
            **{name: st.column_config.NumberColumn(_title(name), format="%.4g") for name in ranking.shown},
        },
    )
    st.download_button(
        "Download as CSV",
        table.write_csv().encode(),
        file_name=f"{run.name}-ranking.csv",
        mime="text/csv",
        icon=":material/download:",
    )


def _agreement(run: RunView) -> None:
    ranking = run.ranking
    st.subheader("Do the proxies agree with what was measured?")
    left, middle, right = st.columns(3)
    names = [report.target for report in ranking.reports]
    target = left.selectbox("Measured", names, key="target")
    report = next(r for r in ranking.reports if r.target == target)
    best = report.best()
    first = best or report.plain_cross_entropy()
    metrics, weightings = [m.name for m in METRICS], [w.name for w in WEIGHTINGS]
    metric = middle.selectbox("Metric", metrics, index=metrics.index(first.metric), key=f"metric {target}")
    weighting = right.selectbox(
        "Weighting", weightings, index=weightings.index(first.weighting), key=f"weighting {target}"
    )
    proxy = next(p for p in PROXIES if (p.metric.name, p.weighting.name) == (metric, weighting))
    picture, words = st.columns([3, 1])
    scores, errors = target_scores(run.population, report)
    values = proxy_values(run.population, report, proxy)
    points = [
        {
            "candidate": name,
            "family": run.population.families[i] or "unknown",
            "proxy": finite(values[i]),
            "measured": float(scores[i]),
            "low": finite(scores[i] - errors[i]),
            "high": finite(scores[i] + errors[i]),
        }
        for i, name in enumerate(run.population.candidates)
        if finite(scores[i]) is not None
    ]
    picture.altair_chart(scatter(points, proxy, target))
    with words:
        _words(report, proxy.name, ranking.confidence)
    st.markdown(f"**Spearman's rho of all 80 proxies** against {target}, n = {report.n_candidates}")
    st.altair_chart(heatmap(report.correlations))
    st.caption(
        "rho is the rank correlation over the candidates. Proxies for which low is better are turned round: "
        "positive (blue) always means that good candidates rank high. Entropy's direction is not known "
        "beforehand, and its rho stands as it is."
    )


def _words(report: TargetReport, name: str, confidence: float) -> None:
    chosen = next(c for c in report.correlations if c.proxy == name)
    plain = report.plain_cross_entropy()
    st.metric("Spearman's rho", "undefined" if chosen.spearman is None else f"{chosen.spearman:+.2f}")
    interval = (
        "no interval"
        if chosen.ci_low is None or chosen.ci_high is None
        else f"{confidence:.0%} interval over texts [{chosen.ci_low:+.2f}, {chosen.ci_high:+.2f}]"
    )
    tau = "undefined" if chosen.kendall is None else f"{chosen.kendall:+.2f}"
    items = f" and {report.n_items} questions" if report.n_items else ""
    st.markdown(f"{interval}  \ntau-b {tau}  \nn = {report.n_candidates} candidates{items}")
    if plain.spearman is not None and chosen is not plain:
        st.markdown(f"plain cross-entropy: {plain.spearman:+.2f}")
    best = report.best()
    if best is not None and best.proxy == name and report.best_p is not None:
        st.caption(
            f"The best of 80, picked after looking. On shuffled scores the best of 80 reaches "
            f"{report.best_null_mean:.2f} on average; as much as this by chance: p = {report.best_p:.3f}."
        )


def _title(name: str) -> str:
    return name.replace("__", " × ")


page()
