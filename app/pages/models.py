"""Models: which candidate leads, how sure that is, and what the proxies agree with."""

import streamlit as st

from app import text
from app.charts.proxy_heatmap import heatmap
from app.charts.proxy_scatter import dots_of, scatter
from app.data import LeftOut, Ranked, RunView, current_identity, current_run, follow
from app.ranking_table import correlations_csv, ranking_csv, show_standings
from app.text import file_name, plain
from forecast.analysis.ranking.single_proxy import Correlation, TargetCorrelations
from forecast.errors import NoDataError
from forecast.proxies.token_proxies import METRICS, PROXIES, WEIGHTINGS
from forecast.safe_text import clean, printable, without_secrets


def page() -> None:
    """Draw the page."""
    identity = current_identity()
    try:
        run = current_run(identity)
    except NoDataError as error:
        st.title("Nothing to show yet")
        st.info(f"{text.message(str(error))} This page appears by itself as soon as there are results.")
    else:
        _run(run)
    follow(identity)


def _run(run: RunView) -> None:
    st.title(plain(run.name), anchor=False)
    _facts(run)
    _left_out(run.left_out)
    if run.ranked is None:
        st.error(f"There is no ranking. {text.message(run.problem or 'no reason is known')}")
        return
    ranking = run.ranked.ranking
    st.markdown(text.lead(ranking))
    show_standings(ranking)
    _downloads(run.name, run.ranked)
    if ranking.warnings:
        notes = "\n".join(f"- {plain(warning)}." for warning in ranking.warnings)
        st.warning(f"**Read with care**\n\n{notes}", icon=":material/info:")
    if ranking.reports:
        _agreement(run.ranked)
    else:
        st.info(
            "No measured scores yet, so the proxies cannot be validated. "
            "Add `measured_scores` or `direct_evaluation` to the configuration."
        )


def _facts(run: RunView) -> None:
    built = run.built_at.replace("T", " ").replace("+00:00", " UTC")
    facts = [f"window {run.window}", f"built {built}"]
    if run.ranked is not None:
        population = run.ranked.population
        read = " and ".join(
            f"{sum(len(expert.index) for expert in task.experts.values())} of {name}"
            for name, task in population.proxies.items()
        )
        facts.insert(0, f"{len(population.candidates)} candidates ranked, solutions read by each: {read}")
    st.caption(plain(" · ".join(facts)))


def _left_out(entries: tuple[LeftOut, ...]) -> None:
    if not entries:
        return
    count = f"{len(entries)} failed or unfinished: missing from the figures below, in whole or in part"
    with st.expander(f":red[**{count}**]", expanded=True, icon=":material/error:"):
        for entry in entries:
            st.markdown(f"**{plain(entry.name)}** · {plain(entry.status)}")
            st.code(printable(without_secrets(entry.reason)), language=None, wrap_lines=True)


def _downloads(name: str, ranked: Ranked) -> None:
    files = [("Ranking as CSV", "ranking", ranking_csv(ranked.ranking))]
    if ranked.ranking.reports:
        files.append(("All correlations as CSV", "correlations", correlations_csv(ranked.ranking)))
    with st.container(horizontal=True):
        for label, suffix, data in files:
            st.download_button(
                label,
                data,
                file_name=f"{file_name(name)}-{suffix}.csv",
                mime="text/csv",
                icon=":material/download:",
                on_click="ignore",
            )


def _agreement(ranked: Ranked) -> None:
    ranking = ranked.ranking
    st.subheader("Do the proxies agree with what was measured?", anchor=False)
    report, chosen = _choose(ranking.reports)
    proxy = next(p for p in PROXIES if p.name == chosen.proxy)
    dots = dots_of(ranked.population, report, proxy)
    picture, side = st.columns([3, 1], gap="medium")
    chart, unnamed = scatter(dots, proxy, _measured_title(ranked, report))
    with picture:
        st.altair_chart(chart, alt=f"{text.proxy_title(proxy.name)} against {clean(report.target)}")
        st.caption(text.scatter_caption(report, len(ranked.population.candidates) - len(dots), unnamed))
    with side:
        st.metric("Spearman's rho", text.signed(chosen.spearman))
        st.markdown(f"{text.certainty(chosen, ranking.confidence)}  \n{plain(text.counted(report))}")
        plain_one = report.plain_cross_entropy()
        if chosen.proxy != plain_one.proxy:
            st.markdown(f"Plain cross-entropy: {plain(text.signed(plain_one.spearman))}")
        if (selection := text.chance(report, chosen)) is not None:
            st.caption(selection)
    st.markdown(f"**All 80 proxies against {plain(report.target)}** · rho, n = {report.n_candidates}")
    st.altair_chart(heatmap(report.correlations, chosen.proxy), alt="rho of all 80 proxies")
    st.caption(text.RHO_CAPTION)


def _choose(reports: tuple[TargetCorrelations, ...]) -> tuple[TargetCorrelations, Correlation]:
    """The selectors; the proxy that agrees best is chosen until the reader chooses another."""
    left, middle, right = st.columns(3)
    names = [report.target for report in reports]
    target = left.selectbox("Measured", names, key="target", format_func=clean)
    report = next(r for r in reports if r.target == target)
    first = report.best() or report.plain_cross_entropy()
    metrics, weightings = [m.name for m in METRICS], [w.name for w in WEIGHTINGS]
    # The key names the leading proxy: when a new warehouse has another one, that is shown.
    metric = middle.selectbox(
        "Metric of a token",
        metrics,
        index=metrics.index(first.metric),
        key=f"metric {target} {first.proxy}",
        help="\n".join(f"- **{plain(m.name)}** {plain(m.meaning)}" for m in METRICS),
    )
    weighting = right.selectbox(
        "Weighting of the tokens",
        weightings,
        index=weightings.index(first.weighting),
        key=f"weighting {target} {first.proxy}",
        help="\n".join(f"- **{plain(w.name)}** {plain(w.meaning)}" for w in WEIGHTINGS),
    )
    chosen = next(c for c in report.correlations if (c.metric, c.weighting) == (metric, weighting))
    return report, chosen


def _measured_title(ranked: Ranked, report: TargetCorrelations) -> str:
    metrics = {t.metric for t in ranked.population.targets if t.task in report.measured}
    return f"{report.target}: {metrics.pop()}" if len(metrics) == 1 else report.target


page()
