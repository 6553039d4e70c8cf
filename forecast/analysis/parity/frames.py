"""A comparison as frames: what its document, CSV and the Python interface share; what is missing is null."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from forecast.analysis.parity.ranking_effects import Effects, ProxyParity
from forecast.analysis.parity.token_diff import TokenParity
from forecast.proxies.token_proxies import METRICS, PLAIN_CROSS_ENTROPY
from forecast.report.records import frame_with

if TYPE_CHECKING:
    from forecast.analysis.parity.compare import ParityResult

_CELL = "at_candidate:s at_task:s at_base:f at_against:f"


def frames_of(result: "ParityResult") -> dict[str, pl.DataFrame]:
    """A frame for each table, by name; `candidate` is null for all candidates together."""
    parts = (result.pooled, *result.candidates)
    effects = result.effects or Effects({}, 0, (), (), ())
    return {
        "statistics": _statistics(parts),
        "candidates": _candidates(parts),
        "families": _families(effects),
        "proxies": _proxies(effects),
        "orders": frame_with(
            ([o.proxy, s.candidate, s.base, s.against] for o in effects.orders for s in o.standings),
            "proxy:s candidate:s base:f against:f",
        ),
        "targets": _targets(effects),
        "rhos": frame_with(
            ([t.target, t.n_candidates, r.proxy, r.base, r.against] for t in effects.targets for r in t.rhos),
            "target:s n:i proxy:s base:f against:f",
        ),
    }


def _statistics(parts: Sequence[TokenParity]) -> pl.DataFrame:
    rows = []
    for part in parts:
        for d in part.differences:
            sizes = (d.largest, d.p99, d.mean, d.median, d.signed_mean, d.differing, part.tokens)
            p = d.place
            at = [p.candidate, p.task, p.expert, p.instance_id, p.position, p.token] if p else [None] * 6
            values = [p.base, p.against] if p else [None] * 2
            rows.append([part.candidate, d.statistic, d.unit, *sizes, *at, *values])
    return frame_with(
        rows,
        "candidate:s statistic:s unit:s largest:f p99:f mean:f median:f signed_mean:f differing:i tokens:i "
        "at_candidate:s at_task:s at_expert:s at_instance_id:s at_position:i at_token:s at_base:f "
        "at_against:f",
    )


def _candidates(parts: Sequence[TokenParity]) -> pl.DataFrame:
    rows = []
    for c in parts:
        d, r = c.of("logprob"), c.ranks
        sizes = [d.largest, d.p99, d.median, d.signed_mean, c.of("entropy").largest]
        ranks = [r.differing, r.by_ties, r.real, r.first_choice, c.tied_base, c.tied_against]
        rows.append([c.candidate, c.tokens, c.instances, *sizes, *ranks])
    return frame_with(
        rows,
        "candidate:s tokens:i instances:i logprob_largest:f logprob_p99:f logprob_median:f "
        "logprob_signed_mean:f entropy_largest:f ranks_differing:i by_ties:i real:i first_choice:i "
        "tied_base:i tied_against:i",
    )


def _families(effects: Effects) -> pl.DataFrame:
    """A row for each metric: the uniform weighting, and the weighting that differs most."""
    rows = []
    for metric in METRICS:
        own = [p for p in effects.proxies if p.metric == metric.name]
        if not own:
            continue
        uniform = next(p for p in own if p.weighting == "uniform")
        widest = max(own, key=lambda p: -1.0 if p.largest_relative is None else p.largest_relative)
        differs = bool(widest.largest_relative)
        taus = [p.kendall for p in own if p.kendall is not None]
        rows.append(
            [
                *(metric.name, uniform.median_relative, uniform.largest_relative, widest.largest_relative),
                *(widest.weighting if differs else None, *(_cell(widest) if differs else [None] * 4)),
                *(min(taus, default=None), max(p.swapped for p in own)),
            ]
        )
    return frame_with(
        rows,
        "metric:s uniform_median:f uniform_largest:f largest:f weighting:s "
        f"{_CELL} lowest_tau_b:f most_swapped:i",
    )


def _proxies(effects: Effects) -> pl.DataFrame:
    return frame_with(
        (
            [
                *(p.proxy, p.metric, p.weighting, p.largest, p.median, p.largest_relative),
                *(p.median_relative, *_cell(p), p.spearman, p.kendall, p.swapped, p.tied_in_one),
            ]
            for p in effects.proxies
        ),
        "proxy:s metric:s weighting:s largest:f median:f largest_relative:f median_relative:f "
        f"{_CELL} spearman:f tau_b:f swapped:i tied_in_one:i",
    )


def _targets(effects: Effects) -> pl.DataFrame:
    """A row for each target: plain cross-entropy, the best proxy of each setup, the one that changes most."""
    rows = []
    for t in effects.targets:
        most = t.widest()
        changed = most.proxy if most and most.base != most.against else None
        row: list[Any] = [t.target, ", ".join(t.proxies_of), t.n_candidates]
        for proxy in (PLAIN_CROSS_ENTROPY, t.best_base, t.best_against, changed):
            rho = t.of(proxy) if proxy else None
            row += [proxy, rho.base if rho else None, rho.against if rho else None]
        rows.append(row)
    kinds = ("plain", "best_base", "best_against", "changed")
    return frame_with(
        rows,
        "target:s proxies_of:s n:i " + " ".join(f"{k}:s {k}_rho_base:f {k}_rho_against:f" for k in kinds),
    )


def _cell(proxy: ProxyParity) -> list[Any]:
    """Where the relative difference is largest."""
    at = proxy.largest_relative_at
    return [at.candidate, at.task, at.base, at.against] if at else [None] * 4
