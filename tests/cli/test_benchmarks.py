"""`forecast benchmarks` on the published table."""

import json
from pathlib import Path

import pytest
from driving import run_forecast

TABLE = Path(__file__).parents[2] / "configs" / "data" / "obsscaling_base_llm_benchmark_eval.csv"


@pytest.mark.slow
def test_other_scores_forecast_a_benchmark_better_than_size_does() -> None:
    code, out, err = run_forecast("benchmarks", TABLE, "--target", "MMLU", "--json")
    assert code == 0, err
    record = json.loads(out)
    rows = {row["method"]: row for row in record["rows"]}
    assert {row["target"] for row in record["rows"]} == {"MMLU"}
    assert len({row["n_models"] for row in record["rows"]}) == 1, "all on the same models"
    size, best = rows["training FLOPs"], rows["observational, 3 components"]
    assert best["rmse"] < size["rmse"] and best["spearman"] > size["spearman"] > 0.8
    alone = {row["predictor"]: row["spearman"] for row in record["size_alone"]}
    assert alone["training FLOPs"] == pytest.approx(0.8539, abs=1e-4)


def test_an_unknown_benchmark_is_told() -> None:
    code, out, err = run_forecast("benchmarks", TABLE, "--target", "MMLU2")
    assert (code, out) == (2, "")
    assert "no benchmark 'MMLU2'; known: MMLU, ARC-C" in " ".join(err.split())
