"""The diagnostics as one HTML file: the figures of the terminal, with plots where a plot says more."""

from forecast.analysis.diagnostics import charts, page_texts
from forecast.analysis.diagnostics.diagnose import Diagnosis
from forecast.analysis.diagnostics.page_texts import sentence, words
from forecast.analysis.stats.figures import Compared
from forecast.report.page import Page


def diagnosis_page(found: Diagnosis, source: str) -> Page:
    """Everything that `forecast diagnose` says."""
    page = Page(
        f"Diagnostics of {source}",
        f"proxies looked at: {', '.join(found.proxies)}; {found.confidence:.0%} intervals; seed {found.seed}",
    )
    for warning in found.warnings:
        page.warning(warning)
    for failure in found.failed:
        page.warning(failure["error"])
    for section in (
        _experts,
        _agreement,
        _ties,
        _windows,
        _forms,
        page_texts.tokenizers,
        page_texts.instances,
        page_texts.min_k,
        page_texts.contamination,
    ):
        section(page, found)
    return page


def _experts(page: Page, found: Diagnosis) -> None:
    page.heading("Does an expert favour its own family?")
    page.text(
        "Each expert is left out in turn. Favour: the mean places that candidates of the expert's family "
        "lose without it, less what the others lose."
    )
    for expert in found.experts:
        known = f"family {expert.family} (by its {expert.known_by})" if expert.family else "family not known"
        lost = f"; only it wrote for {', '.join(expert.tasks_lost)}" if expert.tasks_lost else ""
        page.text(f"{expert.expert}: {known}, {len(expert.same_family)} candidates of it{lost}.")
        if expert.reason:
            page.text(f"Not left out: {expert.reason}.")
        for own in expert.left_out:
            page.table(
                ["candidate", "family", "own family", "place", "place without", "lost"],
                [
                    [
                        s.candidate,
                        s.family,
                        "yes" if s.same_family else "no",
                        s.place_with,
                        s.place_without,
                        s.place_without - s.place_with,
                    ]
                    for s in sorted(own.shifts, key=lambda s: s.place_with)
                ],
                f"by {own.proxy}; order with and without: {words(own.order_rho)}; favour: "
                + (own.reason or "–" if own.favour is None else f"{own.favour:+.2f} places"),
            )
            if own.targets:
                page.table(
                    ["target", "rho with it", "rho without", "n"],
                    [[c.target, c.whole.spearman, c.part.spearman, c.part.n] for c in own.targets],
                    f"by {own.proxy}",
                )


def _agreement(page: Page, found: Diagnosis) -> None:
    page.heading("Do experts agree about the candidates?")
    if found.agreement.reason:
        page.text(sentence(found.agreement.reason))
        return
    rows = [
        [
            p.task,
            p.first,
            p.second,
            *p.n_instances,
            "yes" if p.same_instances else "no",
            o.proxy,
            o.rho.spearman,
            o.rho.low,
            o.rho.high,
            o.rho.kendall,
            o.rho.n,
            p.median_rho,
            o.rho.reason,
        ]
        for p in found.agreement.pairs
        for o in p.rhos
    ]
    page.table(
        [
            "task",
            "first",
            "second",
            "instances",
            "instances",
            "the same",
            "proxy",
            "rho",
            "low",
            "high",
            "tau-b",
            "n",
            "median of 80",
            "reason",
        ],
        rows,
        "rank correlation over the candidates of what two experts' solutions say; intervals over candidates",
    )


def _ties(page: Page, found: Diagnosis) -> None:
    page.heading("How much rests on ties?")
    page.text(
        "Where other vocabulary entries have exactly the same logit as the expert's token, its rank is any "
        "of several places; the lake keeps the best of them. The bars show top-1 accuracy by the worst and "
        "by the best place."
    )
    rows = [
        {"candidate": t.candidate, "task": t.task, "low": t.topk_worst[1], "high": t.topk_best[1]}
        for t in found.ties
    ]
    page.chart(
        charts.bars(rows), "top-1 accuracy, worst to best place", "Range of top-1 accuracy of every candidate"
    )
    page.table(
        [
            "candidate",
            "dtype",
            "task",
            "tokens",
            "tied",
            *(f"top-{k} uncertain" for k in (1, 2, 3, 5)),
            "mean rank, best",
            "worst",
        ],
        [
            [
                t.candidate,
                t.dtype,
                t.task,
                t.tokens,
                t.tied_share,
                *t.topk_uncertain.values(),
                t.mean_rank_best,
                t.mean_rank_worst,
            ]
            for t in found.ties
        ],
        "shares of the tokens",
    )


def _windows(page: Page, found: Diagnosis) -> None:
    page.heading("Does the window matter?")
    page.text(
        "All proxies again from the last tokens alone, as if scored with that window: rho of the order with "
        "that by all scored tokens, and of each with the measured scores."
    )
    rows = [
        {"tokens": w.last_tokens, "proxy": o.proxy, "rho": o.rho.spearman}
        for w in found.windows
        for o in w.order_rho
        if o.rho.spearman is not None
    ]
    if len({row["tokens"] for row in rows}) > 1:
        page.chart(
            charts.lines(rows, "tokens", "last tokens of each solution", "rho with the order by all tokens"),
            "order by a window against the order by all scored tokens",
            "Rank correlation of the orders by shorter windows with the full order",
        )
    table: list[list[object]] = []
    for w in found.windows:
        if w.reason:
            table.append(
                [w.last_tokens, w.shortened, w.readings, None, None, None, None, None, None, w.reason]
            )
        for o in w.order_rho:
            own: list[Compared | None] = [*(c for c in w.targets if c.proxy == o.proxy)] or [None]
            for c in own:
                table.append(
                    [
                        w.last_tokens,
                        w.shortened,
                        w.readings,
                        o.proxy,
                        o.rho.spearman,
                        w.median_rho,
                        c.target if c else None,
                        c.whole.spearman if c else None,
                        c.part.spearman if c else None,
                        o.rho.reason,
                    ]
                )
    page.table(
        [
            "last tokens",
            "cut",
            "readings",
            "proxy",
            "order: rho",
            "median of 80",
            "target",
            "rho, all tokens",
            "rho, window",
            "reason",
        ],
        table,
        "cut: readings of a solution by a candidate that have more tokens",
    )


def _forms(page: Page, found: Diagnosis) -> None:
    page.heading("Does the prompt form matter?")
    if found.forms.reason:
        page.text(sentence(found.forms.reason))
        return
    page.table(
        ["raw", "chat", "task", "proxy", "raw", "chat", "difference", "low", "high", "solutions"],
        [
            [
                d.raw,
                d.chat,
                d.task,
                d.proxy,
                d.raw_mean,
                d.chat_mean,
                d.difference,
                d.low,
                d.high,
                d.solutions,
            ]
            for d in found.forms.differences
        ],
        "; ".join(
            f"order of the models by {o.proxy} in both forms: {words(o.rho)}" for o in found.forms.order_rho
        ),
    )
