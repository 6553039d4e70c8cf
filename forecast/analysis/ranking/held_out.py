"""All that is said about a table: rows of scorers under protocols, comparisons, the order."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator

from forecast.analysis.ranking.cross_validation import (
    FoldPredictions,
    Job,
    run_protocols,
    with_redrawn_instances,
)
from forecast.analysis.ranking.feature_table import CellTable, Design, design_of, shortened, standardised
from forecast.analysis.ranking.feature_table_from_file import Imported
from forecast.analysis.ranking.held_out_metrics import Comparison, Counts, Judge, ScorerRow
from forecast.analysis.ranking.leader import DEFAULT_BASELINE, Leader, held_out_leader
from forecast.analysis.ranking.permutation_null import (
    BestOfMany,
    Null,
    best_of_many,
    null_of,
    permuted_scores,
)
from forecast.analysis.ranking.rank_uncertainty import Order, Place, mean_of_tasks, order_of
from forecast.analysis.ranking.scorers.base import Fitted, Scorer
from forecast.analysis.ranking.scorers.mean_score import OWN_MEAN
from forecast.analysis.ranking.scorers.registry import SCORERS, fitted_of, make_scorer, record_of, versions
from forecast.analysis.ranking.scorers.score_baselines import FROM_SCORES
from forecast.analysis.ranking.scorers.univariate import Univariate
from forecast.analysis.ranking.splits import (
    FOLD_REPEATS,
    KNOWN_TASKS,
    PROTOCOLS,
    UNSEEN,
    Protocol,
    make_protocol,
)
from forecast.analysis.ranking.warnings import table_cautions
from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES
from forecast.errors import ConfigError, FitError, did_you_mean
from forecast.report.records import frame_of

if TYPE_CHECKING:
    from forecast.report.document import Document

Array = NDArray[np.float64]
KeptFitted = Annotated[Fitted, PlainValidator(fitted_of), PlainSerializer(record_of)]
_DRAWINGS = 100  # of instances; drawings of families take them in turn


@dataclass(frozen=True)
class RankOptions:
    """What is to be done; every figure follows from the table and these."""

    scorers: tuple[str, ...] = SCORERS
    protocols: tuple[str, ...] = PROTOCOLS
    permutations: int = 100
    bootstraps: int = 1000
    confidence: float = 0.95
    seed: int = 0
    fold_repeats: int = FOLD_REPEATS  # where chance deals candidates and tasks to folds


@dataclass(frozen=True)
class HeldOutResult:
    """The answer; n of everything is in it."""

    rows: tuple[ScorerRow, ...]
    comparisons: tuple[Comparison, ...]
    leader: Leader | None  # None: nothing could be held out
    order: Order | None  # by the leader, else by the first scorer that can be fitted
    best: BestOfMany | None
    n_candidates: int
    n_families: int
    n_tasks: int
    n_features: int
    options: RankOptions
    fitted: KeptFitted | None  # the scorer with the highest held-out rho, fitted to all cells
    warnings: tuple[str, ...]
    versions: dict[str, str] = field(default_factory=dict)

    def report(self, source: str = "table") -> "Document":
        """`.save("report.html")`, and HTML in a notebook; `source` names the data in the title."""
        from forecast.analysis.ranking.report import document

        return document(source, held_out=self)

    def frames(self) -> dict[str, pl.DataFrame]:
        """Frames of the result.

        Returns:
            `held_out`: a row per scorer and protocol, with a column `given_...` per covariate;
            `comparisons`: a row per pair of scorers and protocol;
            `standings`: a row per candidate, by the leader.
        """
        nulls = frame_of([row.null for row in self.rows], Null)
        names = {"p": "null_p", "mean": "null_mean", "q95": "null_q95", "n": "n_permutations"}
        covariates = dict.fromkeys(name for row in self.rows for name in row.partial)
        given = [
            pl.Series(f"given_{name}", [row.partial.get(name) for row in self.rows], pl.Float64)
            for name in covariates
        ]
        rows = frame_of(self.rows, ScorerRow).drop("null", "partial").rename({"n_panels": "n_rhos"})
        return {
            "held_out": rows.hstack(nulls.rename(names)).with_columns(given),
            "comparisons": frame_of(self.comparisons, Comparison),
            "standings": frame_of(self.order.places if self.order else (), Place),
        }


def evaluate_held_out(
    imported: Imported,
    options: RankOptions,
    *,
    redraw: Callable[[int, int], Iterator[Array]] | None = None,
    workers: int = 1,
    on_cost: Callable[[float, float], None] = lambda done, total: None,
) -> HeldOutResult:
    """Run every scorer and every baseline through every protocol.

    Args:
        redraw: the table's values [T, C, F] under so many drawings of instances, by a seed; None: the table
            has no instances.
        workers: processes beside this one.
        on_cost: told the estimated seconds of work that are done, and of all.

    Raises:
        ConfigError: an unknown scorer or protocol.
    """
    for name in options.protocols:
        if name not in PROTOCOLS:
            raise ConfigError(f"unknown protocol {name!r}; {did_you_mean(name, PROTOCOLS)}")
    scorers = [make_scorer(name) for name in dict.fromkeys((*options.scorers, OWN_MEAN))]
    baselines: list[Scorer] = list(FROM_SCORES)
    _, left_out = design_of(imported.table)
    table = in_content_order(imported.table)
    design, _ = design_of(table)
    available = _counts(table, design)
    table, design, dropped = _evaluable(table, design)
    words = [*imported.warnings, *left_out, *dropped]
    usable_scores = np.where(design.usable, table.scores, np.nan)
    scores = permuted_scores(table.scores, design.usable, table.families, options.permutations, options.seed)
    protocols = [
        make_protocol(name, table.families, np.isfinite(usable_scores), options.seed, options.fold_repeats)
        for name in options.protocols
    ]
    jobs: list[Job] = [
        (scorer, protocol)
        for protocol in protocols
        for scorer in [*scorers, *(baselines if protocol.name == KNOWN_TASKS else [])]
    ]
    outcomes = run_protocols(design, scores, jobs, seed=options.seed, workers=workers, on_cost=on_cost)
    if redraw is not None:
        places = _places(imported.table, design)
        drawings = redraw(min(_DRAWINGS, options.bootstraps), options.seed)
        outcomes = with_redrawn_instances(
            outcomes, [protocol for _, protocol in jobs], design, (values[places] for values in drawings)
        )
    for name in table.covariates:
        own = _covariate_design(table, name)
        again = permuted_scores(table.scores, own.usable, table.families, options.permutations, options.seed)
        baseline = Univariate(f"baseline: {name}", only=name)
        outcomes += run_protocols(
            own, again, [(baseline, protocol) for protocol in protocols], seed=options.seed
        )
    judge = Judge(table, available, options.confidence, options.bootstraps, options.seed)
    rows = tuple(judge.row(outcome, _folds(protocols, outcome)) for outcome in outcomes)
    comparisons = judge.comparisons(outcomes)
    leader = held_out_leader(rows, comparisons, options.scorers, _best_p(outcomes, options))
    order, fitted = _order(table, design, usable_scores, outcomes, rows, options, leader)
    best = best_of_many(design, scores)
    report = HeldOutResult(
        rows,
        comparisons,
        leader,
        order,
        best,
        available.candidates,
        available.families,
        available.tasks,
        len(design.features),
        options,
        fitted,
        (),
        versions(),
    )
    return replace(report, warnings=(*words, *table_cautions(report, protocols)))


def _places(table: CellTable, design: Design) -> tuple[NDArray[np.int64], ...]:
    """Where the design's tasks, candidates and features are in the table's values."""
    tasks = [table.tasks.index(task) for task in design.tasks]
    candidates = [table.candidates.index(name) for name in design.candidates]
    features = [table.features.index(name) for name in design.features]
    return np.ix_(tasks, candidates, features)


def in_content_order(table: CellTable) -> CellTable:
    """The table with its candidates sorted by their features, then scores: names decide nothing.

    Folds, permutations and resamples go by places, so that renamed candidates give the same figures.
    """
    by_candidate = np.concatenate([table.values, table.scores[:, :, None]], axis=2).transpose(1, 0, 2)
    keys = by_candidate.reshape(len(table.candidates), -1)
    order = np.lexsort(keys.T[::-1]) if keys.size else np.arange(len(keys))
    covariates = table.covariate_values
    return replace(
        table,
        candidates=tuple(table.candidates[c] for c in order),
        families=tuple(table.families[c] for c in order),
        values=table.values[:, order],
        scores=table.scores[:, order],
        covariate_values=None if covariates is None else covariates[:, order],
    )


def _counts(table: CellTable, design: Design) -> Counts:
    scored = design.usable & np.isfinite(table.scores)
    there = np.flatnonzero(scored.any(axis=0))
    return Counts(len(there), len({table.families[c] for c in there}), int(scored.any(axis=1).sum()))


def _evaluable(table: CellTable, design: Design) -> tuple[CellTable, Design, list[str]]:
    """Table and design of the tasks that a rank correlation can be had of, and why the others cannot."""
    keep, why = [], []
    for t, task in enumerate(table.tasks):
        own = table.scores[t, design.usable[t]]
        own = own[np.isfinite(own)]
        if len(own) < MIN_CANDIDATES:
            why.append(f"{task} ({len(own)} candidates with a score and features; it takes {MIN_CANDIDATES})")
        elif (own == own[0]).all():
            why.append(f"{task} (all {len(own)} scores are equal)")
        else:
            keep.append(t)
    words = [f"tasks left out, they have no rank correlation: {shortened(why)}"] if why else []
    tasks = tuple(table.tasks[t] for t in keep)
    covariates = None if table.covariate_values is None else table.covariate_values[keep]
    return (
        replace(
            table,
            tasks=tasks,
            values=table.values[keep],
            scores=table.scores[keep],
            covariate_values=covariates,
        ),
        replace(design, tasks=tasks, z=design.z[keep], usable=design.usable[keep]),
        words,
    )


def _covariate_design(table: CellTable, name: str) -> Design:
    """The covariate as the only feature; a cell without it is out of this baseline's reach."""
    assert table.covariate_values is not None
    place = table.covariates.index(name)
    z, _ = standardised(table.covariate_values[:, :, [place]])
    there = np.isfinite(z[:, :, 0])
    return Design(
        table.candidates, table.families, table.tasks, (name,), np.where(there[:, :, None], z, 0), there
    )


