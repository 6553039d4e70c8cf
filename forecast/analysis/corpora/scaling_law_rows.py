"""Scaling laws in the report: which metrics and tasks they are fitted for, and how they decide."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forecast.analysis.corpora.compute_cost import Accounting
from forecast.analysis.corpora.decision_accuracy import decide, pair_signs
from forecast.analysis.corpora.metric_direction import Direction, is_accuracy, is_generic_loss
from forecast.analysis.corpora.observation_arrays import Panel
from forecast.analysis.corpora.pareto_frontier import Way
from forecast.analysis.corpora.scaling_law_forecasts import (
    Extrapolation,
    count_fits,
    extrapolations_of,
    size_sets,
)
from forecast.analysis.corpora.targets import Target, Targets
from forecast.analysis.corpora.task_matching import series_of, tasks_for
from forecast.analysis.stats.correlations import spearman_where
from forecast.analysis.stats.figures import number
from forecast.errors import ConfigError, did_you_mean
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES

MOST_FITS = 6_000  # 4 to 15 ms each
_WORTH_PROCESSES = 1_000  # fits; starting processes takes two seconds
_BYTES = "byte_"


@dataclass(frozen=True)
class LawRow:
    """How the forecasts of a scaling law decide about one task."""

    law: str
    metrics: tuple[str, ...]
    task: str
    observed_tasks: tuple[str, ...]
    sizes: tuple[str, ...]
    n_runs: int
    decision_accuracy: float | None
    spearman: float | None
    n_corpora: int
    n_pairs: int
    n_ties: int
    n_predicted_ties: int
    cost_fraction: float | None
    relative_error: float | None
    absolute_error: float | None
    compared_with: str
    predicted: dict[str, float | None] | None  # by corpus; None: as for another task with the same fits
    failed: dict[str, str]  # by corpus, why its fit failed
    reason: str | None


def laws_of(
    panel: Panel,
    targets: Targets,
    ways_up: Mapping[str, Direction],
    accounting: Accounting,
    losses: Sequence[str],
    workers: int,
    progress: Callable[[float, float], None] | None,
) -> tuple[tuple[LawRow, ...], dict[str, list[Way]], list[str]]:
    """Rows, ways to decide by task, and warnings.

    Raises:
        ConfigError: a loss that no table has.
    """
    for name in losses:
        if name not in panel.metrics:
            raise ConfigError(f"--loss {name}: no such metric; {did_you_mean(name, panel.metrics)}")
    chosen = list(losses) or [name for name in panel.metrics if _is_plain_loss(name)]
    if not chosen:
        return (
            (),
            {},
            ["no metric is a cross-entropy by its name, so no scaling law is fitted (--loss names one)"],
        )
    accuracy = _accuracy(panel, targets)
    words = []
    if accuracy is None:
        words.append(
            f"no {targets.metric} of the small runs: scaling laws forecast the loss alone, "
            f"without a second step"
        )
    # Targets that the same observed tasks stand for share their fits.
    pairs: dict[tuple[Any, ...], list[tuple[str, Target]]] = {}
    for loss in chosen:
        for target in targets.tasks:
            tasks = tasks_for(panel.tasks_of(loss), target, targets)
            # A second step is fitted to the small runs' own accuracies, so those tasks are part of the key.
            own = None if accuracy is None else tasks_for(panel.tasks_of(accuracy), target, targets)
            pairs.setdefault((loss, tasks, own), []).append((loss, target))
    sizes = [size for size in panel.sizes if size != accounting.target_size]
    dropping = True

    def n_fits() -> int:
        return count_fits(panel, len(size_sets(sizes, dropping)), len(pairs), accuracy is not None)

    if (too_many := n_fits()) > MOST_FITS and len(targets.tasks) > 1:
        main = targets.main.task
        pairs = {key: kept for key, all_ in pairs.items() if (kept := [p for p in all_ if p[1].task == main])}
        words.append(f"{too_many} scaling laws would be fitted: only those for {main} are")
    if (too_many := n_fits()) > MOST_FITS:
        dropping = False
        words.append(
            f"{too_many} scaling laws would be fitted: those without the smallest sizes are left out"
        )
    total = max(1, len(size_sets(sizes, dropping)) * len(pairs))
    done = itertools.count(1)
    rows: list[LawRow] = []
    ways: dict[str, list[Way]] = {}

    def on_set() -> None:
        if progress is not None:
            progress(min(next(done), total), total)

    many = workers if n_fits() >= _WORTH_PROCESSES else 1
    sign = ways_up[targets.metric].sign
    top = _top(panel, accuracy, targets)
    if accuracy is not None and top is None:
        words.append(f"{targets.metric} is neither within 0..1 nor within 0..100: no second step is fitted")
    stepped: set[tuple[str, ...]] = set()  # tasks whose single steps have been fitted
    for same in pairs.values():
        loss, first = same[0]
        series = series_of(panel, loss, first, targets)
        own_accuracy = None if accuracy is None else series_of(panel, accuracy, first, targets)
        single = (own_accuracy is None or own_accuracy.tasks not in stepped) and accuracy is not None
        stepped |= set() if own_accuracy is None else {own_accuracy.tasks}
        found, reason = extrapolations_of(
            series, own_accuracy, first, panel, accounting, top, single, dropping, many, on_set
        )
        if reason is not None:
            words.append(f"no scaling law for {loss}: {reason}")
        for place, (_, target) in enumerate(same):
            for one in found:
                row, way = _row(one, target, sign, panel, place == 0)
                rows.append(row)
                if way is not None:
                    ways.setdefault(target.task, []).append(way)
    broken = sum(1 for row in rows if row.failed)
    if broken:
        words.append(
            f"{broken} of {len(rows)} scaling laws could not be fitted for every corpus; each row says why"
        )
    return tuple(rows), ways, words


def _is_plain_loss(name: str) -> bool:
    """A cross-entropy; of the 80 proxies the unweighted one."""
    bare = name.removeprefix(_BYTES)
    return is_generic_loss(name) and (bare == PLAIN_CROSS_ENTROPY or bare not in {p.name for p in PROXIES})


def _accuracy(panel: Panel, targets: Targets) -> str | None:
    """The metric of the small runs that is the target's."""
    if targets.metric in panel.metrics:
        return targets.metric
    known = [name for name in panel.metrics if is_accuracy(name)] if is_accuracy(targets.metric) else []
    return known[0] if len(known) == 1 else None


