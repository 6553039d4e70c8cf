"""The forecast of a run: recovery, no look-ahead, units, combination, intervals, breaks, decisions."""

from dataclasses import replace

import numpy as np
import pytest
from analysis.checkpoints.signal_simulations import autoregression, even_in_log, passing
from analysis.checkpoints.simulated import Cell, World, cells, run_of

from forecast.analysis.checkpoints.conformal import Errors, scales_of
from forecast.analysis.checkpoints.ensemble import combine
from forecast.analysis.checkpoints.fit_window import Points
from forecast.analysis.checkpoints.forecast_run import (
    COMBINED_KEY,
    MACRO,
    CheckpointsOptions,
    RunForecast,
    forecast_run,
)
from forecast.analysis.checkpoints.lr_breaks import bend
from forecast.analysis.checkpoints.methods import Key
from forecast.analysis.checkpoints.noise import no_signal, noise, smooth
from forecast.analysis.checkpoints.results import ForecastRow, rows_of
from forecast.analysis.checkpoints.run_decisions import decide
from forecast.analysis.checkpoints.summary import summarise

OPTIONS = CheckpointsOptions(
    "accuracy", ("bits_per_byte",), 10_000, "cross_entropy", horizons=(2.0, 4.0, 8.0)
)


def forecast(
    rows: list[Cell], options: CheckpointsOptions = OPTIONS
) -> tuple[RunForecast, list[ForecastRow]]:
    run = run_of(rows)
    found = forecast_run(run, options)
    return found, rows_of(run, found, options)


def predictions(rows: list[ForecastRow]) -> dict[tuple[str, str, float], tuple[object, ...]]:
    return {(r.task, r.method, r.horizon): (r.predicted, r.lower, r.upper, r.validation_rmse) for r in rows}


def test_a_simulated_run_is_forecast_to_within_its_noise() -> None:
    """Accuracies are logistic in the proxy, the proxy a power law: the truth is within the models."""
    found, rows = forecast(cells(3, World(n_tasks=4, noise=0.001)))
    for row in rows:
        if row.method in ("combined", "averaged_proxy", "proxy_logistic") and row.task != MACRO:
            assert row.rmse is not None
            assert row.rmse < 0.06, (row.task, row.method, row.horizon)
    far = {r.method: r.rmse for r in rows if r.task == MACRO and r.horizon == 8.0}
    assert far["combined"] < 0.25 * far["last_value"]
    assert found.combination.proxy == "bits_per_byte"


def test_forecasts_do_not_change_when_later_checkpoints_are_cut_off() -> None:
    rows = cells(1, World(n_tasks=3, flat=1))
    _, whole = forecast(rows)
    _, cut = forecast([row for row in rows if row[1] <= 10_000])
    assert predictions(whole) == predictions(cut)
    assert all(row.actual is None and row.rmse is None and row.reason for row in cut)


def test_forecasts_do_not_change_when_later_checkpoints_differ() -> None:
    rows = cells(1, World(n_tasks=3))
    other = [
        (*row[:5], 1 - row[5] if row[4] == "accuracy" else 9.0) if row[1] > 10_000 else row for row in rows
    ]
    assert predictions(forecast(rows)[1]) == predictions(forecast(other)[1])


def test_neither_the_order_of_rows_nor_the_unit_of_t_matters() -> None:
    rows = cells(2, World(n_tasks=2))
    _, first = forecast(rows)
    order = np.random.default_rng(0).permutation(len(rows))
    _, shuffled = forecast([rows[i] for i in order])
    assert predictions(first) == predictions(shuffled)
    _, tokens = forecast([(*row[:2], row[1] * 3_145_731, *row[3:]) for row in rows])
    for key, numbers in predictions(first).items():
        assert predictions(tokens)[key] == pytest.approx(numbers, abs=1e-5), key


