from dataclasses import replace

import numpy as np
import pytest
from nights import DAYS, FINAL, end

from forecast.nightly.forecast_drop import Dated, fall_of


def history(*forecasts: tuple[float, int]) -> list[Dated]:
    """(forecast, seen until) of each night, with intervals of 0.05 to both sides."""
    return [(DAYS[i], end(value, seen)) for i, (value, seen) in enumerate(forecasts)]


def test_too_little_to_compare() -> None:
    assert fall_of([]) is None
    assert fall_of(history((0.6, 1000))) is None
    # The same checkpoints on two nights are one forecast.
    assert fall_of(history((0.6, 1000), (0.2, 1000))) is None


def test_the_sudden_fall_is_named_before_the_slow_one() -> None:
    fall = fall_of(history((0.60, 4000), (0.59, 7000), (0.50, 8000)))
    assert fall is not None and fall.reference[1].fit_until == 7000
    fall = fall_of(history((0.60, 4000), (0.555, 7000), (0.53, 8000)))
    assert fall is not None and fall.reference[1].fit_until == 4000


def test_half_of_the_training_is_half_or_less() -> None:
    assert fall_of(history((0.60, 4001), (0.54, 7000), (0.50, 8000))) is None
    # Of those that had seen half or less, the newest.
    found = fall_of(history((0.60, 1000), (0.55, 4000), (0.545, 7000), (0.51, 8000)))
    assert found is None


def test_the_night_that_saw_it_first() -> None:
    fall = fall_of(history((0.60, 4000), (0.50, 5000), (0.49, 5000), (0.48, 5000)))
    assert fall is not None and fall.first[0] == DAYS[1] and fall.reference[0] == DAYS[0]


def test_nights_on_the_same_checkpoints_count_with_the_last_numbers() -> None:
    assert fall_of(history((0.60, 4000), (0.50, 4000), (0.46, 5000))) is None
    assert fall_of(history((0.50, 4000), (0.60, 4000), (0.46, 5000))) is not None


def test_training_that_is_taken_up_again_at_an_earlier_step() -> None:
    assert fall_of(history((0.60, 9000), (0.50, 4000))) is not None
    assert fall_of(history((0.60, 9000), (0.60, 4000))) is None


@pytest.mark.parametrize(("checkpoints", "rate"), [(10, 0.062), (30, 0.096)])
def test_false_alarms_are_as_rare_as_the_module_says(checkpoints: int, rate: float) -> None:
    """Forecasts of a random walk's end, with 90% intervals that are right."""
    rng = np.random.default_rng(5)
    seen = np.arange(1, checkpoints)
    half = 1.6449 * np.sqrt(1 - seen / checkpoints)
    alarms, trainings = 0, 1500
    for _ in range(trainings):
        walk = np.cumsum(rng.normal(size=checkpoints - 1)) / np.sqrt(checkpoints)
        nights = [
            (f"{i}", end(float(value), int(step) * FINAL // checkpoints, half=float(width)))
            for i, (value, step, width) in enumerate(zip(walk, seen, half, strict=True))
        ]
        alarms += any(fall_of(nights[: i + 1]) for i in range(len(nights)))
    three_standard_errors = 3 * (rate * (1 - rate) / trainings) ** 0.5
    assert alarms / trainings == pytest.approx(rate, abs=three_standard_errors)


def test_a_forecast_without_an_interval_is_nothing_to_fall_below() -> None:
    level = end(0.6, 4000, low=None, high=None, reason="no change beyond noise")
    assert fall_of([(DAYS[0], level), (DAYS[1], end(0.2, 5000))]) is None
    fallen = fall_of([(DAYS[0], end(0.6, 4000)), (DAYS[1], replace(level, forecast=0.2, fit_until=5000))])
    assert fallen is not None and fallen.reference[1].forecast == 0.6
