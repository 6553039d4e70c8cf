"""Where a training run is going, by its first checkpoints."""

import math
from typing import TYPE_CHECKING

from forecast.api.arguments import (
    ByName,
    Names,
    Numbers,
    OnProgress,
    TableSource,
    by_name,
    check_ranges,
    names,
    numbers,
)
from forecast.api.run import Run
from forecast.errors import ConfigError

if TYPE_CHECKING:  # half a second to import; every function imports what it needs
    from forecast.analysis.checkpoints.forecast import CheckpointsResult


def forecast_checkpoints(
    source: Run | TableSource,
    *,
    proxy: Names = (),
    target: str | None = None,
    fit_until: float | None = None,
    horizon: Numbers = (),
    cross_entropy: str | None = None,
    chance: ByName = (),
    axis: str | None = None,
    break_: Numbers = (),
    confidence: float = 0.9,
    min_gain: float = 0.01,
    on_progress: OnProgress | None = None,
) -> "CheckpointsResult":
    """Forecast training runs from their first checkpoints.

    Args:
        source: a run whose candidates have a `step`; or a table with columns run, step, tokens, task, metric,
            value.
        proxy: metrics to forecast through; with several, rolling origins choose. (): of a run
            cross_entropy__uniform, of a table none.
        target: the metric to forecast, an accuracy within 0..1. None: a run's most frequent measured score.
        fit_until: last step that may be looked at; None: the last there is.
        horizon: in lengths of the window; (): 2, 4, 8 and 18; of a watched run with a `final_step` those
            before it, and that.
        cross_entropy: `METRIC` or `METRIC:TASK` of generic texts, for the two-step baselines.
        chance: chance level by task, 0 to below 1, of fits and forecasts. Forecasts of a run's direct
            evaluation are never below guessing.
        axis: what t counts: steps, tokens or flops; None: tokens where all rows have them.
        break_: steps at which the learning-rate schedule breaks.
        min_gain: smallest gain in accuracy that makes continuing a run worth it.

    Raises:
        ConfigError: an argument is out of range; a table without a target.
        InputError: the table is wrong, or no run has a metric.
        NoDataError: no run has enough checkpoints up to `fit_until`.
    """
    check_ranges(fit_until=fit_until, confidence=confidence, min_gain=min_gain)
    horizons, proxies = numbers("--horizon", horizon), names(proxy)
    if bad := [h for h in horizons if not 1 < h < math.inf]:
        raise ConfigError(f"--horizon {bad[0]:g}: expected more than 1, in lengths of the window")
    floor: dict[str, float] = {}
    expected = "TASK=P with P from 0 to below 1, e.g. arc_easy=0.25"
    levels = by_name("--chance", chance, expected, lambda p: 0 <= p < 1)
    from forecast.analysis.checkpoints import forecast
    from forecast.analysis.checkpoints.forecast_run import CheckpointsOptions

    if isinstance(source, Run):
        from forecast.analysis.checkpoints.runs_from_run import chance_levels, runs_of

        with source.warehouse() as db:
            runs, target = runs_of(db, target, axis)
            floor = chance_levels(db, target)
        proxies = proxies or ("cross_entropy__uniform",)
    elif target is None:
        raise ConfigError("--table needs --target METRIC, the accuracy to forecast")
    else:
        from forecast.analysis.checkpoints.training_runs import read_runs
        from forecast.inputs.frames import file_of

        with file_of(source) as path:
            runs = read_runs(path, (target,), axis)
    metric, _, task = (cross_entropy or "").partition(":")
    until = runs.last_step if fit_until is None else fit_until
    if not horizons:
        horizons = CheckpointsOptions.horizons
        if isinstance(source, Run) and source.config.nightly is not None:
            from forecast.nightly.results import horizons_to_the_end

            horizons = horizons_to_the_end(source.config.nightly.watch, runs, target, until, horizons)
    options = CheckpointsOptions(
        target=target,
        proxies=proxies,
        fit_until=until,
        loss=metric or None,
        loss_task=task or None,
        horizons=horizons,
        chance=levels,
        floor=floor,
        breaks=numbers("--break", break_),
        confidence=confidence,
        min_gain=min_gain,
    )
    return forecast.forecast_checkpoints(runs, options, on_cost=on_progress)
