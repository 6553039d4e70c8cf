"""A comparison as one document; no arithmetic beyond formatting."""

import polars as pl

from forecast.analysis.parity.compare import ParityResult
from forecast.analysis.parity.ranking_effects import Order
from forecast.analysis.parity.token_diff import TokenParity
from forecast.report.document import Column, Document, Paragraph, Part, Section, Table, Warning
from forecast.report.format import INTEGER, MISSING, TEXT, Cell, Format, fixed

_MOVES_SHOWN = 20


def _share(part: int, whole: int) -> str:
    """As a percentage that is 0 or 100 only where that is exact."""
    if part in (0, whole):
        return "0%" if part == 0 else "100%"
    return f"{min(max(100 * part / whole, 0.01), 99.99):.2f}%"


def _where(candidate: str, task: str, instance: str, position: int, token: str, *values: float) -> str:
    """A token and its two values in one line."""
    shown = repr(token)[1:-1] or "…"
    base, against = values
    return f"{candidate}, {task}/{instance} #{position} '{shown}': {base:.6g} → {against:.6g}"


def _change(base: Cell, against: Cell) -> str:
    return f"{_SIGNED(base)} → {_SIGNED(against)}"


def _named(proxy: str) -> str:
    return proxy.replace("__", " × ")


_SIGNED = fixed(3, signed=True)
_SIZE = Format(lambda value: "0" if value == 0 else f"{value:.3g}")
_SHIFT = Format(lambda value: f"{value:+.2g}" if value else "0")
_PERCENT = Format(lambda value: "0" if value == 0 else f"{100 * value:.2g}%")
_SHARE = Format(_share)
_WHERE = Format(_where, right=False)
_CELL = Format(lambda name, task, base, against: f"{name}, {task}: {base:.5g} → {against:.5g}", right=False)
_PROXY = Format(_named, right=False)
_PROXY_RHO = Format(lambda proxy, *rho: f"{_named(proxy)} {_change(*rho)}", right=False)
_AT_CELL = ("at_task", "at_base", "at_against")
_AT_TOKEN = ("at_task", "at_instance_id", "at_position", "at_token", "at_base", "at_against")


def document(result: ParityResult) -> Document:
    """Verdict and order of the candidates, then what they rest on: tokens, proxies, rho; notes last."""
    frames = result.frames()
    sides = f"base {_side(result.base)}; against {_side(result.against)}"
    answer: list[Part] = [Paragraph(f"Parity of {result.name}: {sides}")]
    if result.tolerance is not None:
        answer.append(_verdict(result, result.tolerance, frames["statistics"]))
    if result.effects is not None:
        answer += [_order(order) for order in result.effects.orders if len(order.standings) > 1]
    sections = [Section("", tuple(answer))]
    sections.append(_tokens(result, frames))
    if result.effects is not None:
        sections.append(_proxies(result, frames))
        if result.effects.targets:
            sections.append(_targets(frames["targets"]))
    failures = tuple(Warning(failure["error"]) for failure in result.failed)
    sections.append(Section("Notes", tuple(map(Warning, result.notes))))
    # A terminal has them below the report.
    sections.append(Section("" if result.notes else "Notes", failures, wide_only=True))
    shown = tuple(section for section in sections if section.parts)
    return Document(f"Parity of {result.name}", sides, shown)


def _tokens(result: ParityResult, frames: dict[str, pl.DataFrame]) -> Section:
    statistics = (
        Column("statistic", "statistic"),
        Column("unit", "unit"),
        Column("largest", "largest", _SIZE, "Largest |against - base|."),
        Column("p99", "99% within", _SIZE, "99th percentile of |against - base|."),
        Column("mean", "mean", _SIZE, "Of |against - base|."),
        Column("median", "median", _SIZE, "Of |against - base|."),
        Column("signed_mean", "mean shift", _SHIFT, "Mean of against - base."),
        Column("differing", "differing", _SHARE, "Share of tokens not exactly equal.", also=("tokens",)),
        Column("at_candidate", "largest at: base → against", _WHERE, also=_AT_TOKEN),
    )
    pooled, frame = result.pooled, frames["statistics"]
    caption = (
        f"{pooled.tokens:,} tokens of {_many(pooled.instances, 'scored instance')} by "
        f"{_many(len(result.candidates), 'candidate')}; sizes are of |against - base|"
    )
    parts: list[Part] = [
        Table(frame.filter(pl.col("candidate").is_null()), statistics, caption),
        *_ranks(pooled),
    ]
    if len(result.candidates) > 1:
        candidates = (
            Column("candidate", "candidate"),
            Column("tokens", "tokens", INTEGER),
            Column("logprob_largest", "logprob: largest", _SIZE, "nats"),
            Column("logprob_p99", "99% within", _SIZE, "nats"),
            Column("logprob_median", "median", _SIZE, "nats"),
            Column("logprob_signed_mean", "mean shift", _SHIFT, "nats"),
            Column("entropy_largest", "entropy: largest", _SIZE, "nats"),
            Column("ranks_differing", "ranks differ", _SHARE, "Share of tokens.", also=("tokens",)),
            Column("by_ties", "by ties", _SHARE, "Explained by tied logits.", also=("tokens",)),
            Column("real", "real", _SHARE, "Not explained by ties.", also=("tokens",)),
            Column("first_choice", "first choice differs", _SHARE, "Rank 1 in one only.", also=("tokens",)),
        )
        own = frames["candidates"].filter(pl.col("candidate").is_not_null())
        parts.append(Table(own, candidates, "Per candidate"))
    return Section("Token statistics", tuple(parts))


