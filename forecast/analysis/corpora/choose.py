"""Which corpus the small runs favour: the way that they are ranked by, and the ranking."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.corpora.bootstrap import MIN_GROUPS
from forecast.analysis.corpora.corpus_ranking import (
    CorpusPlace,
    PairChance,
    calibrated_draws,
    figures_of,
    pairs_of,
    places_of,
)
from forecast.analysis.corpora.decision_accuracy import Array
from forecast.analysis.corpora.metric_order import plainness
from forecast.analysis.corpora.observation_arrays import Panel, Point
from forecast.analysis.corpora.results import Comparison
from forecast.analysis.corpora.seed_noise import seed_draws
from forecast.analysis.corpora.variants import agreement, noise_units

_MIN_TARGETS = 3  # different ones
_LUCK = "one run of each corpus, so nothing tells how far its value is luck"


@dataclass(frozen=True)
class Signal:
    """A metric at the end of the runs of one size, on the tasks that stand for the target."""

    metric: str
    point: Point
    place: int  # of the size, from small to large
    sign: int  # of the metric
    means: Array  # [C] over seeds, higher is better, NaN where a corpus has none
    runs: Array  # [S, C] what differs by chance: runs, or means of variants
    n_seeds: NDArray[np.int64]  # [C] runs, 0 where the mean was given
    n_variants: int
    cost: float | None  # compute of a corpus' runs, as a share of one target run
    accuracy: float  # of decisions; NaN without targets

    @property
    def words(self) -> str:
        """For tables and messages."""
        runs = sorted({int(n) for n in self.n_seeds[np.isfinite(self.means)] if n})
        what = f"runs of {self.n_variants} variants" if self.n_variants > 1 else "seeds"
        of = f", mean of {' or '.join(map(str, runs))} {what}" if runs and runs != [1] else ""
        return f"{self.metric} at {self.point.words}{of}"


@dataclass(frozen=True)
class CorpusRanking:
    """The corpora, the best first, and what that rests on."""

    task: str
    basis: str  # the way: metric, size, seeds
    metric: str
    size: str
    chosen: Literal["decision accuracy", "default"]  # how the way was
    over: (
        Literal["corpora", "seeds"] | None
    )  # what intervals and probabilities are over; None: there are none
    unit: str  # of regret and forecasts
    reason: str | None  # what the figures do not cover, or why there are none
    places: tuple[CorpusPlace, ...]
    pairwise: tuple[PairChance, ...]  # of the ten leading corpora
    agreement: float | None  # share of pairs that one seed, or variant, orders as the mean of the others
    left_out: tuple[str, ...]  # corpora that the way has no value of


def signals_of(c: Comparison, panel: Panel) -> list[Signal]:
    """The metric's last checkpoint at each size."""
    last = {point.size: p for p, point in enumerate(panel.points)}
    found = []
    for p in last.values():
        means = c.values[p, -1]
        if np.isfinite(means).any():
            k, fraction = max(c.n_seeds(p), 1), float(c.fractions[p])
            found.append(
                Signal(
                    c.series.metric,
                    panel.points[p],
                    panel.sizes.index(panel.points[p].size),
                    c.direction.sign,
                    means,
                    noise_units(c.values[p, :-1], panel.variants),
                    c.series.seed_counts[p].astype(int),
                    len(set(panel.variants)),
                    k * fraction if np.isfinite(fraction) else None,
                    float(c.found.accuracy[p, -1]),
                )
            )
    return found


def rank_corpora(
    signals: Sequence[Signal],
    corpora: Sequence[str],
    task: str,
    goal: Array,
    groups: NDArray[np.int64],
    target: tuple[str, int],
    bootstraps: int,
    confidence: float,
    seed: int,
) -> CorpusRanking | None:
    """The ranking; None where there is no signal, which all may have an unknown direction.

    Args:
        signals: those that may be chosen: of known direction, below the target's size, within the budget;
            of each metric from small to large sizes.
        goal: [C] targets, higher is better, NaN where unknown.
        groups: [C], corpora with equal numbers are variants of one base.
        target: name and sign of the target's metric.
    """
    if not signals:
        return None
    counts = [int(np.isfinite(signal.means).sum()) for signal in signals]
    whole = [signal for signal, n in zip(signals, counts, strict=True) if n == max(counts)]
    present = np.isfinite(whole[0].means)
    whole = [signal for signal in whole if (np.isfinite(signal.means) == present).all()]
    names = [corpus for corpus, there in zip(corpora, present, strict=True) if there]
    left_out = tuple(corpus for corpus, there in zip(corpora, present, strict=True) if not there)
    own_goal, (unit, sign) = goal[present], target
    calibrated, draws = None, None
    own_groups = groups[present]
    why_not = _why_not_calibrated(own_goal, own_groups, bootstraps)
    if why_not is None:
        stacked = np.stack([signal.means[present] for signal in whole])
        calibrated = calibrated_draws(stacked, own_goal, own_groups, bootstraps, seed)
        why_not = None if calibrated else "no line can be fitted to the targets"
    judged = [signal for signal in whole if np.isfinite(signal.accuracy)]
    if calibrated is not None:
        way = min(judged, key=lambda s: (-round(s.accuracy, 9), s.place, plainness(s.metric)))
        centre, draws = calibrated
    else:
        way = min(whole, key=lambda s: (plainness(s.metric), -s.place))
        own_runs = way.runs[:, present]
        drawn = seed_draws(own_runs, seed) if np.isfinite(own_runs).any(axis=0).all() else None
        centre, draws = drawn or (way.means[present], None)
    values = way.means[present]
    found = figures_of(centre, draws, values, confidence)
    reason = None
    if calibrated is None:
        unit = way.metric
        covered = (
            f"figures cover other {'variants' if way.n_variants > 1 else 'seeds'} of these small runs, "
            "not whether larger ones keep the order"
        )
        reason = f"{why_not}: {_LUCK if draws is None else covered}"
    return CorpusRanking(
        task=task,
        basis=way.words,
        metric=way.metric,
        size=way.point.size,
        chosen="default" if calibrated is None else "decision accuracy",
        over=None if draws is None else "seeds" if calibrated is None else "corpora",
        unit=unit,
        reason=reason,
        places=places_of(
            found,
            names,
            way.sign * values,
            way.n_seeds[present],
            None if draws is None else sign * centre if calibrated else way.sign * centre,
            sign * own_goal,
            way.words,
        ),
        pairwise=pairs_of(found, names),
        agreement=agreement(way.runs[:, present]),
        left_out=left_out,
    )


def _why_not_calibrated(goal: Array, groups: NDArray[np.int64], bootstraps: int) -> str | None:
    """Why targets cannot calibrate a ranking; None where they can."""
    known = np.isfinite(goal)
    if not known.any():
        return "no targets"
    n = len(set(groups[known]))
    if n < MIN_GROUPS:
        what = "corpora" if len(set(groups)) == len(groups) else "groups of corpora"
        return f"{n} {what} have a target, {MIN_GROUPS} are needed to calibrate"
    if len(set(goal[known])) < _MIN_TARGETS:
        return f"fewer than {_MIN_TARGETS} different targets, which calibrate nothing"
    return None if bootstraps else "without resamples targets do not calibrate"
