"""Scaling laws in the report: which metrics and tasks they are fitted for, and how they decide."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forecast.analysis.corpora.compute_cost import Accounting
from forecast.analysis.corpora.decision_accuracy import decide, pair_signs
from forecast.analysis.corpora.observation_arrays import Panel
from forecast.analysis.corpora.pareto_frontier import Way
from forecast.analysis.corpora.scaling_law_forecasts import (
    TARGET,
    Extrapolation,
    errors_of,
    extrapolations_of,
    size_sets,
)
from forecast.analysis.corpora.targets import Target, Targets
from forecast.analysis.corpora.task_matching import series_of, tasks_for
from forecast.analysis.stats.correlations import spearman_where
from forecast.analysis.stats.figures import number
from forecast.analysis.stats.scaling_laws import FORMS
from forecast.errors import ConfigError, did_you_mean
from forecast.proxies.metric_direction import Direction, is_accuracy, is_generic_loss
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
        why = "no metric is a cross-entropy by its name, so no scaling law is fitted (--loss names one)"
        return (), {}, [why]
    accuracy = _accuracy(panel, targets)
    top = _top(panel, accuracy, targets)
    words = []
    if accuracy is None:
        lacking = f"no {targets.metric} of the small runs"
        words.append(f"{lacking}: scaling laws forecast the loss alone, without a second step")
    # Targets that the same observed tasks stand for share their fits. A second step is fitted to the small
    # runs' own accuracies, so those tasks are part of the key.
    groups: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[Target]] = {}
    for loss in chosen:
        for target in targets.tasks:
            tasks = tasks_for(panel.tasks_of(loss), target, targets)
            own = () if accuracy is None else tasks_for(panel.tasks_of(accuracy), target, targets)
            groups.setdefault((loss, tasks, own), []).append(target)
    sizes = [size for size in panel.sizes if size != accounting.target_size]
    forms = len(FORMS) + (0 if accuracy is None else 6)  # four links, two single steps
    n_sets = len(size_sets(sizes))
    fits_per_set = len(panel.corpora) * forms
    if (too_many := n_sets * fits_per_set * len(groups)) > MOST_FITS and len(targets.tasks) > 1:
        main = targets.main
        groups = {key: [main] for key, members in groups.items() if main in members}
        words.append(f"{too_many} scaling laws would be fitted: only those for {main.task} are")
    dropping = (too_many := n_sets * fits_per_set * len(groups)) <= MOST_FITS
    if not dropping:
        n_sets = len(size_sets(sizes, dropping))
        words.append(
            f"{too_many} scaling laws would be fitted: those without the smallest sizes are left out"
        )
    if accuracy is not None and top is None:
        words.append(f"{targets.metric} is neither within 0..1 nor within 0..100: no second step is fitted")
    total = max(1, n_sets * len(groups))
    done = itertools.count(1)

    def on_set() -> None:
        if progress is not None:
            progress(min(next(done), total), total)

    many = workers if n_sets * fits_per_set * len(groups) >= _WORTH_PROCESSES else 1
    sign = ways_up[targets.metric].sign
    rows: list[LawRow] = []
    ways: dict[str, list[Way]] = {}
    stepped: set[tuple[str, ...]] = set()  # tasks whose single steps have been fitted
    for (loss, _, own), members in groups.items():
        series = series_of(panel, loss, members[0], targets)
        own_accuracy = None if accuracy is None else series_of(panel, accuracy, members[0], targets)
        found, reason = extrapolations_of(
            series,
            own_accuracy,
            members[0],
            panel,
            accounting,
            top,
            own not in stepped,
            dropping,
            many,
            on_set,
        )
        stepped.add(own)
        if reason is not None:
            words.append(f"no scaling law for {loss}: {reason}")
        for target in members:
            for one in found:
                row, way = _row(one, target, sign, panel, target is members[0])
                rows.append(row)
                if way is not None:
                    ways.setdefault(target.task, []).append(way)
    if broken := sum(bool(row.failed) for row in rows):
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
    figure, cost = number(found.accuracy), number(one.cost)
    why = next(iter(one.failed.values()), "no two corpora with different targets")
    predicted = dict(zip(panel.corpora, map(number, one.predicted), strict=True)) if with_forecasts else None
    absolute, relative, compared_with = one.absolute_error, one.relative_error, one.compared_with
    if one.of_accuracy:  # the fits are shared with other targets, the errors are against this one
        absolute, relative, compared_with = errors_of(one.predicted, target.mean, TARGET)
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
        relative_error=relative,
        absolute_error=absolute,
        compared_with=compared_with,
        predicted=predicted,
        failed=one.failed,
        reason=why if figure is None else None,
    )
    # A law that fails for a corpus cannot choose among all: it is no way to decide.
    if figure is None or one.failed:
        return row, None
    sizes = f"{one.sizes[0]}..{one.sizes[-1]}"
    name = f"{one.law} of {', '.join(one.metrics)}"
    return row, Way(name, sizes, None, one.n_runs, "scaling law", cost, figure, standing[None])