def test_a_task_at_chance_is_forecast_by_its_level_and_left_out_of_the_macro() -> None:
    found, rows = forecast(cells(4, World(n_tasks=3, flat=2)))
    flat = [row for row in rows if row.task == "flat0" and row.method == "combined"]
    assert all(not row.signal and row.predicted == pytest.approx(0.25, abs=0.02) for row in flat)
    assert found.tasks["flat0"].left_out is not None
    assert all(
        (row.lower, row.upper) == (None, None) and "no change beyond noise" in str(row.note) for row in flat
    )
    macro = next(r for r in rows if r.task == MACRO and r.method == "combined" and r.horizon == 4.0)
    parts = [
        r.predicted
        for r in rows
        if r.task.startswith("task") and r.method == "combined" and r.horizon == 4.0 and r.signal
    ]
    assert macro.predicted == pytest.approx(np.mean([p for p in parts if p is not None]))


def test_no_forecast_lies_below_chance_where_it_is_known() -> None:
    """Tasks that fall: without a floor their forecasts go on falling."""
    falling = [
        (*row[:-1], 1.2 - row[-1]) if row[4] == "accuracy" else row for row in cells(5, World(n_tasks=3))
    ]
    _, free = forecast(falling)
    tasks = [row.task for row in free if row.task.startswith("task")]
    _, rows = forecast(falling, replace(OPTIONS, floor=dict.fromkeys(tasks, 0.5)))

    def lowest(of: list[ForecastRow]) -> float:
        return min(row.predicted for row in of if row.kind != "reference" and row.predicted is not None)

    assert lowest(free) < 0.5 == lowest(rows)
    for row, bare in zip(rows, free, strict=True):
        assert row.predicted == bare.predicted or row.predicted == 0.5 or row.task == MACRO


def test_all_stays_within_an_accuracys_range() -> None:
    _, rows = forecast(cells(5, World(n_tasks=3, noise=0.03, start=3.0)))
    for row in rows:
        for value in (row.predicted, row.lower, row.upper):
            assert value is None or 0 <= value <= 1


def test_a_method_without_its_series_is_a_null_with_a_reason() -> None:
    rows = [
        r
        for r in cells(0, World(n_tasks=2))
        if r[4] != "cross_entropy" and r[3:5] != ("task1", "bits_per_byte")
    ]
    _, found = forecast(rows)
    by = {(r.task, r.method): r for r in found if r.horizon == 2.0}
    assert by["task0", "cross_entropy_linear"].predicted is None
    assert by["task0", "cross_entropy_linear"].reason == "no cross-entropy of generic texts"
    assert by["task1", "proxy_linear"].reason == "no bits_per_byte for this task in the window"
    assert by["task0", "proxy_linear"].predicted is not None
    assert by["task1", "combined"].predicted is not None


def test_too_few_checkpoints_are_reported_per_task() -> None:
    rows = cells(0, World(n_tasks=2))
    found, _ = forecast(rows, replace(OPTIONS, fit_until=4500))
    assert found.failed == {
        f"task{k}": "4 checkpoints with accuracy up to step 4500 (step 0 not counted), 5 are needed"
        for k in (0, 1)
    }
    late = [r for r in rows if r[3] != "task1" or r[1] > 10_000]
    found, shown = forecast(late)
    assert list(found.failed) == ["task1"]
    assert {r.task for r in shown if r.predicted is not None} == {"task0"}
    assert {r.reason for r in shown if r.task == "task1"} == {found.failed["task1"]}


def test_weights_prefer_members_with_low_errors_inside_the_window() -> None:
    found, _ = forecast(cells(6, World(n_tasks=5, noise=0.002)))
    weights = found.combination.weights
    assert sum(weights.values()) == pytest.approx(1)
    errors = found.combination.errors
    best, worst = min(weights, key=lambda k: errors[k]), max(weights, key=lambda k: errors[k])
    assert weights[best] > weights[worst]
    assert combine((), list(weights), ["task0"]).weights[Key("recent_line")] == pytest.approx(0.5 / 7.5)


def test_among_proxies_rolling_origins_choose() -> None:
    """The second proxy is noise about a constant: nothing can be forecast through it."""
    rows = cells(7, World(n_tasks=4, noise=0.003))
    rng = np.random.default_rng(0)
    useless = [(*r[:4], "aaa_useless", float(rng.normal())) for r in rows if r[4] == "bits_per_byte"]
    found, _ = forecast([*rows, *useless], replace(OPTIONS, proxies=("aaa_useless", "bits_per_byte")))
    assert found.combination.proxy == "bits_per_byte"


