"""One row for every metric, size, checkpoint, seed and task: its decision accuracy against the target."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from forecast.analysis.corpora.bootstrap import MIN_GROUPS, corpus_intervals, seed_deviation
from forecast.analysis.corpora.compute_cost import Accounting
from forecast.analysis.corpora.decision_accuracy import Array, Decisions, decide, levelled, pair_signs
from forecast.analysis.corpora.observation_arrays import Panel, Step
from forecast.analysis.corpora.observations_from_file import MEAN
from forecast.analysis.corpora.pareto_frontier import Way
from forecast.analysis.corpora.targets import Target
from forecast.analysis.corpora.task_matching import Series
from forecast.analysis.corpora.variants import noise_units
from forecast.analysis.stats.correlations import spearman_where
from forecast.analysis.stats.figures import number
from forecast.proxies.metric_direction import Direction
from forecast.report.records import record_of


@dataclass(frozen=True)
class DecisionRow:
    """Decision accuracy of one run of each corpus, or of their mean over seeds; missing numbers are None."""

    metric: str
    kind: str  # accuracy, cross-entropy, proxy
    direction: str  # high, low, learned
    size: str
    seed: str  # of the runs; `mean`
    variant: str | None  # of the runs; None: there are none, or it is the mean over them
    step: Step
    task: str
    observed_tasks: tuple[str, ...]
    decision_accuracy: float | None
    ci_low: float | None  # for other corpora like these, with runs of their own
    ci_high: float | None
    seed_low: float | None  # for the same corpora with other seeds; of means only
    seed_high: float | None
    spearman: float | None
    n_corpora: int
    n_groups: int  # of these corpora; those without variants are one each
    n_pairs: int
    n_ties: int
    n_predicted_ties: int
    n_seeds: int | None  # runs of each corpus; None: the mean was given
    compute_fraction: float | None  # of one run
    cost_fraction: float | None  # of all of a corpus' runs
    training_flops: float | None  # of one run
    scoring_flops: float | None
    reason: str | None  # why a figure is missing

    def as_record(self) -> dict[str, Any]:
        """As JSON: numbers as numbers where sizes and seeds are some."""
        return {**record_of(self), **{key: as_number(getattr(self, key)) for key in ("size", "seed", "step")}}


def as_number(label: float | str | None) -> float | int | str | None:
    """A label of digits as the number that it is."""
    if isinstance(label, str):
        return int(label) if label.isascii() and label.isdigit() else label
    return int(label) if label is not None and float(label).is_integer() else label


def groups_of(known: NDArray[np.bool_], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many groups the known corpora are of: [..., C] -> [...]."""
    has = np.stack([known[..., groups == group].any(axis=-1) for group in np.unique(groups)])
    return np.asarray(has.sum(axis=0))


@dataclass(frozen=True)
class Resampling:
    """Weights and settings of the intervals."""

    weights: Array  # [B, pairs]
    confidence: float
    seed_draws: int
    seed: int


@dataclass(frozen=True)
class Comparison:
    """One metric against one target; the slots of the seeds are the runs' seeds, then their mean."""

    series: Series
    target: Target
    direction: Direction
    kind: str
    values: Array  # [points, seeds + 1, corpora], higher is better
    goal: Array  # [corpora], higher is better
    signs: Array  # [points, seeds + 1, pairs]
    found: Decisions  # [points, seeds + 1]
    fractions: Array  # [points] compute of one run

    def n_seeds(self, point: int) -> int:
        """Most runs that a corpus with a target has at a point; 0 where only means were given."""
        both = np.isfinite(self.values[point, -1]) & np.isfinite(self.goal)
        return int(self.series.seed_counts[point, both].max(initial=0))


def compare(
    series: Series,
    target: Target,
    direction: Direction,
    target_sign: int,
    kind: str,
    panel: Panel,
    accounting: Accounting,
) -> Comparison:
    """Decide for every point, seed and mean of a metric."""
    goal = levelled(target_sign * target.mean)
    values = levelled(direction.sign * np.concatenate([series.runs, series.means[:, None]], axis=1))
    signs = pair_signs(values)
    fractions = accounting.fractions([panel.place(task) for task in series.tasks])
    return Comparison(
        series, target, direction, kind, values, goal, signs, decide(signs, pair_signs(goal)), fractions
    )


