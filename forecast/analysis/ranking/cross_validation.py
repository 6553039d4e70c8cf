"""Running scorers through protocols: every fit nested, for the scores and all their permutations.

Under leave-models-out and leave-families-out one fold predicts a few candidates only, and a rho of three
means nothing. So the predictions of all folds are put together for each task, every candidate's by a fit that
saw neither it nor the task. Folds choose different features and scales, so each fold's predictions are first
centred and scaled by those that the same fit makes for all candidates of the task (features alone, no score
of the task). What this leaves of differences between folds pulls the rho down a little, in the permutations
as in the figure itself. Where candidates are dealt to folds several times, every deal has its own panels, and
the figure is the mean over all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.feature_table import Design, standardised
from forecast.analysis.ranking.scorers.base import Fitted, Predicted, Scorer, predict_many
from forecast.analysis.ranking.splits import Fold, Protocol
from forecast.analysis.stats.family_bootstrap import mean_rho

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_BATCH = 64  # score arrays that one unit of work fits together
_EQUAL = 10  # decimals: predictions that are equal on paper must tie
_SMALL = 3.0  # seconds of work: starting processes takes as long
Job = tuple[Scorer, Protocol]


@dataclass(frozen=True)
class FoldPredictions:
    """What a scorer predicted under a protocol; a panel is one task with predictions of its candidates."""

    scorer: str
    protocol: str
    predicted: Array  # [K, C], NaN where there is none
    tasks: Ints  # [K]
    figures: Array  # [1 + permutations], mean rho of the real scores first
    fits: tuple[Fitted | None, ...]  # by fold, to the real scores
    reason: str | None  # why there is no figure, or none of some fold
    redrawn: Array | None = None  # [D, K, C], predictions under D drawings of the tasks' instances
    takes_features: bool = True  # else permuting the candidates changes nothing, and there is no null
    n_repeats: int = 1  # times that the candidates were dealt to folds; panels come repeat by repeat

    @property
    def chosen(self) -> tuple[str, ...]:
        """What each fold's fit chose, in words."""
        return tuple("" if fit is None else fit.chosen() for fit in self.fits)

    def truth(self, scores: Array) -> Array:
        """Scores [K, C] that the panels are compared with, from [T, C]."""
        return np.asarray(scores[self.tasks])


@dataclass(frozen=True)
class _Unit:
    """One call of a worker: folds of one `train`, some of the score arrays."""

    job: int
    folds: tuple[int, ...]
    part: slice
    cost: float  # seconds, roughly


def run_protocols(
    design: Design,
    scores: Array,
    jobs: Sequence[Job],
    *,
    seed: int,
    workers: int = 1,
    on_cost: Callable[[float, float], None] = lambda done, total: None,
) -> list[FoldPredictions]:
    """Predictions and figures of each scorer under each protocol; no figures where it has no folds.

    Args:
        scores: [1 + permutations, T, C]; the same cells are NaN in all.
        workers: processes; 1: none beside this one.
        on_cost: told the estimated seconds of work that are done, and of all, after every unit.
    """
    n_scores = [len(scores) if takes_features(scorer) else 1 for scorer, _ in jobs]
    units = [
        unit
        for place, job in enumerate(jobs)
        for unit in _units(place, job, design, scores[: n_scores[place]])
    ]
    units.sort(key=lambda unit: -unit.cost)  # the longest first, so that no core waits long at the end
    tasks = [_panel_tasks(protocol, len(design.tasks)) for _, protocol in jobs]
    panels = [
        np.full((n, len(own), len(design.candidates)), np.nan) for n, own in zip(n_scores, tasks, strict=True)
    ]
    fits: list[list[Fitted | None]] = [[None] * len(protocol.folds) for _, protocol in jobs]
    reasons = [protocol.reason for _, protocol in jobs]
    total = sum(unit.cost for unit in units)
    done = 0.0
    calls = ((place, design, scores[unit.part], *_what(jobs, unit), seed) for place, unit in enumerate(units))
    for place, predicted in _each(calls, workers if total > _SMALL else 1):
        unit = units[place]
        protocol = jobs[unit.job][1]
        for f, values in zip(unit.folds, predicted.values.swapaxes(0, 1), strict=True):
            _enter(panels[unit.job][unit.part], values, protocol, f)
        if unit.part.start == 0:
            for f, fit in zip(unit.folds, predicted.fits, strict=True):
                fits[unit.job][f] = fit
            reasons[unit.job] = reasons[unit.job] or predicted.reason
        done += unit.cost
        on_cost(done, total)
    outcomes = []
    for (scorer, protocol), own, held, kept, reason in zip(jobs, tasks, panels, fits, reasons, strict=True):
        rounded = np.round(held, _EQUAL)
        figures = mean_rho(rounded, scores[: len(rounded), own])
        outcomes.append(
            FoldPredictions(
                scorer.name,
                protocol.name,
                rounded[0],
                own,
                figures,
                tuple(kept),
                reason,
                takes_features=takes_features(scorer),
                n_repeats=max(1, protocol.n_repeats),
            )
        )
    return outcomes


