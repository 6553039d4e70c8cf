"""Tables of runs: what is read, that order and units do not matter, and that every defect is named."""

from pathlib import Path

import numpy as np
import pytest
from analysis.checkpoints.simulated import World, cells, csv_of, run_of

from forecast.analysis.checkpoints.fit_window import window_of
from forecast.analysis.checkpoints.training_runs import Runs, read_runs
from forecast.errors import ConfigError, InputError

GOOD = [
    ("a", 1000, 10, "t", "acc", 0.3),
    ("a", 2000, 20, "t", "acc", 0.4),
    ("a", 1000, 10, "t", "bpb", 1.3),
    ("a", 2000, 20, "t", "bpb", 1.2),
]


def read(folder: Path, rows: list[tuple[object, ...]], axis: str | None = None) -> Runs:
    path = folder / "runs.csv"
    path.write_text(csv_of(rows))
    return read_runs(str(path), ("acc",), axis)


def test_a_table_is_read_in_order_of_steps(tmp_path: Path) -> None:
    (run,) = read(tmp_path, GOOD[::-1]).runs
    assert run.axis == "tokens"
    assert list(run.metrics) == ["acc", "bpb"]
    series = run.of("acc")["t"]
    np.testing.assert_array_equal(series.step, [1000, 2000])
    np.testing.assert_array_equal(series.t, [10, 20])
    np.testing.assert_array_equal(series.value, [0.3, 0.4])


def test_steps_that_differ_in_the_last_of_many_digits_are_two_checkpoints(tmp_path: Path) -> None:
    rows = [("a", 12345678 + i, 10 + i, "t", "acc", 0.3) for i in range(2)]
    (run,) = read(tmp_path, rows).runs
    np.testing.assert_array_equal(run.of("acc")["t"].step, [12345678, 12345679])


def test_tokens_and_task_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("run,step,metric,value\na,1,acc,0.1\na,2,acc,0.2\n")
    (run,) = read_runs(str(path)).runs
    assert (run.axis, list(run.of("acc"))) == ("steps", ["all"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ("a", 2000, 20, "t", "acc", 0.5),
            r":6: a second row for a / step 2000 / t / acc, the first is at .*:3",
        ),
        (
            ("a", 3000, 15, "t", "acc", 0.5),
            r":6: tokens do not rise with the steps .* 15 at step 3000, 20 at",
        ),
        (("a", 2000, 21, "u", "acc", 0.5), "has (20|21) tokens here and (20|21) at"),
        (("a", 3000, 30, "t", "acc", "nan"), "'value' is nan, expected a finite number"),
        (("a", 3000, 30, "t", "acc", ""), "'value' is empty, expected a finite number"),
        (("a", 3000, 30, "t", "acc", 1.2), "acc 1.2, expected an accuracy within 0..1; as a share, not in"),
        (("a", 3000, 30, "t", "acc", -0.1), "acc -0.1, expected an accuracy within 0..1"),
        (("a", -1, 30, "t", "acc", 0.1), "step -1, expected 0 or more"),
        (("a", "x", 30, "t", "acc", 0.1), "'step': 'x' is not a number"),
        (("", 3000, 30, "t", "acc", 0.1), "'run' is empty; every row needs one"),
    ],
)
def test_defects_are_named_with_their_line(tmp_path: Path, row: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, [*GOOD, row])


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("run,steps,metric,value\na,1,acc,0.1\n")
    with pytest.raises(InputError, match=r"no column 'step'.*did you mean 'steps'"):
        read_runs(str(path))


def test_an_axis_needs_its_column(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--axis flops needs a number in column 'flops'"):
        read(tmp_path, GOOD, "flops")
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        read(tmp_path, GOOD, "step")


def test_window_holds_no_checkpoint_after_its_end() -> None:
    rows = cells(0, World(n_tasks=2))
    window = window_of(run_of(rows), "accuracy", ["bits_per_byte"], "cross_entropy", 7400)
    assert (window.t_end, window.step_end) == (7000 * 4_194_304, 7000)
    assert list(window.targets) == ["task0", "task1"]
    assert list(window.loss) == ["books", "web"]
    for points in [
        *window.targets.values(),
        *window.proxies["bits_per_byte"].values(),
        *window.loss.values(),
    ]:
        np.testing.assert_allclose(points.u, np.arange(1, 8) / 7)
    earlier = window.until(4 / 7)
    np.testing.assert_allclose(earlier.targets["task0"].u, np.arange(1, 5) / 4)
    np.testing.assert_array_equal(earlier.targets["task0"].y, window.targets["task0"].y[:4])


def test_a_proxy_of_one_text_for_all_serves_every_task() -> None:
    rows = [row for row in cells(0, World(n_tasks=3)) if row[4] != "bits_per_byte"]
    window = window_of(run_of(rows), "accuracy", ["cross_entropy"], None, 10_000)
    shared = window.proxies["cross_entropy"]
    assert set(shared) == {"task0", "task1", "task2"}
    values = {row[3]: row[5] for row in rows if row[4] == "cross_entropy" and row[1] == 10_000}
    assert shared["task0"].y[-1] == pytest.approx((values["web"] + values["books"]) / 2)