def rows_of(
    c: Comparison, target_sign: int, panel: Panel, accounting: Accounting, resampling: Resampling
) -> list[DecisionRow]:
    """A row for every run or mean of which any corpus was observed."""
    rho = spearman_where(c.values, c.goal)
    n_corpora = (np.isfinite(c.values) & np.isfinite(c.goal)).sum(axis=-1)
    n_groups = groups_of(np.isfinite(c.values) & np.isfinite(c.goal), panel.groups)
    flat = c.signs.reshape(n_corpora.size, c.signs.shape[-1])
    intervals = corpus_intervals(
        flat, pair_signs(c.goal), n_groups.ravel(), resampling.weights, resampling.confidence
    )
    low, high = (ends.reshape(n_corpora.shape) for ends in intervals)
    training = accounting.training()
    scoring = accounting.scoring([panel.place(task) for task in c.series.tasks])
    target_runs = target_sign * np.stack([*c.target.by_seed.values()] or [c.target.mean])
    rows = []
    for p, point in enumerate(panel.points):
        fraction = number(c.fractions[p])
        for s, (seed, variant) in enumerate(zip((*panel.seeds, MEAN), (*panel.variants, ""), strict=True)):
            is_mean = seed == MEAN
            if not (c.series.seen[p].any() if is_mean else c.series.seen[p, s]):
                continue
            k = (c.n_seeds(p) or None) if is_mean else 1
            figure = number(c.found.accuracy[p, s])
            seeds: tuple[float | None, float | None] = (None, None)
            if is_mean and figure is not None:
                units = noise_units(c.values[p, :-1], panel.variants)
                seeds = _seed_interval(units, target_runs, figure, resampling)
            why = _reason(c.found, p, s, int(n_corpora[p, s]), float(rho[p, s]))
            if figure is not None and n_groups[p, s] < MIN_GROUPS:
                what = "corpora" if n_groups[p, s] == n_corpora[p, s] else "groups of corpora"
                few = f"no interval: {n_groups[p, s]} {what}, {MIN_GROUPS} are needed"
                why = f"{why}; {few}" if why else few
            rows.append(
                DecisionRow(
                    metric=c.series.metric,
                    kind=c.kind,
                    direction=c.direction.words,
                    size=point.size,
                    seed=seed,
                    variant=variant or None,
                    step=point.step,
                    task=c.target.task,
                    observed_tasks=c.series.tasks,
                    decision_accuracy=figure,
                    ci_low=number(low[p, s]),
                    ci_high=number(high[p, s]),
                    seed_low=seeds[0],
                    seed_high=seeds[1],
                    spearman=number(rho[p, s]),
                    n_corpora=int(n_corpora[p, s]),
                    n_groups=int(n_groups[p, s]),
                    n_pairs=int(c.found.n_pairs[p, s]),
                    n_ties=int(c.found.n_ties[p, s]),
                    n_predicted_ties=int(c.found.n_predicted_ties[p, s]),
                    n_seeds=k,
                    compute_fraction=fraction,
                    cost_fraction=None if fraction is None else fraction * (k or 1),
                    training_flops=number(training[p]),
                    scoring_flops=number(scoring[p]),
                    reason="; ".join(w for w in (why, accounting.reason(p)) if w) or None,
                )
            )
    return rows


def ways_of(c: Comparison, panel: Panel) -> list[Way]:
    """One run of each corpus, where several might decide: their mean figure; and the mean over seeds."""
    ways = []
    for p, point in enumerate(panel.points):
        fraction = number(c.fractions[p])
        n_seeds = c.n_seeds(p)
        known = [s for s in range(len(panel.seeds)) if np.isfinite(c.found.accuracy[p, s])]
        if known:
            mean = float(c.found.accuracy[p, known].mean())
            runs = c.values[p, known]
            ways.append(Way(c.series.metric, point.size, point.step, 1, c.kind, fraction, mean, runs))
        figure = number(c.found.accuracy[p, -1])
        if figure is not None and n_seeds != 1:
            k = max(n_seeds, 1)
            cost = None if fraction is None else fraction * k
            own = c.values[p, -1:]
            ways.append(Way(c.series.metric, point.size, point.step, k, c.kind, cost, figure, own))
    return ways


def _seed_interval(
    runs: Array, target_runs: Array, figure: float, resampling: Resampling
) -> tuple[float | None, float | None]:
    draws = resampling.seed_draws
    deviation = seed_deviation(runs, target_runs, draws, resampling.seed) if draws else np.nan
    if not np.isfinite(deviation):
        return None, None
    reach = float(stats.norm.ppf(0.5 + resampling.confidence / 2)) * deviation
    return max(0.0, figure - reach), min(1.0, figure + reach)


def uneven_words(series: Series, panel: Panel, known: NDArray[np.bool_]) -> list[str]:
    """Which means are over different numbers of seeds, where that is so."""
    words = []
    for p, point in enumerate(panel.points):
        counts = series.seed_counts[p]
        with_target = counts[known & (counts > 0)]
        if len(np.unique(with_target)) > 1:
            few = [c for c, n in zip(panel.corpora, counts, strict=True) if 0 < n < with_target.max()]
            words.append(
                f"{series.metric}, {point.words}: fewer runs than the others for {len(few)} of the corpora "
                f"({', '.join(few[:5])}{', ...' if len(few) > 5 else ''}); each mean is over its own"
            )
    return words


def _reason(found: Decisions, p: int, s: int, n_corpora: int, rho: float) -> str | None:
    if found.n_pairs[p, s] == 0:
        if n_corpora == 0:
            return "no corpus has both this and a target"
        if n_corpora == 1:
            return "one corpus, a decision needs two"
        return "all of these corpora have the same target"
    if not np.isfinite(rho):
        few = "fewer than three corpora" if n_corpora < 3 else "all values are equal"
        return f"no rho: {few}"
    return None