def takes_features(scorer: Scorer) -> bool:
    """Whether the scorer looks at features; a baseline that looks at scores alone says that it does not."""
    return bool(getattr(scorer, "takes_features", True))


def _units(job: int, what: Job, design: Design, scores: Array) -> list[_Unit]:
    scorer, protocol = what
    together: dict[object, list[int]] = {}
    for f, fold in enumerate(protocol.folds):
        key = f if getattr(scorer, "by_fold", False) else fold.train.tobytes()
        together.setdefault(key, []).append(f)
    size = getattr(scorer, "batch", _BATCH)
    cost = getattr(scorer, "cost", lambda design, n_scores, n_folds: 1e-3 * n_scores * n_folds)
    units = []
    for folds in together.values():
        for start in range(0, len(scores), size):
            part = slice(start, min(start + size, len(scores)))
            units.append(_Unit(job, tuple(folds), part, cost(design, part.stop - start, len(folds))))
    return units


def _what(jobs: Sequence[Job], unit: _Unit) -> tuple[Scorer, tuple[Fold, ...], Ints | None]:
    scorer, protocol = jobs[unit.job]
    return scorer, tuple(protocol.folds[f] for f in unit.folds), protocol.groups


def _each(calls: Iterator[tuple[Any, ...]], workers: int) -> Iterator[tuple[int, Predicted]]:
    """Results in the order in which they come."""
    if workers <= 1:
        for call in calls:
            yield _work(*call)
        return
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=1):  # else each worker takes all cores
        yield from Parallel(n_jobs=workers, return_as="generator_unordered")(
            delayed(_work)(*call) for call in calls
        )


def _work(
    place: int,
    design: Design,
    scores: Array,
    scorer: Scorer,
    folds: tuple[Fold, ...],
    groups: Ints | None,
    seed: int,
) -> tuple[int, Predicted]:
    return place, predict_many(scorer, design, scores, folds, groups, seed)


def with_redrawn_instances(
    outcomes: Sequence[FoldPredictions],
    protocols: Sequence[Protocol],
    design: Design,
    drawings: Iterator[Array],
) -> list[FoldPredictions]:
    """The outcomes with `redrawn` panels [D, K, C]: how much of a rho is luck of the texts.

    Fits stay as they are; features are computed from the drawn instances and z-scored anew over the
    candidates. An outcome without fits stays as it is.

    Args:
        protocols: of each outcome.
        drawings: values [T, C, F] of the design's tasks and features, one array for each of D drawings.
    """
    panels: list[list[Array]] = [[] for _ in outcomes]
    for values in drawings:
        z, _ = standardised(np.where(design.usable[:, :, None], values, np.nan))
        again = replace(design, z=np.where(design.usable[:, :, None], z, 0.0))
        for own, outcome, protocol in zip(panels, outcomes, protocols, strict=True):
            if any(fit is not None for fit in outcome.fits):
                own.append(_predicted_again(outcome, protocol, again))
    return [
        replace(outcome, redrawn=np.stack(own)) if own else outcome
        for own, outcome in zip(panels, outcomes, strict=True)
    ]


def _predicted_again(outcome: FoldPredictions, protocol: Protocol, design: Design) -> Array:
    """What the outcome's fits predict from other features of the same cells: panels [K, C]."""
    panels = np.full((1, *outcome.predicted.shape), np.nan)
    for f, fit in enumerate(outcome.fits):
        if fit is not None:
            _enter(panels, fit.score(design)[None], protocol, f)
    return np.asarray(np.round(panels[0], _EQUAL))


def _panel_tasks(protocol: Protocol, n_tasks: int) -> Ints:
    """The task of each panel: all tasks of each repeat where folds are pooled, else fold after fold."""
    if protocol.pooled:
        return np.tile(np.arange(n_tasks), max(1, protocol.n_repeats))
    return np.array([t for fold in protocol.folds for t in fold.tasks], int)


def _enter(panels: Array, values: Array, protocol: Protocol, f: int) -> None:
    """Put predictions [P, T, C] of a fold where they belong in the panels [P, K, C]."""
    fold = protocol.folds[f]
    own = values[:, list(fold.tasks)]
    if not protocol.pooled:
        start = sum(len(before.tasks) for before in protocol.folds[:f])
        panels[:, start : start + len(fold.tasks)] = own
        return
    n_tasks = values.shape[1]
    for place, t in enumerate(fold.tasks):
        panels[:, fold.repeat * n_tasks + t, fold.test] = _in_units(own[:, place])[:, fold.test]


def _in_units(values: Array) -> Array:
    """Predictions [P, C] of one fit for one task, centred and scaled; 0 where they are all equal."""
    known = np.isfinite(values)
    n = np.maximum(known.sum(axis=1, keepdims=True), 1)
    filled = np.where(known, values, 0)
    centred = np.where(known, filled - filled.sum(axis=1, keepdims=True) / n, 0)
    spread = np.sqrt((centred**2).sum(axis=1, keepdims=True) / n)
    return np.where(known, centred / np.where(spread > 0, spread, 1), np.nan)