def test_the_combination_is_at_least_as_good_as_the_best_single_method_on_average() -> None:
    """Over runs that nothing was tuned on; the best single method is selected post hoc over all of them."""
    errors: dict[str, list[float]] = {}
    for seed in range(900, 905):
        world = World(n_tasks=3, noise=0.01, exponent=float(np.random.default_rng(seed).uniform(0.15, 0.5)))
        for row in forecast(cells(seed, world))[1]:
            if row.kind in ("baseline", "proxy", "combined") and row.horizon == 8.0 and row.signal:
                assert row.rmse is not None
                errors.setdefault(row.method, []).append(row.rmse)
    means = {method: float(np.mean(found)) for method, found in errors.items()}
    assert means["combined"] <= min(value for method, value in means.items() if method != "combined")


def test_intervals_cover_at_their_rate_and_grow_with_the_horizon() -> None:
    """Nominal 90 %: between 85 and 100 % of later checkpoints over 6 runs."""
    inside: dict[float, list[float]] = {}
    for seed in range(300, 306):
        found, rows = forecast(cells(seed, World(n_tasks=3, noise=0.01)))
        for row in rows:
            if row.method == "combined" and row.signal and row.covered is not None:
                inside.setdefault(row.horizon, []).append(row.covered)
        for scale in found.tasks["task0"].scales.values():
            widths = scale.half_width(np.array([1.0, 2.0, 4.0, 18.0]), np.zeros(4))
            assert (np.diff(widths) >= 0).all()
    for horizon, shares in inside.items():
        assert 0.85 <= np.mean(shares) <= 1.0, (horizon, np.mean(shares))


def test_scales_are_conformal_where_errors_follow_them() -> None:
    rng = np.random.default_rng(0)
    horizon = np.exp(rng.uniform(0.1, 1.0, 400))
    error = rng.standard_normal(400) * np.sqrt(0.01**2 + (0.03 * np.log(horizon)) ** 2)
    scale = scales_of({"t": Errors(horizon, error, np.zeros(400))}, {"t": 0.01}, 0.9, ["t"])["t"]
    assert scale.drift == pytest.approx(0.03, rel=0.2)
    far = np.array([18.0])
    truth = 1.645 * np.sqrt(0.01**2 + (0.03 * np.log(18.0)) ** 2)
    assert scale.half_width(far, np.zeros(1))[0] == pytest.approx(truth, rel=0.2)


def test_noise_is_estimated_from_neighbours_and_separated_from_signal() -> None:
    rng = np.random.default_rng(1)
    u = np.arange(1, 201) / 200
    y = 0.7 - 0.1 * u**-0.3
    assert noise(Points(u, y + 0.02 * rng.standard_normal(200))) == pytest.approx(0.02, rel=0.15)
    assert noise(Points(u[:2], y[:2])) is None
    few = np.arange(1, 11) / 10
    assert no_signal(Points(few, 0.25 + 0.1 * few)) is None
    assert no_signal(Points(few, 0.75 - 0.1 * few)) is None
    flat = [no_signal(Points(few, 0.25 + 0.02 * rng.standard_normal(10))) is None for _ in range(400)]
    assert np.mean(flat) < 0.03
    assert no_signal(Points(few, 0.5 + 0.005 * np.array([1, -1] * 5)), chance=0.25) is None
    smoothed = smooth(Points(u, y + 0.02 * rng.standard_normal(200))).y
    assert np.sqrt(np.mean((smoothed - y)[20:] ** 2)) < 0.01


@pytest.mark.parametrize("n", [14, 30])
@pytest.mark.parametrize("chance", [None, 0.25])
def test_correlated_noise_is_no_signal_and_a_clear_rise_is(n: int, chance: float | None) -> None:
    """Autocorrelation 0.8; other seeds, spacings and sizes than those of the critical values."""
    assert passing(n, 0.8, 150, 11, chance=chance) <= 0.04
    u = even_in_log(n)
    rng = np.random.default_rng(3)
    risen = [
        no_signal(Points(u, 0.25 + 0.2 * u**0.3 + 0.003 * autoregression(rng, 0.5, n)), chance) is None
        for _ in range(50)
    ]
    assert np.mean(risen) > 0.9