def _top(panel: Panel, accuracy: str | None, targets: Targets) -> float | None:
    if accuracy is None or not is_accuracy(targets.metric):
        return None
    values = np.concatenate([panel.values[accuracy].ravel(), *(target.mean for target in targets.tasks)])
    values = values[np.isfinite(values)]
    if values.min(initial=0) < 0:
        return None
    return next((top for top in (1.0, 100.0) if values.max(initial=0) <= top), None)


def _row(
    one: Extrapolation, target: Target, sign: int, panel: Panel, with_forecasts: bool
) -> tuple[LawRow, Way | None]:
    values = sign * target.mean
    standing = one.predicted if one.of_accuracy else -one.predicted
    found = decide(pair_signs(standing), pair_signs(values))
    figure = number(found.accuracy)
    cost = number(one.cost)
    reason = None
    if figure is None:
        reason = next(iter(one.failed.values()), "no two corpora with different targets")
    row = LawRow(
        law=one.law,
        metrics=one.metrics,
        task=target.task,
        observed_tasks=one.observed_tasks,
        sizes=one.sizes,
        n_runs=one.n_runs,
        decision_accuracy=figure,
        spearman=number(spearman_where(standing, values)),
        n_corpora=int((np.isfinite(standing) & np.isfinite(values)).sum()),
        n_pairs=int(found.n_pairs),
        n_ties=int(found.n_ties),
        n_predicted_ties=int(found.n_predicted_ties),
        cost_fraction=cost,
        relative_error=one.relative_error,
        absolute_error=one.absolute_error,
        compared_with=one.compared_with,
        predicted=dict(zip(panel.corpora, map(number, one.predicted), strict=True))
        if with_forecasts
        else None,
        failed=one.failed,
        reason=reason,
    )
    # A law that fails for a corpus cannot choose among all: it is no way to decide.
    if figure is None or one.failed:
        return row, None
    sizes = f"{one.sizes[0]}..{one.sizes[-1]}"
    name = f"{one.law} of {', '.join(one.metrics)}"
    return row, Way(name, sizes, None, one.n_runs, "scaling law", cost, figure, standing[None])
