"""The entry of `forecast corpora`: compare small runs with the targets of large ones; no printing."""

from collections.abc import Callable, Sequence

import numpy as np

from forecast.analysis.corpora.bootstrap import (
    MIN_GROUPS,
    BestOfMany,
    best_of_many,
    corpus_weights,
    pair_weights,
)
from forecast.analysis.corpora.budget_choice import BudgetChoice, BudgetChooser
from forecast.analysis.corpora.choose import Signal, rank_corpora, signals_of
from forecast.analysis.corpora.compute_cost import Accounting, accounting_of
from forecast.analysis.corpora.corpora_result import CorporaChoice, CorporaOptions, CorporaResult
from forecast.analysis.corpora.decision_accuracy import Array
from forecast.analysis.corpora.noise_ceiling import ceiling_of
from forecast.analysis.corpora.observation_arrays import Panel, Point, panel_of
from forecast.analysis.corpora.observations_from_file import MEAN, Tables
from forecast.analysis.corpora.pareto_frontier import LEVEL, Way, comes_first, frontier_of, with_gains
from forecast.analysis.corpora.results import DecisionRow, Resampling, compare, rows_of, uneven_words, ways_of
from forecast.analysis.corpora.scaling_law_rows import LawRow, laws_of
from forecast.analysis.corpora.targets import MACRO, Target, Targets, targets_of
from forecast.analysis.corpora.task_matching import matching_words, series_of
from forecast.errors import ConfigError, InputError
from forecast.proxies.metric_direction import directions, is_accuracy, is_generic_loss

BUDGETS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of one target run, asked about where none is named
_SEED_DRAWS = 200
_MANY_ROWS = 20_000  # with more, seeds are not resampled: it takes about a millisecond a row