def _ranks(pooled: TokenParity) -> tuple[Paragraph, Paragraph]:
    r, n = pooled.ranks, pooled.tokens
    return (
        Paragraph(
            f"ranks differ at {r.differing:,} tokens ({_share(r.differing, n)}): {r.by_ties:,} "
            f"explained by ties, {r.real:,} real; first choice in one setup only: {r.first_choice:,} "
            f"({_share(r.first_choice, n)})"
        ),
        Paragraph(f"tokens with ties: {_share(pooled.tied_base, n)} → {_share(pooled.tied_against, n)}"),
    )


def _proxies(result: ParityResult, frames: dict[str, pl.DataFrame]) -> Section:
    assert result.effects is not None
    effects, at = result.effects, Column("at_candidate", "at: base → against", _CELL, also=_AT_CELL)
    families: tuple[Column, ...] = (
        Column("metric", "proxy family"),
        Column("uniform_median", "uniform: median", _PERCENT, "Relative to the base."),
        Column("uniform_largest", "uniform: largest", _PERCENT, "Relative to the base."),
        Column("largest", "any weighting: largest", _PERCENT, "Relative to the base."),
        Column("weighting", "weighting", TEXT, "That differs most."),
        at,
    )
    every: tuple[Column, ...] = (
        Column("proxy", "proxy", _PROXY),
        Column("largest", "largest", _SIZE, "Of |against - base|."),
        Column("median", "median", _SIZE, "Of |against - base|."),
        Column("largest_relative", "largest, relative", _PERCENT, "Relative to the base."),
        Column("median_relative", "median, relative", _PERCENT, "Relative to the base."),
        at,
    )
    caption = "Differences over candidates and tasks, relative to the base"
    if effects.pairs:
        caption += "; tau-b and swapped pairs compare the candidates' two orders"
        pairs = _many(effects.pairs, "pair")
        families += (
            Column("lowest_tau_b", "lowest tau-b", _SIGNED),
            Column("most_swapped", f"most swapped of {pairs}", INTEGER),
        )
        every += (
            Column("spearman", "rho", _SIGNED, "Spearman's rho of the two orders."),
            Column("tau_b", "tau-b", _SIGNED, "Kendall's tau-b of the two orders."),
            Column("swapped", f"swapped of {pairs}", INTEGER),
            Column("tied_in_one", "tied in one setup", INTEGER, "Pairs of candidates."),
        )
    instances = ", ".join(f"{task} ({n})" for task, n in effects.instances.items())
    parts = (
        Paragraph(f"Instances scored by all candidates: {instances}"),
        Table(frames["families"], families, caption),
        Table(frames["proxies"], every, "Every proxy", wide_only=True),
    )
    return Section("The 80 proxies", parts)


def _order(order: Order) -> Paragraph:
    named, moved = _named(order.proxy), order.moved
    if not moved:
        return Paragraph(f"order by {named}: no candidate changes its place")
    shown = ", ".join(f"{s.candidate} ({s.base:g} → {s.against:g})" for s in moved[:_MOVES_SHOWN])
    more = f" and {len(moved) - _MOVES_SHOWN} more" if len(moved) > _MOVES_SHOWN else ""
    return Paragraph(f"order by {named}: {len(moved)} of {len(order.standings)} change place: {shown}{more}")


def _targets(frame: pl.DataFrame) -> Section:
    columns = (
        Column("target", "measured task"),
        Column("proxies_of", "proxies of"),
        Column("n", "n", INTEGER, "Candidates with a measured score."),
        Column("plain", "plain cross-entropy", Format(lambda _, *rho: _change(*rho)), also=_rhos("plain")),
        Column("best_base", "best of 80 in the base", _PROXY_RHO, also=_rhos("best_base")),
        Column("best_against", "best of 80 in the other", _PROXY_RHO, also=_rhos("best_against")),
        Column("changed", "changes most", _PROXY_RHO, also=_rhos("changed")),
    )
    return Section("Spearman's rho with measured scores: base → against", (Table(frame, columns),))


def _rhos(kind: str) -> tuple[str, str]:
    return f"{kind}_rho_base", f"{kind}_rho_against"


def _side(side: dict[str, object]) -> str:
    devices = side["devices"]
    on = f" on {', '.join(devices)}" if isinstance(devices, list) and devices != ["none"] else ""
    return f"{side['label']}{on}"


def _verdict(result: ParityResult, tolerance: float, statistics: pl.DataFrame) -> Part:
    if not result.exceeded:
        return Paragraph(f"within the tolerance: no logprob differs by more than {tolerance:g} nats")
    worst = statistics.row(
        by_predicate=pl.col("candidate").is_null() & (pl.col("statistic") == "logprob"), named=True
    )
    at = _WHERE(worst["at_candidate"], *(worst[name] for name in _AT_TOKEN))
    where = "" if at == MISSING else f" ({at})"
    text = f"beyond the tolerance of {tolerance:g} nats: a logprob differs by {worst['largest']:.3g}{where}"
    return Warning(text, "warning")


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")
