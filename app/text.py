"""Figures as words; no arithmetic beyond formatting.

Names come from users and may hold what Streamlit would read as markup: they pass through `plain`.
"""

import re

from forecast.analysis.ranking.report import answer
from forecast.analysis.ranking.single_proxy import Correlation, Ranking, TargetCorrelations
from forecast.proxies.token_proxies import Proxy
from forecast.safe_text import clean


def plain(text: str) -> str:
    """Markdown that shows the text as it is, on one line."""
    return _escaped(clean(text))


def file_name(text: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^\w.-]+", "_", clean(text)).strip("._")[:60] or "run"


def message(text: str) -> str:
    """Markdown of a sentence of the library's, with its `commands` as code, a capital and a full stop."""
    text = clean(text)
    parts = re.split(r"`([^`]+)`", text[:1].upper() + text[1:])
    shown = "".join(f"`{part}`" if i % 2 else _escaped(part) for i, part in enumerate(parts))
    return shown if text.endswith((".", "!")) else shown + "."


def _escaped(text: str) -> str:
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def proxy_title(name: str) -> str:
    """`cross_entropy__uniform` as `cross_entropy × uniform`."""
    return name.replace("__", " × ")


def signed(value: float | None) -> str:
    """A correlation with its sign, two decimals."""
    return "undefined" if value is None else f"{value:+.2f}"


def interval(correlation: Correlation) -> str | None:
    """`[+0.86, +1.00]`, None where it is not known."""
    if correlation.ci_low is None or correlation.ci_high is None:
        return None
    return f"[{correlation.ci_low:+.2f}, {correlation.ci_high:+.2f}]"


_NOT_EVALUATED = (
    "this leader was chosen among single proxies; `forecast run CONFIG` evaluates scorers on models "
    "not seen, if there are enough, and may name another"
)


def lead(ranking: Ranking) -> str:
    """Markdown: the answer of the report, and what is missing where nothing was kept of models not seen."""
    said = plain(" ".join(answer(ranking)))
    if ranking.reports and not ranking.leader.held_out:
        return f"{said} {message(_NOT_EVALUATED)}"
    return said


def counted(report: TargetCorrelations) -> str:
    """`n = 11 candidates, 200 questions`."""
    items = "" if report.n_items is None else f", {report.n_items} questions"
    return f"n = {report.n_candidates} candidates{items}"


def certainty(chosen: Correlation, confidence: float) -> str:
    """Markdown: interval and tau-b of one proxy."""
    within = interval(chosen)
    about = f"{100 * confidence:g}% interval {within}, over texts" if within else "no interval"
    return f"{plain(about)}  \nKendall's tau-b {plain(signed(chosen.kendall))}"


def chance(report: TargetCorrelations, chosen: Correlation) -> str | None:
    """Markdown: how far selection alone explains the best of 80; None where no rho is defined."""
    best = report.best()
    if best is None or best.spearman is None:
        return None
    null = "No permutation null was computed, so the selection effect is unknown."
    if report.best_p is not None and report.best_null_mean is not None:
        null = (
            f"On shuffled scores the best of 80 reaches {report.best_null_mean:.2f} on average "
            f"(permutation null, p = {report.best_p:.3f})."
        )
    if chosen.proxy == best.proxy:
        return f"The best of 80, selected post hoc: its rho is optimistically biased. {null}"
    name, rho = plain(proxy_title(best.proxy)), plain(signed(best.spearman))
    return f"Best of 80, selected post hoc: **{name}**, {rho}. {null}"


def direction(proxy: Proxy) -> str:
    """Which way good candidates move the proxy."""
    return {
        "low": "low is better, so the axis runs backwards",
        "high": "high is better",
        "learned": "direction unknown",
    }[proxy.metric.better]


RHO_CAPTION = (
    "rho is Spearman's rank correlation over the candidates between a proxy and the measured score. Proxies "
    "for which low is better have their sign flipped, so positive (blue) always means that good candidates "
    "rank high. Entropy's direction is unknown: its rho keeps its sign, and is compared by its size."
)


def scatter_caption(report: TargetCorrelations, unmeasured: int, unnamed: int) -> str:
    """Markdown below the scatter: what its marks mean, and what it does not show."""
    parts = ["Bars: ± one standard error of the measured score, where it is known."]
    if len(report.tasks) > 1:
        tasks = plain(", ".join(report.tasks))
        parts.append(
            f"Proxy values are means over {tasks}; rho is taken on values z-scored over the candidates "
            "within each task (no measured score enters that), so it may differ a little from the order "
            "seen here."
        )
    if unmeasured:
        parts.append(f"**Not shown: {unmeasured} candidates without a score of {plain(report.target)}.**")
    if unnamed:
        parts.append(f"{unnamed} names do not fit: hover over a dot to see which candidate it is.")
    return " ".join(parts)