def compare_corpora(
    tables: Tables,
    options: CorporaOptions,
    workers: int = 1,
    on_cost: Callable[[float, float], None] | None = None,
) -> CorporaResult:
    """Compare every metric, size, checkpoint and seed with every target.

    Args:
        workers: processes for the scaling laws.
        on_cost: callback with the work done and the total.

    Raises:
        ConfigError: an option names what is not there.
        InputError: no corpus is in both tables; a metric of unknown direction; several target metrics.
    """
    observed = {o.corpus for o in tables.observations}
    wanted = {t.corpus for t in tables.targets}
    common = sorted(observed & wanted)
    if not common:
        raise InputError(
            f"no corpus is in both tables; observed: {_few(observed)}; with a target: {_few(wanted)}"
        )
    warnings = list(tables.warnings)
    if lost := observed - wanted:
        warnings.append(
            f"corpora without a target are ranked, and take no part in decision accuracies ({len(lost)}): "
            f"{_few(lost)}"
        )
    if lost := wanted - observed:
        warnings.append(
            f"corpora with a target but without observations are left out ({len(lost)}): {_few(lost)}"
        )
    names = sorted(observed)
    targets = targets_of(tables.targets, names, options.target_metric, options.given.target_size)
    panel = panel_of(tables.observations, names)
    ways_up = directions(panel.metrics, [targets.metric], options.higher, options.lower)
    accounting = accounting_of(panel, targets, options.given)
    warnings += [*targets.warnings, *matching_words(panel, targets), *accounting.warnings]
    if learned := [name for name in panel.metrics if ways_up[name].learned]:
        warnings.append(
            f"direction unknown of {_few(learned)}: rows take more as better, and it is kept out of the "
            "frontier (--higher NAME or --lower NAME decides)"
        )
    weights = np.zeros((options.bootstraps, len(names)))
    has = np.isin(names, common)
    weights[:, has] = corpus_weights(panel.groups[has], options.bootstraps, options.seed)
    n_rows = len(panel.metrics) * len(panel.points) * len(targets.tasks)
    draws = _SEED_DRAWS if n_rows <= _MANY_ROWS else 0
    if not draws:
        warnings.append(f"{n_rows} sizes, checkpoints, metrics and tasks: too many to draw seeds again")
    resampling = Resampling(pair_weights(weights), options.confidence, draws, options.seed)
    sign = ways_up[targets.metric].sign
    rows: list[DecisionRow] = []
    best: dict[str, tuple[BestOfMany, DecisionRow]] = {}
    ways: dict[str, list[Way]] = {target.task: [] for target in targets.tasks}
    signals: list[Signal] = []
    parts = len(panel.metrics) * len(targets.tasks)
    for t, target in enumerate(targets.tasks):
        compared: list[tuple[DecisionRow, Array]] = []
        for m, metric in enumerate(panel.metrics):
            series = series_of(panel, metric, target, targets)
            kind = kind_of(metric, targets.metric)
            one = compare(series, target, ways_up[metric], sign, kind, panel, accounting)
            own = rows_of(one, sign, panel, accounting, resampling)
            rows += own
            if t == 0:
                warnings += uneven_words(series, panel, np.isfinite(target.mean))
            if not ways_up[metric].learned:
                ways[target.task] += ways_of(one, panel)
                if target is targets.main:
                    signals += signals_of(one, panel)
                signs = dict(zip(panel.points, one.signs[:, -1], strict=True))
                compared += [(row, signs[Point(row.size, row.step)]) for row in own if row.seed == MEAN]
            if on_cost is not None:
                on_cost(t * len(panel.metrics) + m + 1, parts * (2 if options.laws else 1))
        if (found := _best(compared, target, sign, panel, options, accounting)) is not None:
            best[target.task] = found
    laws: tuple[LawRow, ...] = ()
    if options.laws:
        progress = (
            None if on_cost is None else (lambda done, total: on_cost(parts * (1 + done / total), 2 * parts))
        )
        laws, law_ways, words = laws_of(
            panel, targets, ways_up, accounting, options.losses, workers, progress
        )
        warnings += words
        for task, more in law_ways.items():
            ways[task] += more
    offered = {
        task: [way for way in own if comes_first(way, accounting.target_size)] for task, own in ways.items()
    }
    frontiers = {}
    for target in targets.tasks:
        points, enough = frontier_of(offered[target.task]), enough_for(target, panel)
        frontiers[target.task] = tuple(
            with_gains(points, sign * target.mean, weights, options.confidence, enough)
        )
    choices = [
        choice
        for target in targets.tasks
        for choice in _choices(
            offered[target.task], target, sign, names, weights, enough_for(target, panel), options
        )
    ]
    ceilings = tuple(ceiling_of(target) for target in targets.tasks)
    if ceilings[0].reason:
        warnings.append(ceilings[0].reason)
    if (own_size := accounting.target_size) in panel.sizes:
        warnings.append(
            f"{own_size} is the target's own size: its rows are no forecast, and it is on no frontier"
        )
    most = max(options.budgets, default=1.0) * (1 + LEVEL)
    ranking = rank_corpora(
        [
            s
            for s in signals
            if s.point.size != own_size and (s.cost <= most if s.cost is not None else not options.budgets)
        ],
        names,
        targets.main.task,
        sign * targets.main.mean,
        panel.groups,
        (targets.metric, sign),
        options.bootstraps,
        options.confidence,
        options.seed,
    )
    return CorporaResult(
        ranking=ranking,
        targets=targets,
        panel=panel,
        directions=ways_up,
        accounting=accounting,
        options=options,
        rows=tuple(rows),
        ceilings=ceilings,
        frontiers=frontiers,
        ways={task: tuple(own) for task, own in ways.items()},
        best=best,
        laws=laws,
        choices=tuple(choices),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def choose_without_targets(tables: Tables, options: CorporaOptions) -> CorporaChoice:
    """Rank the corpora by a default way, as nothing is known of how well any decides.

    Raises:
        ConfigError: an option names what is not there, or asks about targets.
        InputError: a metric of unknown direction.
    """
    if options.budgets or options.target_metric or options.given.target_size:
        raise ConfigError(
            "--budget, --target-metric and --target-size ask about targets; give --targets FILE"
        )
    names = sorted({o.corpus for o in tables.observations})
    panel = panel_of(tables.observations, names)
    ways_up = directions(panel.metrics, [], options.higher, options.lower)
    unknown = np.full(len(names), np.nan)
    tasks = {o.task for o in tables.observations}
    task = next(iter(tasks)) if len(tasks) == 1 else MACRO
    target = Target(task, unknown, {}, True)
    targets = Targets("", None, {}, panel.corpora, (target,), ())
    accounting = accounting_of(panel, targets, options.given)
    signals: list[Signal] = []
    for metric in panel.metrics:
        if not ways_up[metric].learned:
            series = series_of(panel, metric, target, targets)
            signals += signals_of(compare(series, target, ways_up[metric], 1, "", panel, accounting), panel)
    ranking = rank_corpora(
        signals, names, task, unknown, panel.groups, ("", 1), 0, options.confidence, options.seed
    )
    return CorporaChoice(ranking, options, tables.warnings)


def enough_for(target: Target, panel: Panel) -> bool:
    """Whether corpora of enough groups have a target for intervals over them."""
    return len(set(panel.groups[np.isfinite(target.mean)])) >= MIN_GROUPS


def kind_of(metric: str, target_metric: str) -> str:
    """What a frontier calls a metric: accuracy, cross-entropy or proxy."""
    if metric == target_metric or is_accuracy(metric):
        return "accuracy"
    return "cross-entropy" if is_generic_loss(metric) else "proxy"


def _best(
    compared: Sequence[tuple[DecisionRow, Array]],
    target: Target,
    sign: int,
    panel: Panel,
    options: CorporaOptions,
    accounting: Accounting,
) -> tuple[BestOfMany, DecisionRow] | None:
    """Over means that are not the target's own size and have enough corpora to be compared.

    `compared`: rows of means, and their signs [pairs].
    """
    most = max((row.n_corpora for row, _ in compared), default=0)
    kept = [
        (row, signs)
        for row, signs in compared
        if row.decision_accuracy is not None
        and row.size != accounting.target_size
        and row.n_corpora >= max(min(MIN_GROUPS, most), most / 2)
    ]
    if not kept:
        return None
    values = sign * target.mean
    signs = np.stack([s for _, s in kept])
    found = best_of_many(signs, values, panel.groups, options.permutations, options.seed)
    return None if found is None else (found, kept[found.row][0])


def _choices(
    ways: Sequence[Way],
    target: Target,
    sign: int,
    corpora: Sequence[str],
    weights: Array,
    enough: bool,
    options: CorporaOptions,
) -> list[BudgetChoice]:
    """For the given budgets; else for powers of ten, without those whose choice is the same."""
    chooser = BudgetChooser(target.task, ways, sign * target.mean, corpora, weights, enough)
    if options.budgets:
        return [chooser.choose(budget, options.confidence) for budget in options.budgets]
    choices: list[BudgetChoice] = []
    for budget in BUDGETS:
        choice = chooser.choose(budget, options.confidence)
        if choice.way is not None and (not choices or choices[-1].way is not choice.way):
            choices.append(choice)
    return choices


def _few(names: Sequence[str] | set[str], most: int = 8) -> str:
    listed = sorted(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