def _best_p(outcomes: Sequence[FoldPredictions], options: RankOptions) -> dict[str, float | None]:
    """By protocol, p of the best scorer's rho against the best rho of them all under each permutation."""
    found = {}
    for protocol in UNSEEN:
        figures = [
            np.where(np.isfinite(outcome.figures), outcome.figures, -2.0)
            for outcome in outcomes
            if outcome.protocol == protocol
            and outcome.scorer in options.scorers
            and np.isfinite(outcome.figures[0])
        ]
        found[protocol] = null_of(np.max(figures, axis=0)).p if figures else None
    return found


def _folds(protocols: Sequence[Protocol], outcome: FoldPredictions) -> int:
    return next(len(p.folds) for p in protocols if p.name == outcome.protocol)


def _order(
    table: CellTable,
    design: Design,
    scores: Array,
    outcomes: Sequence[FoldPredictions],
    rows: Sequence[ScorerRow],
    options: RankOptions,
    leader: Leader | None,
) -> tuple[Order | None, Fitted | None]:
    """By the leader's held-out forecasts, else by the first scorer that can be fitted."""
    held_out = {
        (outcome.protocol, outcome.scorer): (row.spearman, outcome)
        for outcome, row in zip(outcomes, rows, strict=True)
        if outcome.protocol in UNSEEN and row.spearman is not None
    }
    found = {
        name: held_out[protocol, name]
        for protocol in reversed(UNSEEN)
        for name in (*options.scorers, DEFAULT_BASELINE)
        if (protocol, name) in held_out
    }
    own = {name: rho for name, (rho, _) in found.items() if name in options.scorers}
    wanted = [max(own, key=lambda name: own[name] or 0.0)] if own else list(options.scorers)
    for name in wanted:
        try:
            fitted = make_scorer(name).fit(design, scores, seed=options.seed)
        except FitError:
            continue
        redrawn = None
        if leader is not None:
            name = leader.scorer or DEFAULT_BASELINE
            outcome = found[name][1]
            predicted = outcome.predicted
            if outcome.redrawn is not None:
                redrawn = np.stack([mean_of_tasks(panel) for panel in outcome.redrawn])
        else:
            predicted = standardised(fitted.score(design)[:, :, None])[0][:, :, 0]
        order = order_of(
            name,
            table.candidates,
            table.families,
            predicted,
            scores,
            confidence=options.confidence,
            draws=options.bootstraps,
            seed=options.seed,
            unseen=leader is not None,
            redrawn=redrawn,
        )
        return order, fitted
    return None, None


def chosen_counts(chosen: Sequence[str]) -> dict[str, int]:
    """How many folds chose what, the most frequent first."""
    return dict(Counter(words for words in chosen if words).most_common())
