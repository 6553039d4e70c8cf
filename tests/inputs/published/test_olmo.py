"""The converter of the published run, and the known answer on it."""

from pathlib import Path

import polars as pl
import pytest

from forecast.analysis.checkpoints.forecast import CheckpointsResult, forecast_checkpoints
from forecast.analysis.checkpoints.forecast_run import CheckpointsOptions
from forecast.analysis.checkpoints.training_runs import read_runs
from forecast.errors import InputError
from forecast.inputs.published.olmo import COLUMNS, convert

SOURCE = Path(__file__).parents[3] / "configs" / "data" / "olmo2_7b_evals.csv"


def test_every_number_of_the_published_table_is_in_the_long_one() -> None:
    wide, long = pl.read_csv(SOURCE), convert(str(SOURCE))
    assert tuple(long.columns) == COLUMNS
    evaluations = [column for column in wide.columns if column.startswith("eval/")]
    assert len(long) == len(wide) * len(evaluations)
    assert long["value"].sum() == pytest.approx(sum(wide[column].sum() for column in evaluations))
    for column, task, metric in (
        ("eval/c4_en-validation/CrossEntropyLoss", "c4_en", "cross_entropy"),
        ("eval/downstream/boolq_val_rc_5shot_acc", "boolq_val_rc", "accuracy"),
        ("eval/downstream/mmlu_stem_test_mc_5shot_len_norm", "mmlu_stem_test_mc", "accuracy"),
        ("eval/downstream_bpb/arc_easy_test_rc_5shot_bpb", "arc_easy_test_rc", "bits_per_byte"),
        ("eval/downstream_soft/piqa_val_rc_5shot_soft", "piqa_val_rc", "soft"),
        ("eval/downstream_soft_log/piqa_val_rc_5shot_soft_log", "piqa_val_rc", "soft_log"),
    ):
        own = long.filter((pl.col("task") == task) & (pl.col("metric") == metric))
        assert own["step"].to_list() == wide["_step"].to_list()
        assert own["tokens"].to_list() == [step * 4_194_304 for step in wide["_step"]]
        assert own["value"].to_list() == wide[column].to_list()


def test_unknown_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("_step,eval/strange\n0,1\n")
    with pytest.raises(InputError, match="1 columns are no known evaluation"):
        convert(str(path))
    path.write_text("step,eval/strange\n0,1\n")
    with pytest.raises(InputError, match="no column '_step'"):
        convert(str(path))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> CheckpointsResult:
    """Eight tasks, fitted up to step 50k."""
    path = tmp_path_factory.mktemp("olmo") / "run.csv"
    names = ["arc_challenge", "arc_easy", "boolq", "csqa", "hellaswag", "piqa", "socialiqa", "winogrande"]
    tasks = [f"{name}_{'test' if name.startswith('arc') else 'val'}_rc" for name in names]
    long = convert(str(SOURCE))
    long.filter(pl.col("task").is_in(tasks) | (pl.col("metric") == "cross_entropy")).write_csv(path)
    return forecast_checkpoints(
        read_runs(str(path), ["accuracy"]), CheckpointsOptions("accuracy", ("bits_per_byte",), 50_000)
    )


def test_the_real_run_is_forecast_eighteen_fold(report: CheckpointsResult) -> None:
    """A first sketch on eight tasks (perhaps others) had: last value 0.059, compute power law 0.025."""
    far = {line.method: line for line in report.summary if line.horizon == 18}
    assert {line.n for line in far.values()} == {8}
    assert far["last_value"].rmse == pytest.approx(0.059, abs=0.004)
    assert far["compute_power_law"].rmse == pytest.approx(0.025, abs=0.004)
    singles = [line.rmse for line in far.values() if line.kind in ("baseline", "proxy")]
    assert far["combined"].rmse <= min(singles)
    ends = {row.actual_step for row in report.rows if row.horizon == 18}
    assert ends == {900_000}


def test_the_checkpoints_compared_with_reach_the_end_of_the_run(report: CheckpointsResult) -> None:
    assert {row.n_checkpoints for row in report.rows if row.horizon == 18} == {175}
    assert {row.horizon for row in report.rows} == {2.0, 4.0, 8.0, 18.0}
    assert not [warning for warning in report.warnings if "break" in warning]
