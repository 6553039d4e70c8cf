"""The diagnostics of one run as frames: what its document, CSV and the Python interface share.

A rank correlation fills `rho`, `low`, `high` (its interval over candidates), `tau_b`, `n` and `reason` (why
there is none). What is missing is null.
"""

from typing import TYPE_CHECKING, Any

import polars as pl

from forecast.analysis.diagnostics.contamination import TaskOverlap, TextOverlap
from forecast.analysis.diagnostics.min_k_prob import MinK
from forecast.analysis.diagnostics.prompt_format import FormDifference
from forecast.analysis.diagnostics.ties import KS
from forecast.analysis.diagnostics.tokenizer_effect import Tokenization
from forecast.analysis.stats.figures import Compared, Rho
from forecast.report.records import frame_of, frame_with

if TYPE_CHECKING:
    from forecast.analysis.diagnostics.diagnose import DiagnoseResult

_RHO = "rho:f low:f high:f tau_b:f n:i reason:s"


def frames_of(result: "DiagnoseResult") -> dict[str, pl.DataFrame]:
    """A frame for each table, by name."""
    return {
        **_expert_frames(result),
        "ties": _ties(result),
        "windows": _windows(result),
        "prompt_forms": frame_of(result.prompt_forms.differences, FormDifference),
        "prompt_form_orders": frame_with(
            ([o.proxy, *_rho(o.rho)] for o in result.prompt_forms.order_rho), f"proxy:s {_RHO}"
        ),
        "tokenizers": frame_of(result.tokenizers.cuttings, Tokenization),
        "byte_orders": _byte_orders(result),
        **_instance_frames(result),
        "min_k": frame_of(result.min_k.values, MinK),
        "contamination": frame_of(result.contamination.tasks, TaskOverlap),
        "matches": frame_of(result.contamination.matches, TextOverlap),
        "without_matches": frame_with(
            (
                [w.proxy, *_rho(w.order_rho), *_compared(c)]
                for w in result.contamination.without
                for c in w.targets or (None,)
            ),
            f"proxy:s {_RHO} target:s rho_all:f rho_without:f n_without:i target_reason:s",
        ),
    }


def _expert_frames(result: "DiagnoseResult") -> dict[str, pl.DataFrame]:
    experts, shifts = [], []
    for e in result.expert_overlap:
        head = [e.expert, e.family, e.known_by, len(e.same_family), ", ".join(e.tasks_lost) or None]
        if e.reason:
            experts.append([*head, *[None] * 6, *_compared(None), *[None] * 5, e.reason])
        for own in e.left_out:
            for c in own.targets or (None,):
                intervals = [c.whole.low, c.whole.high, c.part.low, c.part.high] if c else [None] * 4
                order = [own.proxy, *_rho(own.order_rho)[:5]]
                experts.append([*head, *order, *_compared(c), *intervals, own.favour, own.reason])
            for s in own.shifts:
                lost = s.place_without - s.place_with
                places = [s.same_family, s.place_with, s.place_without, lost]
                shifts.append([e.expert, own.proxy, s.candidate, s.family, *places])
    pairs = (
        [p.task, p.first, p.second, *p.n_instances, p.same_instances, o.proxy, *_rho(o.rho), p.median_rho]
        for p in result.expert_agreement.pairs
        for o in p.rhos
    )
    return {
        "experts": frame_with(
            experts,
            "expert:s family:s known_by:s own_family:i tasks_lost:s proxy:s rho:f low:f high:f tau_b:f n:i "
            "target:s rho_with:f rho_without:f n_without:i target_reason:s low_with:f high_with:f "
            "low_without:f high_without:f favour:f reason:s",
        ),
        "shifts": frame_with(
            shifts,
            "expert:s proxy:s candidate:s family:s own_family:b place_with:f place_without:f lost:f",
        ),
        "agreement": frame_with(
            pairs,
            "task:s first:s second:s instances_first:i instances_second:i same_instances:b proxy:s "
            f"{_RHO} median_rho:f",
        ),
    }


def _ties(result: "DiagnoseResult") -> pl.DataFrame:
    shares = (f"top{k}_{what}:f" for what in ("uncertain", "best", "worst") for k in KS)
    return frame_with(
        (
            [
                *(t.candidate, t.dtype, t.task, t.tokens, t.tied_share, t.mean_rank_best, t.mean_rank_worst),
                *(by[k] for by in (t.topk_uncertain, t.topk_best, t.topk_worst) for k in KS),
            ]
            for t in result.ties
        ),
        "candidate:s dtype:s task:s tokens:i tied_share:f mean_rank_best:f mean_rank_worst:f "
        + " ".join(shares),
    )


def _windows(result: "DiagnoseResult") -> pl.DataFrame:
    rows: list[list[Any]] = []
    for w in result.windows:
        head = [w.last_tokens, w.shortened, w.readings, w.median_rho]
        if w.reason:
            rows.append([*head, *[None] * 6, w.reason, *_compared(None)])
        for o in w.order_rho:
            own = [c for c in w.targets if c.proxy == o.proxy]
            rows += [[*head, o.proxy, *_rho(o.rho), *_compared(c)] for c in own or (None,)]
    return frame_with(
        rows,
        f"last_tokens:i shortened:i readings:i median_rho:f proxy:s {_RHO} "
        "target:s rho_all:f rho_window:f n_window:i target_reason:s",
    )


def _byte_orders(result: "DiagnoseResult") -> pl.DataFrame:
    effect = result.tokenizers
    rows = [[o.proxy, f"over tokens ({o.task})", o.task, None, *_rho(o.rho)] for o in effect.orders]
    rows += [[t.proxy, f"scores of {t.target}", None, t.target, *_rho(t.rho)] for t in effect.targets]
    return frame_with(rows, f"proxy:s against:s task:s target:s {_RHO}")


def _instance_frames(result: "DiagnoseResult") -> dict[str, pl.DataFrame]:
    rows, points = [], []
    for i in result.instances_needed:
        repeat = next(([p.repeat, p.n] for p in reversed(i.points) if p.repeat is not None), [None, None])
        wanted = [needed.instances for needed in i.needed]
        unknown = "; ".join(f"±{w.half_width}: {w.reason}" for w in i.needed if w.reason is not None)
        reason = i.reason or unknown or None
        rows.append([i.target, i.proxy, i.n, i.n_candidates, i.rho, i.half_width, *wanted, *repeat, reason])
        points += [[i.target, i.proxy, p.n, p.rho, p.low, p.high, p.sd, p.repeat] for p in i.points]
    needed = " ".join(f"needed_{needed.half_width}:i" for needed in result.instances_needed[0].needed)
    return {
        "instances": frame_with(
            rows,
            f"target:s proxy:s n:i n_candidates:i rho:f half_width:f {needed} repeat:f repeat_n:i reason:s",
        ),
        "instance_curve": frame_with(points, "target:s proxy:s n:i rho:f low:f high:f sd:f repeat:f"),
    }


def _rho(rho: Rho) -> list[Any]:
    return [rho.spearman, rho.low, rho.high, rho.kendall, rho.n, rho.reason]


def _compared(c: Compared | None) -> list[Any]:
    """Target, rho by all there is, rho by a part of it, its n, why one of them is missing."""
    if c is None:
        return [None] * 5
    return [c.target, c.whole.spearman, c.part.spearman, c.part.n, c.part.reason or c.whole.reason]
