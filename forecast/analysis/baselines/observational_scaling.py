"""Observational scaling laws: few components of the scores on other benchmarks, a sigmoid to the target.

After Ruan, Maddison and Hashimoto (arXiv 2405.10938): benchmark scores of many public models lie near a space
of few dimensions; a model's place in it predicts its score on a further benchmark through a sigmoid. Ours
where the paper leaves room: columns are standardised, missing scores are filled in by iterating a rank-1
approximation, the sigmoid's limits are learned (see `links`).

Components come from held-in models only; new models are projected.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.baselines.validation import (
    Predictions,
    score_table,
    target_scores,
    without_spread,
)
from forecast.analysis.stats.links import SigmoidLink, fit_sigmoid
from forecast.errors import FitError, InputError

Array = NDArray[np.float64]

N_COMPONENTS = 3  # of the published analyses
_FILL_RANK = 1
_SETTLED = 1e-9  # largest change of a filled-in score, in standard deviations
_MAX_ROUNDS = 5000
_MIN_MODELS = 3


@dataclass(frozen=True)
class Components:
    """Principal components of a score table [M, B] with missing values."""

    columns: NDArray[np.int64]  # [b] of the B columns: those with spread among held-in models
    mean: Array  # [b]
    scale: Array  # [b], standard deviation of the known scores
    loadings: Array  # [b, K], orthonormal; each points to where scores rise
    explained: Array  # [K], share of the filled-in table's variance
    left_out: tuple[str, ...]  # columns without spread, and why
    n_benchmarks: int  # B

    def project(self, scores: Array, models: Sequence[str] | None = None) -> Array:
        """Components [M, K] of score rows [M, B]; NaN for a model without any known score of `columns`.

        What a row lacks is filled in from the scores it has, as it was for held-in models.

        Raises:
            InputError: not B columns, or a score outside 0..1.
        """
        table = score_table(scores, models)
        if table.shape[1] != self.n_benchmarks:
            raise InputError(
                f"{table.shape[1]} benchmarks, but the components are of {self.n_benchmarks}; "
                "give the same columns in the same order"
            )
        z = (table[:, self.columns] - self.mean) / self.scale
        known = np.isfinite(z)
        leading = self.loadings[:, :_FILL_RANK]
        for row, have in zip(z, known, strict=True):
            if have.any() and not have.all():
                place = np.linalg.lstsq(leading[have], row[have], rcond=None)[0]
                row[~have] = leading[~have] @ place
        return np.asarray(z @ self.loadings)


@dataclass(frozen=True)
class Observational:
    """A fitted observational scaling law of one target benchmark."""

    components: Components
    link: SigmoidLink

    def predict(self, scores: Array, models: Sequence[str] | None = None) -> Predictions:
        """Target scores of models from their scores [M, B] on the other benchmarks."""
        places = self.components.project(scores, models)
        missing = "no score on any of the benchmarks that the components are of"
        reasons = tuple(None if np.isfinite(p).all() else missing for p in places)
        return Predictions(self.link.predict(places), reasons)


def fit_observational(
    scores: Array,
    target: Array,
    *,
    n_components: int = N_COMPONENTS,
    models: Sequence[str] | None = None,
    benchmarks: Sequence[str] | None = None,
) -> Observational:
    """Components of held-in scores [M, B] and the sigmoid from them to the target [M].

    A model without target score still counts for the components.

    Args:
        n_components: at most so many; fewer where the table has fewer columns.
        models, benchmarks: names for messages.

    Raises:
        InputError: scores that are no fractions, shapes or names that do not fit.
        FitError: too few models, no column with spread, filling-in or sigmoid did not settle.
    """
    components = fit_components(scores, n_components=n_components, models=models, benchmarks=benchmarks)
    places = components.project(scores, models)
    known = target_scores(target, len(places), models)
    return Observational(components, fit_sigmoid(places, known))


def fit_components(
    scores: Array,
    *,
    n_components: int = N_COMPONENTS,
    models: Sequence[str] | None = None,
    benchmarks: Sequence[str] | None = None,
) -> Components:
    """Principal components of scores [M, B]; missing ones are filled in by iterated rank-1 approximation.

    Raises:
        InputError, FitError: as `fit_observational`.
    """
    if n_components < 1:
        raise InputError(f"n_components is {n_components}, expected 1 or more")
    table = score_table(scores, models, benchmarks)
    unusable = without_spread(table, benchmarks)
    columns = np.array([j for j in range(table.shape[1]) if j not in unusable], np.int64)
    if not len(columns):
        raise FitError(
            "no benchmark tells the models apart: " + ("; ".join(unusable.values()) or "no columns")
        )
    own = table[:, columns]
    own = own[np.isfinite(own).any(axis=1)]
    if len(own) < _MIN_MODELS:
        raise FitError(f"{len(own)} models with scores; components need at least {_MIN_MODELS}")
    middle, scale = np.nanmean(own, axis=0), np.nanstd(own, axis=0)
    filled = _filled_in((own - middle) / scale)
    centre = filled.mean(axis=0)
    _, sizes, rows = np.linalg.svd(filled - centre, full_matrices=False)
    k = min(n_components, int((sizes > 1e-7 * sizes[0]).sum()))  # beyond the rank there is only rounding
    loadings = rows[:k].T
    loadings = loadings * np.where(loadings.sum(axis=0) < 0, -1.0, 1.0)
    return Components(
        columns=columns,
        mean=middle + scale * centre,
        scale=scale,
        loadings=loadings,
        explained=sizes[:k] ** 2 / (sizes**2).sum(),
        left_out=tuple(unusable.values()),
        n_benchmarks=table.shape[1],
    )


def _filled_in(z: Array) -> Array:
    """A table without NaN: means and rank-1 approximation are refitted until the filled-in values settle."""
    missing = ~np.isfinite(z)
    filled = np.where(missing, 0.0, z)
    if not missing.any():
        return filled
    for _ in range(_MAX_ROUNDS):
        centre = filled.mean(axis=0)
        u, sizes, rows = np.linalg.svd(filled - centre, full_matrices=False)
        guess = centre + (u[:, :_FILL_RANK] * sizes[:_FILL_RANK]) @ rows[:_FILL_RANK]
        change = np.abs(guess - filled)[missing].max()
        filled = np.where(missing, guess, z)
        if change < _SETTLED:
            return filled
    raise FitError(
        f"filling in missing scores did not settle ({missing.mean():.0%} of the table is missing); leave out "
        "the models or benchmarks with the fewest scores"
    )
