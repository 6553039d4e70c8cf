"""Scaling laws as ways to decide: for every corpus, small runs forecast its target run.

Sizes: all up to some size, from three of them on, and of the largest such set also what is left when the
smallest are dropped one by one. The target's own size is never among them. Laws are fitted to means over
seeds. A loss enters as the mean over the last 10 % of a run's checkpoints; the second step takes all but the
first 10 % of them, or with `late checkpoints` the last half, as in DataDecide's code. With final checkpoints
only these filters change nothing and have no rows of their own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.corpora.compute_cost import Accounting
from forecast.analysis.corpora.decision_accuracy import Array
from forecast.analysis.corpora.observation_arrays import OWN_LAST, Panel
from forecast.analysis.corpora.targets import Target
from forecast.analysis.corpora.task_matching import Series
from forecast.analysis.stats.figures import mean_known
from forecast.analysis.stats.scaling_laws import FORMS, FitError, Law, Link, fit_accuracy, fit_link, fit_loss

MIN_SIZES = 3
_END = 0.9  # a loss is the mean behind this share of a run
_EARLY, _LATE = 0.1, 0.5  # where the second step begins

TARGET = "the target"  # what errors of forecasts of the accuracy are against


@dataclass(frozen=True)
class Extrapolation:
    """Forecasts of one law from one set of sizes."""

    law: str  # e.g. `3-parameter two-step, helper points`
    metrics: tuple[str, ...]  # the loss, then the accuracy where it is used
    observed_tasks: tuple[str, ...]
    sizes: tuple[str, ...]
    predicted: Array  # [corpora] the loss or the accuracy of the target run, NaN where the fit failed
    of_accuracy: bool
    failed: dict[str, str]  # by corpus, why
    cost: float  # share of target compute of all runs of one corpus; NaN where unknown
    n_runs: int  # of each corpus and size
    absolute_error: float | None  # mean over corpora
    relative_error: float | None
    compared_with: str  # what the errors are against, or why there are none


@dataclass(frozen=True)
class _Runs:
    """One series by size."""

    means: Array  # [points, corpora] over seeds
    sizes: tuple[str, ...]  # that can be fitted, from small to large
    n: Array  # [sizes] in units of the target's
    d: Array  # [sizes]
    end: Array  # [sizes, corpora] mean over the last checkpoints
    points: tuple[NDArray[np.int64], ...]  # by size, places of its checkpoints
    progress: Array  # [points] step over the last step of its size
    cost: Array  # [sizes] of one run
    n_runs: int

    def at(self, sizes: Sequence[str], corpus: int) -> tuple[Array, Array, Array]:
        """n, d and the values of a corpus at some sizes, where it has them."""
        places = [
            i for i, size in enumerate(self.sizes) if size in sizes and np.isfinite(self.end[i, corpus])
        ]
        return self.n[places], self.d[places], self.end[places, corpus]

    def behind(self, sizes: Sequence[str], start: float) -> NDArray[np.int64]:
        """Places of the checkpoints of some sizes behind a share of their runs."""
        own = [points for size, points in zip(self.sizes, self.points, strict=True) if size in sizes]
        return np.concatenate([points[self.progress[points] > start] for points in own])


@dataclass(frozen=True)
class _Question:
    """What the laws are about."""

    loss: Series
    accuracy: Series | None
    corpora: tuple[str, ...]
    losses: _Runs
    accuracies: _Runs | None
    actual: Array  # [corpora] the loss of the target's size
    target: Array  # [corpora]
    top: float
    single_steps: bool


def size_sets(sizes: Sequence[str], dropping: bool = True) -> list[tuple[str, ...]]:
    """Sets of sizes to fit to, as the module says; none of fewer than three.

    Args:
        dropping: also those without the smallest sizes.
    """
    growing = [tuple(sizes[:end]) for end in range(MIN_SIZES, len(sizes) + 1)]
    return growing + [tuple(sizes[start:]) for start in range(1, len(sizes) - MIN_SIZES + 1) if dropping]


def extrapolations_of(
    loss: Series,
    accuracy: Series | None,
    target: Target,
    panel: Panel,
    accounting: Accounting,
    top: float | None,
    single_steps: bool,
    dropping: bool,
    workers: int,
    on_set: Callable[[], None],
) -> tuple[list[Extrapolation], str | None]:
    """All laws on all sets of sizes.

    Args:
        loss: lower is better, positive.
        accuracy: of the small runs in the target's metric; None: there is none, so no second step.
        top: the highest accuracy, 1 or 100; None: the target is no such thing, so no second step.
        single_steps: fit them, too; they are the same whatever the loss.
        dropping: see `size_sets`.
        workers: processes.
        on_set: callback for each set of sizes that is done.

    Returns:
        The extrapolations; and why there are none, where there are none.
    """
    if not np.isfinite(accounting.target_flops):
        return [], "parameters and tokens of the target are not known"
    losses = _runs(loss, panel, accounting)
    if len(losses.sizes) < MIN_SIZES:
        return [], (
            f"sizes below the target with parameters, tokens and {loss.metric}: {len(losses.sizes)}; "
            f"a scaling law needs {MIN_SIZES}"
        )
    if top is None:
        accuracy = None
    question = _Question(
        loss=loss,
        accuracy=accuracy,
        corpora=panel.corpora,
        losses=losses,
        accuracies=None if accuracy is None else _runs(accuracy, panel, accounting),
        actual=_at_target(loss, panel, accounting),
        target=target.mean,
        top=top or 1.0,
        single_steps=single_steps,
    )
    found: list[Extrapolation] = []
    for laws in _mapped(question, size_sets(losses.sizes, dropping), workers):
        found += laws
        on_set()
    return found, None


def _mapped(q: _Question, sets: list[tuple[str, ...]], workers: int) -> Iterable[list[Extrapolation]]:
    if workers == 1:
        return (_all_laws(q, sizes) for sizes in sets)
    from joblib import Parallel, delayed, parallel_config

    with parallel_config("loky", inner_max_num_threads=1):
        parallel = Parallel(n_jobs=workers, return_as="generator")
        laws: Iterable[list[Extrapolation]] = parallel(delayed(_all_laws)(q, sizes) for sizes in sets)
        return laws


def _all_laws(q: _Question, sizes: tuple[str, ...]) -> list[Extrapolation]:
    """The loss by each form, and the accuracy in two steps and in one."""
    found = []
    links = _links(q, sizes)
    for form in FORMS:
        first, failed = _each(q, q.losses, sizes, partial(fit_loss, form))
        found.append(_extrapolation(q, form, (q.loss,), sizes, first, failed))
        if q.accuracy is None or q.accuracies is None:
            continue
        for words, by_corpus in links.items():
            values, why = np.full(len(first), np.nan), {}
            for c, (corpus, link) in enumerate(zip(q.corpora, by_corpus, strict=True)):
                if isinstance(link, str) or corpus in failed:
                    why[corpus] = link if isinstance(link, str) else failed[corpus]
                else:
                    values[c] = link.at(first[[c]])[0]
            name = f"{form} two-step{words}"
            found.append(_extrapolation(q, name, (q.loss, q.accuracy), sizes, values, why))
        if form != "2-parameter" and q.single_steps:
            values, why = _each(q, q.accuracies, sizes, partial(fit_accuracy, form, top=q.top))
            found.append(_extrapolation(q, f"{form} single-step", (q.accuracy,), sizes, values, why))
    return found


def _links(q: _Question, sizes: tuple[str, ...]) -> dict[str, list[Link | str]]:
    """Second steps by words for how they are fitted: of each corpus the fit, or why there is none."""
    links: dict[str, list[Link | str]] = {}
    if q.accuracies is None:
        return links
    has_checkpoints = any(len(own) > 1 for own in q.losses.points)
    starts = {"": _EARLY} | ({", late checkpoints": _LATE} if has_checkpoints else {})
    for words, start in starts.items():
        points = q.losses.behind(sizes, start)
        for helped, helpers in ((words, False), (f", helper points{words}", True)):
            links[helped] = []
            for x, y in zip(q.losses.means[points].T, q.accuracies.means[points].T, strict=True):
                known = np.isfinite(x) & np.isfinite(y)
                try:
                    links[helped].append(fit_link(x[known], y[known], helpers, q.top))
                except FitError as error:
                    links[helped].append(str(error))
    return links


def _each(
    q: _Question, runs: _Runs, sizes: Sequence[str], fit: Callable[[Array, Array, Array], Law]
) -> tuple[Array, dict[str, str]]:
    """[corpora] forecasts, NaN where the fit failed; and by corpus why it did."""
    values, failed = np.full(len(q.corpora), np.nan), {}
    for c, corpus in enumerate(q.corpora):
        try:
            values[c] = fit(*runs.at(sizes, c)).at_target()
        except FitError as error:
            failed[corpus] = str(error)
    return values, failed


def _runs(series: Series, panel: Panel, accounting: Accounting) -> _Runs:
    means = series.means
    fractions = accounting.fractions([panel.place(task) for task in series.tasks])
    progress = np.ones(len(panel.points))
    kept: list[tuple[str, float, float, Array, NDArray[np.int64], float]] = []
    for size in panel.sizes:
        own = [i for i, p in enumerate(panel.points) if p.size == size and p.step != OWN_LAST]
        steps = [step for i in own if isinstance(step := panel.points[i].step, float)]
        for i in own:
            step = panel.points[i].step
            progress[i] = step / max(steps) if isinstance(step, float) and max(steps) > 0 else 1.0
        own = [i for i in own if np.isfinite(means[i]).any()]
        if size == accounting.target_size or not own:
            continue
        n = accounting.parameters[own[-1]] / accounting.target_parameters
        d = accounting.tokens[own[-1]] / accounting.target_tokens
        if n > 0 and d > 0:
            late = means[[i for i in own if progress[i] > _END]]
            kept.append((size, n, d, mean_known(late, axis=0), np.array(own), float(fractions[own[-1]])))
    return _Runs(
        means=means,
        sizes=tuple(size for size, *_ in kept),
        n=np.array([row[1] for row in kept]),
        d=np.array([row[2] for row in kept]),
        end=np.array([row[3] for row in kept]),
        points=tuple(row[4] for row in kept),
        progress=progress,
        cost=np.array([row[5] for row in kept]),
        n_runs=max(1, int(series.seed_counts.max(initial=1))),
    )


def _at_target(series: Series, panel: Panel, accounting: Accounting) -> Array:
    """[corpora] values of the target's size at its last checkpoint; NaN where it was not observed."""
    means = series.means
    own = [
        i
        for i, p in enumerate(panel.points)
        if p.size == accounting.target_size and p.step != OWN_LAST and np.isfinite(means[i]).any()
    ]
    return means[own[-1]] if own else np.full(len(panel.corpora), np.nan)


