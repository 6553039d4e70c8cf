"""Sections of the page that are about the texts: tokenizers, how many there are, and whether they leaked."""

from forecast.analysis.diagnostics import charts
from forecast.analysis.diagnostics.diagnose import Diagnosis
from forecast.analysis.stats.figures import Rho
from forecast.report.page import Page


def tokenizers(page: Page, found: Diagnosis) -> None:
    """The section."""
    page.heading("Do tokenizers matter?")
    effect = found.tokenizers
    if effect.reason:
        page.text(sentence(effect.reason))
        return
    if effect.readings > 1:
        page.warning(
            f"The candidates cut the texts in {effect.readings} ways: means over tokens are not comparable "
            "between them; look at bits per byte and the proxies over bytes."
        )
    page.table(
        ["candidate", "task", "vocabulary", "bytes per token", "bits per byte"],
        [[c.candidate, c.task, c.vocab_size, c.bytes_per_token, c.bits_per_byte] for c in effect.cuttings],
    )
    page.table(
        ["task", "proxy", "rho", "low", "high", "n", "reason"],
        [
            [o.task, o.proxy, o.rho.spearman, o.rho.low, o.rho.high, o.rho.n, o.rho.reason]
            for o in effect.orders
        ],
        "order over tokens against order over bytes",
    )
    if effect.targets:
        page.table(
            ["proxy over bytes", "target", "rho", "low", "high", "n", "reason"],
            [
                [t.proxy, t.target, t.rho.spearman, t.rho.low, t.rho.high, t.rho.n, t.rho.reason]
                for t in effect.targets
            ],
            "positive: ranks good candidates high",
        )


def instances(page: Page, found: Diagnosis) -> None:
    """The section."""
    page.heading("How many instances are needed?")
    page.text(
        "Instances drawn without replacement: rho with the measured scores, with the range of its draws. The "
        "half-width is for fresh instances and knows the noise of the texts alone."
    )
    rows = [
        {"n": p.n, "rho": p.rho, "low": p.low, "high": p.high, "proxy": i.proxy, "target": i.target}
        for i in found.instances[: len(found.proxies)]
        for p in i.points
        if p.rho is not None
    ]
    if rows:
        page.chart(
            charts.curve(rows),
            f"rho with {rows[0]['target']} against instances of each task; bands: {found.confidence:.0%} of "
            "the draws",
            "Rank correlation against the number of instances",
        )
    page.table(
        [
            "target",
            "proxy",
            "instances",
            "candidates",
            "rho",
            "half-width",
            "for ±0.1",
            "for ±0.05",
            "reason",
        ],
        [
            [i.target, i.proxy, i.n, i.n_candidates, i.rho, i.half_width, *(n for _, n in i.needed), i.reason]
            for i in found.instances
        ],
        "for ±0.1: instances of each task that would give it",
    )
    page.table(
        ["target", "proxy", "n", "rho", "low", "high", "sd (fresh)", "order repeats"],
        [
            [i.target, i.proxy, p.n, p.rho, p.low, p.high, p.sd, p.repeat]
            for i in found.instances
            for p in i.points
        ],
        "order repeats: rho between the orders by two draws that share nothing",
    )


def min_k(page: Page, found: Diagnosis) -> None:
    """The section."""
    page.heading("Does a candidate know the texts of one task suspiciously well?")
    page.text(
        f"Min-{found.options.min_k_percent:g}%: the mean log-probability of the least likely tokens. Excess: "
        "how much higher, in standard deviations over the candidates, it stands in this task than in the "
        "others. A hint at most."
    )
    rows = [
        {"candidate": m.candidate, "task": m.task, "excess": m.excess}
        for m in found.min_k
        if m.excess is not None
    ]
    if rows:
        page.chart(charts.dots(rows), "excess of each task", "Excess of Min-K% of every candidate and task")
    page.table(
        ["candidate", "task", "instances", "nats", "z", "z elsewhere", "excess", "reason"],
        [[m.candidate, m.task, m.instances, m.value, m.z, m.others, m.excess, m.reason] for m in found.min_k],
    )


def contamination(page: Page, found: Diagnosis) -> None:
    """The section."""
    page.heading("Are the texts in a corpus?")
    c = found.contamination
    if c.reason:
        page.text(sentence(c.reason))
        return
    page.table(
        ["task", "text", "texts", "too short", "matched", "mean share"],
        [[t.task, t.part, t.texts, t.too_short, t.matched, t.mean_share] for t in c.tasks],
        f"matches of {c.n} {c.unit}; documents: {c.documents:,}, files: {c.files:,}"
        + (f", rows without text: {c.rows_without_text:,}" if c.rows_without_text else ""),
    )
    if c.matches:
        page.table(
            ["task", "instance", "text", "expert", c.unit, "share", "longest match"],
            [
                [m.task, m.instance_id, m.part, m.expert, m.longest_run, m.share, m.excerpt[:300]]
                for m in c.matches[:100]
            ],
            f"the longest of {len(c.matches)} matches" if len(c.matches) > 100 else None,
        )
    if c.matches and c.without_reason:
        page.text(f"No ranking without matches: {c.without_reason}.")
    for w in c.without:
        page.table(
            ["target", "rho, all", "rho, without matches", "n"],
            [[t.target, t.whole.spearman, t.part.spearman, t.part.n] for t in w.targets],
            f"by {w.proxy}; order with and without instances that match: {words(w.order_rho)}",
        )


def sentence(reason: str) -> str:
    """A reason as a sentence."""
    return reason[:1].upper() + reason[1:] + ("" if reason.endswith(".") else ".")


def words(rho: Rho) -> str:
    """With interval and n; the reason where there is none."""
    if rho.spearman is None:
        return f"none ({rho.reason})"
    interval = "" if rho.low is None else f" [{rho.low:+.2f}, {rho.high:+.2f}]"
    return f"{rho.spearman:+.2f}{interval}, n = {rho.n}"
