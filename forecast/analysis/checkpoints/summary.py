"""Error against horizon over the tasks of a run (or of all runs), and skill against the best baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecast.analysis.checkpoints.methods import COMBINED, METHODS
from forecast.analysis.checkpoints.results import ForecastRow
from forecast.analysis.stats.curve_fitting import Array
from forecast.analysis.stats.figures import mean_known, number

ALL_RUNS = "all runs"
_DRAWS = 2000
_SEED = 0


@dataclass(frozen=True)
class SummaryRow:
    """One method at one horizon, over tasks with signal; the macro is not among them."""

    run: str
    method: str
    kind: str
    horizon: float
    n: int  # tasks (over all runs: pairs of run and task) on which every method has an error
    rmse: float  # mean over tasks of the RMSE
    error_at_horizon: float  # mean over tasks of |predicted - actual|
    covered: float | None  # share of all checkpoints after the window, up to the horizon, inside
    covered_at_horizon: float | None  # share of tasks whose checkpoint at the horizon is inside
    skill: float | None  # 1 - rmse / rmse of the best baseline; the baseline is selected post hoc
    skill_low: float | None
    skill_high: float | None
    best_baseline: str | None


def summarise(
    rows: Sequence[ForecastRow], tasks_of_macro: Sequence[str], confidence: float
) -> list[SummaryRow]:
    """Rows for every run, then for all runs together where there are several.

    Args:
        tasks_of_macro: names that are means over tasks, not tasks.

    The interval of a skill is a bootstrap over tasks (2,000 resamples, percentiles), with the best baseline
    selected in each resample. It covers the choice of tasks, not the choice of the run.
    """
    usable = [r for r in rows if r.signal and r.task not in tasks_of_macro and r.rmse is not None]
    runs = list(dict.fromkeys(r.run for r in usable))
    found = []
    for run in runs:
        found += _rows_of(run, [r for r in usable if r.run == run], confidence)
    if len(runs) > 1:
        found += _rows_of(ALL_RUNS, usable, confidence)
    return found


def _rows_of(name: str, rows: Sequence[ForecastRow], confidence: float) -> list[SummaryRow]:
    found = []
    for horizon in sorted({r.horizon for r in rows}):
        here = [r for r in rows if r.horizon == horizon]
        methods = [m for m in METHODS if any(r.method == m.name for r in here)]
        by_cell = {(r.run, r.task, r.method): r for r in here}
        every = sorted({(r.run, r.task) for r in here})
        cells = [cell for cell in every if all((*cell, m.name) in by_cell for m in methods)]
        if not cells:
            continue
        table = [[by_cell[(*cell, m.name)] for cell in cells] for m in methods]
        rmse, error, covered, at_end = (  # [methods, cells]
            np.array([[getattr(r, name) for r in own] for own in table], float)
            for name in ("rmse", "error", "covered", "covered_at_horizon")
        )
        baselines = [i for i, m in enumerate(methods) if m.kind == "baseline"]
        skill, low, high, best = _skills(rmse, baselines, confidence)
        means = (rmse.mean(axis=1), np.abs(error).mean(axis=1))
        shares = (mean_known(covered, axis=1), mean_known(at_end, axis=1))
        for i, m in enumerate(methods):
            found.append(
                SummaryRow(
                    name,
                    m.name,
                    m.kind,
                    horizon,
                    len(cells),
                    float(means[0][i]),
                    float(means[1][i]),
                    number(shares[0][i]),
                    number(shares[1][i]),
                    number(skill[i]),
                    number(low[i]),
                    number(high[i]),
                    None if best is None else methods[best].name,
                )
            )
    return found


def _skills(
    rmse: Array, baselines: Sequence[int], confidence: float
) -> tuple[Array, Array, Array, int | None]:
    """Skill of every method, percentiles over resamples of tasks: [methods] each, NaN where missing."""
    n_methods, n = rmse.shape
    nothing = np.full(n_methods, np.nan)
    if not baselines:
        return nothing, nothing, nothing, None
    mean = rmse.mean(axis=1)
    best = min(baselines, key=lambda i: mean[i])
    with np.errstate(divide="ignore", invalid="ignore"):
        skill = 1 - mean / mean[best]
        if n < 2:
            return skill, nothing, nothing, best
        picks = np.random.default_rng(_SEED).integers(n, size=(_DRAWS, n))
        drawn = rmse[:, picks].mean(axis=2)  # [methods, draws]
        skills = 1 - drawn / drawn[baselines].min(axis=0)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(skills, [tail, 1 - tail], axis=1)
    return skill, low, high, best


def verdicts(lines: Sequence[SummaryRow]) -> list[str]:
    """For every run and horizon, whether the combination was at least as good as the best single method."""
    found = []
    for run, horizon in dict.fromkeys((line.run, line.horizon) for line in lines):
        here = [line for line in lines if (line.run, line.horizon) == (run, horizon)]
        combined = next((line for line in here if line.method == COMBINED), None)
        single = [line for line in here if line.kind in ("baseline", "proxy")]
        if combined is None or not single:
            continue
        best = min(single, key=lambda line: line.rmse)
        word = "at least as good as" if combined.rmse <= best.rmse else "WORSE than"
        words = (
            f"{run}, {horizon:.3g}x: the combination ({combined.rmse:.4f}) is {word} the best single method, "
            f"selected post hoc ({best.method}, {best.rmse:.4f}; {combined.n} tasks)"
        )
        better = [line for line in here if line.kind == "member" and line.rmse < combined.rmse]
        if better:
            member = min(better, key=lambda line: line.rmse)
            words += f"; its member {member.method} alone has {member.rmse:.4f}"
        found.append(words)
    return found