def test_coverage_is_reported_at_the_horizon_and_up_to_it() -> None:
    _, rows = forecast(cells(3, World(n_tasks=3)))
    compared = [row for row in rows if row.method == "combined" and row.signal and row.covered is not None]
    assert compared
    for row in compared:
        assert row.lower is not None and row.actual is not None and row.upper is not None
        if row.actual_step == row.step:
            assert row.covered_at_horizon == float(row.lower <= row.actual <= row.upper)
        assert row.covered_at_horizon in (0.0, 1.0)
    tasks = [row for row in compared if row.task != MACRO and row.horizon == 8.0]
    (line,) = (
        line for line in summarise(rows, [MACRO], 0.9) if (line.method, line.horizon) == ("combined", 8.0)
    )
    assert line.covered_at_horizon == pytest.approx(np.mean([row.covered_at_horizon for row in tasks]))
    assert line.covered == pytest.approx(np.mean([row.covered for row in tasks]))


def test_unknown_break_is_suspected_and_known_one_limits_the_fit() -> None:
    rng = np.random.default_rng(2)
    u = np.arange(1, 21) / 20
    plain = 2 + 0.5 * u**-0.3 + 0.003 * rng.standard_normal(20)
    annealed = plain - 0.06 * np.maximum(u - 0.7, 0) / 0.3
    assert bend(Points(u, plain)) is None
    found = bend(Points(u, annealed))
    assert found is not None
    assert 0.55 <= found <= 0.85
    rows = cells(8, World(n_tasks=2, n_window=12))
    since = replace(OPTIONS, fit_until=12_000, breaks=(6000.0, 40_000.0))
    run = run_of(rows)
    apart = forecast_run(run, since)
    assert len(apart.tasks["task0"].points.u) == 7  # steps 6000 to 12000
    without = forecast_run(run_of([row for row in rows if row[1] >= 6000]), replace(since, breaks=()))
    at = np.array([4.0])
    assert apart.tasks["task0"].fits[COMBINED_KEY].forecast(at) == without.tasks["task0"].fits[
        COMBINED_KEY
    ].forecast(at)
    compared = [r for r in rows_of(run, apart, since) if r.actual_step is not None]
    assert compared
    assert max(r.actual_step for r in compared) < 40_000
    far = next(r for r in rows_of(run, apart, since) if r.horizon == 8.0 and r.predicted is not None)
    assert far.rmse is None
    assert "the schedule breaks at step 40000" in str(far.reason)


def test_decisions_between_a_better_and_a_worse_run() -> None:
    good, bad = (
        forecast(cells(11, World(n_tasks=2, noise=0.003, start=s), run=name))[0]
        for name, s in (("good", 1.0), ("bad", -1.0))
    )
    decisions = decide([good, bad], OPTIONS)
    (duel,) = decisions.duels
    assert (duel.first, duel.second) == ("good", "bad")
    assert duel.probability > 0.95
    assert duel.sure_since is not None
    assert duel.sure_since <= 10_000
    turned = decide([bad, good], OPTIONS).duels[0]
    assert turned.probability == pytest.approx(1 - duel.probability)
    assert turned.sure_since == duel.sure_since
    stop = decisions.stops[0]
    assert stop.gain > 0
    assert decide([good], replace(OPTIONS, min_gain=0.9)).stops[0].stop_at == pytest.approx(10_000)
    assert decisions.keeps[0].step >= 8000  # the curve rises: the last ones are best


def test_sure_since_uses_no_later_checkpoint() -> None:
    rows = {name: cells(11, World(n_tasks=2, start=s), run=name) for name, s in (("x", 0.6), ("y", -0.6))}
    shorter = replace(OPTIONS, fit_until=8000.0, horizons=(10.0,))
    longer = replace(OPTIONS, fit_until=10_000.0, horizons=(8.0,))
    early = decide([forecast(own, shorter)[0] for own in rows.values()], shorter).duels[0]
    late = decide([forecast(own, longer)[0] for own in rows.values()], longer).duels[0]
    assert early.t == late.t
    if early.sure_since is not None and late.sure_since is not None and late.sure_since <= 8000:
        assert early.sure_since == late.sure_since
