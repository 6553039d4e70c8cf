"""Checkpoints against the best before them, with the noise of the texts."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecast.nightly.best_so_far import Series, best_of, compare, is_spike
from forecast.nightly.records import ALL_TASKS, Comparison

DATA = Path(__file__).parents[2] / "configs" / "data"


def along(*values: float, error: float = 0.001) -> tuple[Comparison, ...]:
    steps = {1000 * (i + 1): value for i, value in enumerate(values)}
    return compare("r", "m", {"t": Series(-1, steps, errors=dict.fromkeys(steps, error))})


def test_each_is_compared_with_the_best_before_it_and_not_with_its_neighbour() -> None:
    row = along(5.0, 4.36, 5.92, 5.71, 4.2)
    assert [(c.verdict, c.best_step) for c in row] == [
        ("first", None),
        ("better", 1000),
        ("worse", 2000),
        ("worse", 2000),
        ("better", 2000),
    ]
    assert row[3].change == pytest.approx(5.71 - 4.36)
    assert best_of(row, -1).step == 5000
    assert best_of(along(2.0, 2.0), -1).step == 1000, "of equal ones the first"


def test_a_change_within_noise_is_no_difference() -> None:
    assert along(2.0, 2.01, error=0.02)[1].verdict == "no different"
    assert along(2.0, 1.99, error=0.02)[1].verdict == "no different"
    assert along(2.0, 2.0 + 1e-12, error=0.0)[1].verdict == "no different", "rounding"
    assert along(2.0, 2.01, error=0.0)[1].verdict == "worse"


def test_paired_instances_give_students_interval_of_their_differences() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(3, 2, size=12)  # texts differ far more than checkpoints do
    change = rng.normal(0.1, 0.05, size=12)
    means = {1: float(hard.mean()), 2: float((hard + change).mean())}
    paired = {(2, 1): (12, float(change.std(ddof=1)))}
    found = compare("r", "m", {"t": Series(-1, means, paired)})[1]
    half = 2.200985 * change.std(ddof=1) / np.sqrt(12)  # t at 11 degrees of freedom
    assert (found.low, found.high) == pytest.approx((change.mean() - half, change.mean() + half))
    assert (found.verdict, found.instances, found.reason) == ("worse", 12, None)


def test_without_noise_that_is_known_there_is_no_interval_and_no_verdict_but_a_reason() -> None:
    for paired in ({(2, 1): (1, 0.0)}, {}):
        found = compare("r", "m", {"t": Series(-1, {1: 1.0, 2: 2.0}, paired)})[1]
        assert (found.low, found.high, found.verdict) == (None, None, None)
        assert found.reason


def test_all_tasks_are_the_mean_of_those_that_every_checkpoint_has() -> None:
    full = Series(1, {1: 0.2, 2: 0.4}, errors={1: 0.03, 2: 0.04})
    also = Series(1, {1: 0.4, 2: 0.4}, errors={1: 0.03, 2: 0.04})
    late = Series(1, {2: 0.9}, errors={2: 0.1})
    found = compare("r", "m", {"a": full, "b": also, "late": late})
    overall = [c for c in found if c.overall]
    assert [(c.task, c.step, round(c.value, 9)) for c in overall] == [
        (ALL_TASKS, 1, 0.3),
        (ALL_TASKS, 2, 0.4),
    ]
    assert overall[1].high is not None and overall[1].change is not None
    assert overall[1].high - overall[1].change == pytest.approx(1.959964 * 0.05 / np.sqrt(2))
    assert {c.task for c in found if not c.overall} == {"a", "b", "late"}
    none = compare("r", "m", {"a": Series(1, {1: 0.2}), "b": Series(1, {2: 0.2})})
    assert not any(c.overall for c in none)


def test_intervals_hold_where_instances_are_normal() -> None:
    """Of two checkpoints that do not differ: 95 % of the intervals hold 0, for two tasks as for one."""
    rng = np.random.default_rng(1)
    for tasks in (1, 2):
        held = 0
        for _ in range(1000):
            by_task = {}
            for task in range(tasks):
                rows = rng.normal(size=(2, 5 + 3 * task))
                by_task[str(task)] = Series(
                    -1,
                    {1: float(rows[0].mean()), 2: float(rows[1].mean())},
                    {(2, 1): (rows.shape[1], float((rows[1] - rows[0]).std(ddof=1)))},
                )
            found = [c for c in compare("r", "m", by_task) if c.overall][1]
            held += found.verdict == "no different"
        assert 0.93 < held / 1000 < 0.97


@pytest.mark.parametrize("checkpoints", [5, 20])
def test_on_a_plateau_the_luckiest_before_makes_the_newest_worse_no_more_often_than_nominal(
    checkpoints: int,
) -> None:
    rng = np.random.default_rng(2)
    worse = better = 0
    for _ in range(400):
        texts = rng.normal(size=(checkpoints, 32))
        means = texts.mean(axis=1)
        sd = {
            (now + 1, then + 1): (32, float((texts[now] - texts[then]).std(ddof=1)))
            for now in range(checkpoints)
            for then in range(now)
        }
        newest = compare("r", "m", {"t": Series(-1, dict(enumerate(means.tolist(), 1)), sd)})[-1]
        worse += newest.verdict == "worse"
        better += newest.verdict == "better"
    assert worse <= 0.045 * 400 and better <= 0.02 * 400


def test_a_setback_as_large_as_usual_is_no_spike() -> None:
    calm = along(2.0, 1.9, 1.8, 1.7, 1.9)
    assert [is_spike(calm, i, -1, 0.05) for i in range(5)] == [False] * 4 + [True]
    rough = along(2.0, 2.2, 1.9, 2.1, 1.8, 2.0, 1.7, 1.9)  # back and forth by a tenth
    assert not is_spike(rough, 7, -1, 0.05)
    assert is_spike(along(2.0, 2.2, 1.9, 2.1, 1.8, 2.0, 1.7, 3.0), 7, -1, 0.05)
    noisy = along(2.0, 1.9, 1.8, 1.7, 1.9, error=0.5)
    assert not is_spike(noisy, 4, -1, 0.05), "within noise"


def test_healthy_runs_of_five_tasks_have_no_spike_and_those_of_one_have_few() -> None:
    """OLMo-2 7B, 185 checkpoints; these counts stand in docs/guides/nightly.md."""
    frame = pl.read_csv(DATA / "olmo2_7b_evals.csv", infer_schema_length=None).sort("_step")

    def count(columns: list[str]) -> int:
        values = frame.select(columns).to_numpy()
        mean = values[np.isfinite(values).all(axis=1)].mean(axis=1)
        row = along(*mean, error=0.0)
        found = [is_spike(row, i, -1, 0.05) for i in range(len(row))]
        return sum(now and not before for now, before in zip(found, [False, *found], strict=False))

    bits = [name for name in frame.columns if name.endswith("_bpb")]
    losses = [name for name in frame.columns if name.endswith("CrossEntropyLoss")]
    assert (len(bits), len(losses)) == (20, 11)
    assert [count(bits[i : i + 5]) for i in range(0, 20, 5)] == [0, 0, 0, 0]
    assert count(losses) == 0
    assert sum(count([name]) for name in losses) == 2
    assert sum(count([name]) for name in bits) == 8
