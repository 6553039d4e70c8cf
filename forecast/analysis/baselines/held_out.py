"""How well a benchmark is forecast from others, or from compute, for families that no fit has seen.

Every family is held out once, together with others in one of k folds. All methods are compared on the same
models: those that each of them has a prediction for. Predictions of all folds are ranked together; since
every fold's fit has an offset of its own, Spearman's rho errs on the low side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.baselines.matrix_completion import complete
from forecast.analysis.baselines.observational_scaling import fit_observational
from forecast.analysis.baselines.size import fit_size_law
from forecast.analysis.stats.rank_correlation import spearman
from forecast.errors import ConfigError, FitError, InputError
from forecast.inputs.published.observational_scaling import ScoreTable

Array = NDArray[np.float64]
N_FOLDS = 10
MEAN = "mean of held-in models"


@dataclass(frozen=True)
class HeldOutRow:
    """One method on one target benchmark; the figures are of models whose family was held out."""

    target: str
    method: str
    rmse: float | None  # score units; null where the method has no prediction
    spearman: (
        float | None
    )  # null where undefined, and for one figure that is the same for all held-out models
    n_models: int  # compared
    n_families: int
    n_missing: int  # models with a score of the target that are not compared, for want of some prediction
    reason: str | None  # why there are no figures


def held_out_table(
    table: ScoreTable,
    *,
    targets: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    folds: int = N_FOLDS,
    seed: int = 0,
) -> list[HeldOutRow]:
    """Forecast each target for held-out families by each method; targets in the table's order.

    On the published table (8 targets, 10 folds) 90 seconds of one core, nearly all for matrix completion,
    which hides cells anew for its ridge in every fold.

    Args:
        targets: benchmarks to be forecast, from all others; None: each in turn.
        methods: of `METHODS`; None: all. One that fits in no fold gets a row with its reason.

    Raises:
        ConfigError: an unknown target or method.
        InputError: fewer than two families.
    """
    wanted = list(table.benchmarks if targets is None else targets)
    chosen = list(METHODS if methods is None else methods)
    for names, known, what in ((wanted, table.benchmarks, "benchmark"), (chosen, tuple(METHODS), "method")):
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(f"unknown {what} {unknown[0]!r}; known: {', '.join(known)}")
    fold_of = family_folds(table.families, folds, seed)
    rows: list[HeldOutRow] = []
    for target in wanted:
        rows += _rows(table, target, chosen, fold_of)
    return rows


def family_folds(families: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """A fold [M] for every model, the same within a family, of about equal numbers of models.

    Large families are assigned first, each to the fold with the fewest models; `seed` orders families of one
    size. The order of the models does not matter.

    Raises:
        InputError: fewer than two families or folds.
    """
    names, counts = np.unique(np.array(families, dtype=str), return_counts=True)
    if len(names) < 2 or folds < 2:
        raise InputError(f"{len(names)} families in {folds} folds; holding out takes two of each at least")
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order], kind="stable")]
    filled = np.zeros(min(folds, len(names)), int)
    fold_of = {}
    for i in order:
        fold = int(filled.argmin())
        fold_of[names[i]] = fold
        filled[fold] += counts[i]
    return np.array([fold_of[family] for family in families])


def _rows(
    table: ScoreTable, target: str, methods: Sequence[str], fold_of: NDArray[np.int64]
) -> list[HeldOutRow]:
    truth = table.scores[:, table.benchmarks.index(target)]
    predicted, reasons = {}, {}
    for method in methods:
        values = np.full(len(truth), np.nan)
        failed = []
        for fold in range(fold_of.max() + 1):
            held_out = fold_of == fold
            try:
                values[held_out] = METHODS[method](table, target, held_out)
            except FitError as error:
                failed.append(str(error))
        if failed:
            # Folds without prediction would quietly change whom the figures are about.
            reasons[method] = f"no fit in {len(failed)} of {fold_of.max() + 1} folds: {failed[0]}"
        else:
            predicted[method] = values
    scored = np.isfinite(truth)
    common = np.logical_and.reduce([scored, *map(np.isfinite, predicted.values())])
    families = {family for family, use in zip(table.families, common, strict=True) if use}
    rows = []
    for method in methods:
        rmse = rho = None
        if method in predicted and common.any():
            own = predicted[method][common]
            rmse = float(np.sqrt(np.mean((own - truth[common]) ** 2)))
            # A fold's mean is low when its own models are good: over folds that makes a rho, and a false one.
            found = float(spearman(own, truth[common])) if method != MEAN else np.nan
            rho = found if np.isfinite(found) else None
        reason = reasons.get(method) or (None if common.any() else "no model has predictions of all methods")
        rows.append(
            HeldOutRow(
                target,
                method,
                rmse,
                rho,
                int(common.sum()),
                len(families),
                int((scored & ~common).sum()),
                reason,
            )
        )
    return rows


def _split(table: ScoreTable, target: str, held_out: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Scores on all other benchmarks [M, B - 1]; the target's [M], those of held-out models hidden."""
    place = table.benchmarks.index(target)
    return np.delete(table.scores, place, axis=1), np.where(held_out, np.nan, table.scores[:, place])


def _mean(table: ScoreTable, target: str, held_out: NDArray[np.bool_]) -> Array:
    _, known = _split(table, target, held_out)
    if not np.isfinite(known).any():
        raise FitError(f"no held-in model has a score of {target}")
    return np.full(int(held_out.sum()), np.nanmean(known))


def _by_size(what: str, sizes: Callable[[ScoreTable], Array]) -> Callable[..., Array]:
    def predict(table: ScoreTable, target: str, held_out: NDArray[np.bool_]) -> Array:
        _, known = _split(table, target, held_out)
        return fit_size_law(sizes(table), known, what=what).predict(sizes(table)[held_out]).values

    return predict


def _observational(n_components: int) -> Callable[..., Array]:
    def predict(table: ScoreTable, target: str, held_out: NDArray[np.bool_]) -> Array:
        others, known = _split(table, target, held_out)
        fit = fit_observational(others[~held_out], known[~held_out], n_components=n_components)
        return fit.predict(others[held_out]).values

    return predict


def _completion(table: ScoreTable, target: str, held_out: NDArray[np.bool_]) -> Array:
    others, known = _split(table, target, held_out)
    completed = complete(np.column_stack([others, known])).values
    return np.asarray(completed[held_out, -1])


# Each predicts the target's scores of the held-out models, and sees no score of theirs on the target.
METHODS: dict[str, Callable[[ScoreTable, str, NDArray[np.bool_]], Array]] = {
    MEAN: _mean,
    "parameters": _by_size("parameters", lambda table: table.parameters),
    "training FLOPs": _by_size("training FLOPs", lambda table: table.flops),
    "observational, 1 component": _observational(1),
    "observational, 3 components": _observational(3),
    "matrix completion, rank 2": _completion,
}
