"""A comparison for the terminal; no arithmetic beyond formatting. Names and texts reach rich as `Text`."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forecast.analysis.parity.compare import Parity
from forecast.analysis.parity.ranking_effects import Cell, Effects, Order, ProxyParity, Rho, TargetParity
from forecast.analysis.parity.token_diff import Place, TokenParity
from forecast.proxies.token_proxies import METRICS, PLAIN_CROSS_ENTROPY

_MOVES_SHOWN = 20


def parity_tables(parity: Parity) -> RenderableType:
    """Statistics, candidates, proxies, order, rho: each says whether the difference before it mattered."""
    parts: list[RenderableType] = [_statistics(parity), *_ranks(parity.pooled)]
    if len(parity.candidates) > 1:
        parts.append(_candidates(parity))
    if parity.effects is not None:
        parts.append(_proxies(parity.effects))
        parts += [_order(order) for order in parity.effects.orders if len(order.standings) > 1]
        if parity.effects.targets:
            parts.append(_targets(parity.effects))
    parts += [Text("note: " + note, style="yellow") for note in parity.notes]
    if parity.tolerance is not None:
        parts.append(_verdict(parity, parity.tolerance))
    return Group(*parts)


def _statistics(parity: Parity) -> Table:
    pooled = parity.pooled
    table = Table(
        title=_title(
            f"Parity of {parity.name}: base {_side(parity.base)}; against {_side(parity.against)}\n"
            f"{pooled.tokens:,} tokens of {_many(pooled.instances, 'reading')} by "
            f"{_many(len(parity.candidates), 'candidate')}; sizes are of |against - base|"
        )
    )
    table.add_column("statistic", no_wrap=True)
    table.add_column("unit")
    for column in ("largest", "99% within", "mean", "median", "mean shift", "differing"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("largest at: base → against")
    for d in pooled.differences:
        table.add_row(
            d.statistic,
            d.unit,
            *(_short(value) for value in (d.largest, d.p99, d.mean, d.median)),
            f"{d.signed_mean:+.2g}" if d.signed_mean else "0",
            _share(d.differing, pooled.tokens),
            Text(_where(d.place)) if d.place else "-",
        )
    return table


def _ranks(pooled: TokenParity) -> list[Text]:
    r = pooled.ranks
    return [
        Text(
            f"ranks differ at {r.differing:,} tokens ({_share(r.differing, pooled.tokens)}): {r.by_ties:,} "
            f"explained by ties, {r.real:,} real; first choice in one setup only: {r.first_choice:,} "
            f"({_share(r.first_choice, pooled.tokens)})"
        ),
        Text(
            f"tokens with ties: {_share(pooled.tied_base, pooled.tokens)} → "
            f"{_share(pooled.tied_against, pooled.tokens)}"
        ),
    ]


def _candidates(parity: Parity) -> Table:
    table = Table(title=_title("Per candidate"))
    table.add_column("candidate")
    for column in (
        "tokens",
        "logprob: largest",
        "99% within",
        "median",
        "mean shift",
        "entropy: largest",
        "ranks differ",
        "by ties",
        "real",
        "first choice differs",
    ):
        table.add_column(column, justify="right")
    for c in parity.candidates:
        logprob = c.of("logprob")
        table.add_row(
            Text(c.candidate or "-"),
            f"{c.tokens:,}",
            *(_short(value) for value in (logprob.largest, logprob.p99, logprob.median)),
            f"{logprob.signed_mean:+.2g}" if logprob.signed_mean else "0",
            _short(c.of("entropy").largest),
            *(
                _share(n, c.tokens)
                for n in (c.ranks.differing, c.ranks.by_ties, c.ranks.real, c.ranks.first_choice)
            ),
        )
    return table


def _proxies(effects: Effects) -> Table:
    read = ", ".join(f"{task} ({n})" for task, n in effects.instances.items())
    table = Table(
        title=_title(
            f"The 80 proxies, over candidates and tasks; instances read: {read}\n"
            "differences are relative to the base"
            + ("; tau-b and swapped pairs compare the candidates' two orders" if effects.pairs else "")
        )
    )
    table.add_column("proxy family", no_wrap=True)
    for column in ("uniform: median", "uniform: largest", "any weighting: largest"):
        table.add_column(column, justify="right")
    table.add_column("weighting", no_wrap=True)
    table.add_column("at: base → against")
    if effects.pairs:
        table.add_column("lowest tau-b", justify="right")
        table.add_column(f"most swapped of {_many(effects.pairs, 'pair')}", justify="right")
    for metric in METRICS:
        own = [p for p in effects.proxies if p.metric == metric.name]
        uniform = next(p for p in own if p.weighting == "uniform")
        widest = max(own, key=lambda p: -1.0 if p.largest_relative is None else p.largest_relative)
        taus = [p.kendall for p in own if p.kendall is not None]
        order = [f"{min(taus):+.3f}" if taus else "-", str(max(p.swapped for p in own))]
        table.add_row(
            metric.name,
            _percent(uniform.median_relative),
            _percent(uniform.largest_relative),
            _percent(widest.largest_relative),
            widest.weighting if widest.largest_relative else "-",
            _cell(widest),
            *(order if effects.pairs else []),
        )
    return table


def _order(order: Order) -> Text:
    named, moved = _named(order.proxy), order.moved
    if not moved:
        return Text(f"order by {named}: no candidate changes its place")
    told = ", ".join(f"{s.candidate} ({s.base:g} → {s.against:g})" for s in moved[:_MOVES_SHOWN])
    more = f" and {len(moved) - _MOVES_SHOWN} more" if len(moved) > _MOVES_SHOWN else ""
    return Text(f"order by {named}: {len(moved)} of {len(order.standings)} change place: {told}{more}")


def _targets(effects: Effects) -> Table:
    table = Table(title=_title("Spearman rho with what is measured: base → against"))
    table.add_column("measured task")
    table.add_column("proxies of")
    table.add_column("n", justify="right")
    for column in (
        "plain cross-entropy",
        "best of 80 in the base",
        "best of 80 in the other",
        "changes most",
    ):
        table.add_column(column)
    for target in effects.targets:
        widest = target.widest()
        table.add_row(
            Text(target.target),
            Text(", ".join(target.proxies_of)),
            str(target.n_candidates),
            _rho(target.of(PLAIN_CROSS_ENTROPY)),
            _named_rho(target, target.best_base),
            _named_rho(target, target.best_against),
            _named_rho(target, widest.proxy if widest and widest.base != widest.against else None),
        )
    return table


def _side(side: dict[str, object]) -> str:
    devices = side["devices"]
    on = f" on {', '.join(devices)}" if isinstance(devices, list) and devices != ["none"] else ""
    return f"{side['label']}{on}"


def _verdict(parity: Parity, tolerance: float) -> Text:
    worst = parity.pooled.of("logprob")
    if not parity.exceeded:
        return Text(
            f"within the tolerance: no logprob differs by more than {tolerance:g} nats", style="green"
        )
    where = f" ({_where(worst.place)})" if worst.place else ""
    return Text(
        f"beyond the tolerance of {tolerance:g} nats: a logprob differs by {worst.largest:.3g}{where}",
        style="bold red",
    )


def _where(place: Place) -> str:
    """A token and its two values in one line."""
    token = repr(place.token)[1:-1] or "…"
    return (
        f"{place.candidate}, {place.task}/{place.instance_id} #{place.position} '{token}': "
        f"{place.base:.6g} → {place.against:.6g}"
    )


def _cell(proxy: ProxyParity) -> Text:
    cell: Cell | None = proxy.largest_relative_at
    if cell is None or not proxy.largest_relative:
        return Text("-")
    return Text(f"{cell.candidate}, {cell.task}: {cell.base:.5g} → {cell.against:.5g}")


def _named_rho(target: TargetParity, proxy: str | None) -> str:
    return "-" if proxy is None else f"{_named(proxy)}\n{_rho(target.of(proxy))}"


def _named(proxy: str) -> str:
    return proxy.replace("__", " × ")


def _rho(rho: Rho) -> str:
    return " → ".join("-" if value is None else f"{value:+.3f}" for value in (rho.base, rho.against))


def _title(text: str) -> Text:
    return Text(text, style="table.title", justify="center")


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.3g}"


def _share(part: int, whole: int) -> str:
    """As a percentage that is 0 or 100 only where that is exact."""
    if part in (0, whole):
        return "0%" if part == 0 else "100%"
    return f"{min(max(100 * part / whole, 0.01), 99.99):.2f}%"


def _percent(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{100 * value:.2g}%"