def errors_of(predicted: Array, actual: Array, what: str) -> tuple[float | None, float | None, str]:
    """Mean absolute and mean relative error over corpora; what they are against, or why missing."""
    both = np.isfinite(predicted) & np.isfinite(actual)
    if not both.any():
        return None, None, f"{what}: " + ("no fit succeeded" if np.isfinite(actual).any() else "not observed")
    apart = np.abs(predicted[both] - actual[both])
    relative = float((apart / np.abs(actual[both])).mean()) if (actual[both] != 0).all() else None
    return float(apart.mean()), relative, what


def _extrapolation(
    q: _Question,
    law: str,
    series: tuple[Series, ...],
    sizes: tuple[str, ...],
    predicted: Array,
    failed: dict[str, str],
) -> Extrapolation:
    of_accuracy = series[-1] is q.accuracy
    actual, what = (q.target, TARGET) if of_accuracy else (q.actual, "the target size's loss")
    absolute, relative, compared_with = errors_of(predicted, actual, what)
    cost = q.losses.cost[[q.losses.sizes.index(size) for size in sizes]].sum() * q.losses.n_runs
    return Extrapolation(
        law=law,
        metrics=tuple(one.metric for one in series),
        observed_tasks=series[0].tasks,
        sizes=sizes,
        predicted=predicted,
        of_accuracy=of_accuracy,
        failed=failed,
        cost=float(cost),
        n_runs=q.losses.n_runs,
        absolute_error=absolute,
        relative_error=relative,
        compared_with=compared_with,
    )
