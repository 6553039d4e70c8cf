"""The diagnostics as tables for the terminal; no arithmetic beyond formatting. What is missing is a dash."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forecast.analysis.diagnostics.diagnose import Diagnosis
from forecast.analysis.stats.figures import Compared, Rho

_MATCHES_SHOWN = 10


def diagnosis_tables(found: Diagnosis) -> RenderableType:
    """Everything, one table for each question; where there is nothing to show, the reason."""
    parts = [
        Text(f"Diagnostics of {found.name}; proxies looked at: {', '.join(found.proxies)}", style="bold"),
        *(Text("note: " + warning, style="yellow") for warning in found.warnings),
        *_experts(found),
        *_agreement(found),
        *_ties(found),
        *_windows(found),
        *_forms(found),
        *_tokenizers(found),
        *_instances(found),
        *_min_k(found),
        *_contamination(found),
    ]
    return Group(*parts)


def _experts(found: Diagnosis) -> list[RenderableType]:
    rows: list[Sequence[RenderableType]] = []
    for expert in found.experts:
        head: list[RenderableType] = [
            Text(expert.expert),
            Text(expert.family or "-"),
            str(len(expert.same_family)),
        ]
        if expert.reason:
            rows.append([*head, "-", "-", "-", "-", "-", expert.reason])
        for own in expert.left_out:
            targets: Sequence[Compared | None] = own.targets or (None,)
            for i, c in enumerate(targets):
                start: Sequence[RenderableType] = head if i == 0 else ("", "", "")
                rows.append(
                    [
                        *start,
                        own.proxy,
                        rho(own.order_rho),
                        Text(c.target) if c else "-",
                        f"{rho(c.whole)} → {rho(c.part)}" if c else "-",
                        signed(own.favour),
                        own.reason or "",
                    ]
                )
    columns = (
        "expert",
        "family",
        "own family",
        "proxy",
        "order with / without",
        "target",
        "rho with → without",
        "favour",
        "",
    )
    note = (
        "each expert left out; own family: candidates of the expert's; favour: mean places that these lose "
        "without it, less what the others lose"
    )
    return [_table("Does an expert favour its own family?", columns, rows, note)]


def _agreement(found: Diagnosis) -> list[RenderableType]:
    title = "Do experts agree about the candidates?"
    if found.agreement.reason:
        return [_absent(title, found.agreement.reason)]
    rows: list[Sequence[RenderableType]] = [
        [
            Text(pair.task),
            Text(f"{pair.first} / {pair.second}"),
            str(pair.n_instances[0])
            if pair.same_instances
            else f"{pair.n_instances[0]} / {pair.n_instances[1]} (others)",
            o.proxy,
            rho(o.rho),
            signed(o.rho.kendall),
            str(o.rho.n),
            signed(pair.median_rho),
        ]
        for pair in found.agreement.pairs
        for o in pair.rhos
    ]
    columns = ("task", "experts", "instances", "proxy", "rho", "tau-b", "n", "median of 80")
    return [_table(title, columns, rows, f"intervals: {found.confidence:.0%}, over candidates")]


def _ties(found: Diagnosis) -> list[RenderableType]:
    rows: list[Sequence[RenderableType]] = [
        [
            Text(t.candidate),
            t.dtype,
            Text(t.task),
            f"{t.tokens:,}",
            f"{t.tied_share:.1%}",
            *(f"{t.topk_uncertain[k]:.2%}" for k in t.topk_uncertain),
            f"{t.mean_rank_best:,.1f} .. {t.mean_rank_worst:,.1f}",
        ]
        for t in found.ties
    ]
    columns = (
        "candidate",
        "dtype",
        "task",
        "tokens",
        "tied",
        "top 1",
        "top 2",
        "top 3",
        "top 5",
        "mean rank",
    )
    note = (
        "tied: tokens whose rank is uncertain, as other entries have exactly the same logit; top k: tokens "
        "that are or are not among the first k as one chooses; mean rank: by the best and by the worst place"
    )
    return [_table("How much rests on ties?", columns, rows, note)]


def _windows(found: Diagnosis) -> list[RenderableType]:
    rows: list[Sequence[RenderableType]] = []
    for w in found.windows:
        head: list[RenderableType] = [f"{w.last_tokens:,}", f"{w.shortened:,} of {w.readings:,}"]
        if w.reason:
            rows.append([*head, "-", "-", "-", w.reason])
        for i, order in enumerate(w.order_rho):
            own = [c for c in w.targets if c.proxy == order.proxy]
            rows.append(
                [
                    *(head if i == 0 else ["", ""]),
                    order.proxy,
                    rho(order.rho),
                    signed(w.median_rho) if i == 0 else "",
                    Text(
                        "; ".join(
                            f"{c.target} {signed(c.whole.spearman)} → {signed(c.part.spearman)}" for c in own
                        )
                    ),
                ]
            )
    columns = ("last tokens", "readings cut", "proxy", "order: rho", "median of 80", "rho: all → window")
    note = "from the lake, as if scored with this window; order: against that by all tokens, over all tasks"
    return [_table("Does the window matter?", columns, rows, note)]


def _forms(found: Diagnosis) -> list[RenderableType]:
    title = "Does the prompt form matter?"
    if found.forms.reason:
        return [_absent(title, found.forms.reason)]
    rows: list[Sequence[RenderableType]] = [
        [
            Text(f"{d.raw} / {d.chat}"),
            Text(d.task),
            d.proxy,
            f"{d.raw_mean:.4g}",
            f"{d.chat_mean:.4g}",
            f"{d.difference:+.4g}",
            "-" if d.low is None else f"[{d.low:+.3g}, {d.high:+.3g}]",
            str(d.solutions),
        ]
        for d in found.forms.differences
    ]
    columns = ("raw / chat", "task", "proxy", "raw", "chat", "difference", "interval", "solutions")
    orders = "; ".join(f"{o.proxy} {_why(o.rho)}" for o in found.forms.order_rho)
    return [
        _table(
            title, columns, rows, f"{found.forms.models} models in both forms; rho of their orders: {orders}"
        )
    ]


def _tokenizers(found: Diagnosis) -> list[RenderableType]:
    title, effect = "Do tokenizers matter?", found.tokenizers
    if effect.reason:
        return [_absent(title, effect.reason)]
    rows: list[Sequence[RenderableType]] = [
        [
            Text(c.candidate),
            Text(c.task),
            f"{c.vocab_size:,}",
            "-" if c.bytes_per_token is None else f"{c.bytes_per_token:.3f}",
            "-" if c.bits_per_byte is None else f"{c.bits_per_byte:.4f}",
        ]
        for c in effect.cuttings
    ]
    cut = (
        "all candidates cut the texts alike: where two orders differ, it is the spreading over bytes itself"
        if effect.readings == 1
        else f"the candidates cut the texts in {effect.readings} ways: means over tokens are not comparable"
    )
    columns = ("candidate", "task", "vocabulary", "bytes per token", "bits per byte")
    against: list[Sequence[RenderableType]] = []
    against += [(o.proxy, Text(f"over tokens ({o.task})"), _why(o.rho)) for o in effect.orders]
    against += [(t.proxy, Text(f"scores of {t.target}"), _why(t.rho)) for t in effect.targets]
    names = ("over bytes", "against", "rho")
    return [_table(title, columns, rows, cut), _table("Orders over bytes", names, against)]


def _instances(found: Diagnosis) -> list[RenderableType]:
    rows: list[Sequence[RenderableType]] = []
    for i in found.instances:
        repeat = [(p.n, p.repeat) for p in i.points if p.repeat is not None]
        wanted = "; ".join(f"±{w}: {'-' if n is None else f'{n:,}'}" for w, n in i.needed)
        rows.append(
            [
                Text(i.target or "-"),
                i.proxy,
                str(i.n),
                signed(i.rho),
                "-" if i.half_width is None else f"{i.n} give ±{i.half_width:.3f}",
                "-" if i.half_width is None else wanted,
                "-" if not repeat else f"{repeat[-1][1]:+.3f} (n = {repeat[-1][0]})",
                i.reason or "",
            ]
        )
    columns = ("target", "proxy", "instances", "rho", "half-width", "needed for", "order repeats", "")
    note = (
        f"{found.confidence:.0%} half-widths of rho over fresh instances; order repeats: rho between the "
        "orders by two draws of n that share nothing"
    )
    return [_table("How many instances are needed?", columns, rows, note)]


def _min_k(found: Diagnosis) -> list[RenderableType]:
    rows: list[Sequence[RenderableType]] = [
        [
            Text(m.candidate),
            Text(m.task),
            f"{m.value:.3f}",
            signed(m.z),
            signed(m.others),
            signed(m.excess),
            m.reason or "",
        ]
        for m in sorted(found.min_k, key=lambda m: -(m.excess if m.excess is not None else -99.0))
    ]
    percent = f"{found.options.min_k_percent:g}"
    columns = ("candidate", "task", f"Min-{percent}% (nats)", "z", "z elsewhere", "excess", "")
    note = (
        "mean log-probability of the least likely tokens; excess: how much higher the candidate stands in "
        "this task than in the others. A hint at most"
    )
    return [_table("Does a candidate know the texts of one task suspiciously well?", columns, rows, note)]


def _contamination(found: Diagnosis) -> list[RenderableType]:
    title, c = "Are the texts in a corpus?", found.contamination
    if c.reason:
        return [_absent(title, c.reason)]
    rows: list[Sequence[RenderableType]] = [
        [
            Text(t.task),
            t.part,
            str(t.texts),
            str(t.too_short),
            str(t.matched),
            "-" if t.mean_share is None else f"{t.mean_share:.2%}",
        ]
        for t in c.tasks
    ]
    note = (
        f"matches of {c.n} {c.unit}; documents: {c.documents:,}, files: {c.files:,}"
        + (f", rows without text: {c.rows_without_text:,}" if c.rows_without_text else "")
        + "; what is too short cannot match"
    )
    parts: list[RenderableType] = [
        _table(title, ("task", "text", "texts", "too short", "matched", "mean share"), rows, note)
    ]
    if c.matches:
        shown = [
            [
                Text(m.task),
                Text(m.instance_id),
                m.part,
                str(m.longest_run),
                f"{m.share:.1%}",
                Text(m.excerpt[:70]),
            ]
            for m in c.matches[:_MATCHES_SHOWN]
        ]
        more = len(c.matches) - len(shown)
        parts.append(
            _table(
                "The longest matches",
                ("task", "instance", "text", c.unit, "share", "begins"),
                shown,
                f"{more} more with --json" if more else "",
            )
        )
    for w in c.without:
        targets = "; ".join(
            f"{t.target} {signed(t.whole.spearman)} → {signed(t.part.spearman)}" for t in w.targets
        )
        line = f"without instances that match, by {w.proxy}: order {_why(w.order_rho)}"
        parts.append(Text(f"{line}; rho {targets}" if targets else line))
    if c.matches and c.without_reason:
        parts.append(Text(f"no ranking without matches: {c.without_reason}", style="dim"))
    return parts


def _table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[RenderableType]], note: str = ""
) -> Group:
    table = Table(title=Text(title, style="table.title", justify="left"), title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return Group(Text(), table, *([Text(note, style="dim")] if note else []))


def _absent(title: str, reason: str) -> Group:
    return Group(Text(), Text(title, style="italic"), Text("  " + reason, style="dim"))


def signed(value: float | None) -> str:
    """+0.93, or a dash."""
    return "-" if value is None else f"{value:+.2f}"


def rho(value: Rho) -> str:
    """+0.93 [+0.72, +0.98], or a dash."""
    if value.spearman is None:
        return "-"
    return signed(value.spearman) + (
        "" if value.low is None else f" [{signed(value.low)}, {signed(value.high)}]"
    )


def _why(value: Rho) -> str:
    """With n; the reason where there is no figure."""
    return f"none ({value.reason})" if value.spearman is None else f"{signed(value.spearman)} (n = {value.n})"
