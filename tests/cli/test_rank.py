"""`forecast rank` as scripts see it: tables from elsewhere, runs, errors, and the files that it writes."""

import json
import random
from pathlib import Path

import pytest
import yaml
from driving import run_forecast
from worlds import csv_of, world

from forecast.analysis.ranking.scorers.registry import load

PUBLISHED = Path(__file__).parents[2] / "configs" / "data" / "obsscaling_base_llm_benchmark_eval.csv"
QUICK = ("--permutations", "9", "--bootstraps", "50", "--scorer", "univariate", "--workers", "1")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "T.csv"
    path.write_text(csv_of(world("ability", 0, candidates=9, tasks=4, features=4, family=2)))
    return path


def test_a_table_is_answered_in_json_whatever_the_order_of_its_rows(table: Path, tmp_path: Path) -> None:
    code, out, err = run_forecast("rank", "--table", table, "--json", *QUICK)
    assert code == 0, err
    record = json.loads(out)
    assert {row["protocol"] for row in record["rows"]} == {
        "leave-2-tasks-out",
        "leave-models-out",
        "leave-families-out",
        "known-tasks",
    }
    head, *rows = table.read_text().splitlines()
    random.Random(0).shuffle(rows)
    shuffled = tmp_path / "T.csv"
    shuffled.write_text("\n".join([head, *rows]) + "\n")
    _, again, _ = run_forecast("rank", "--table", shuffled, "--json", *QUICK)
    assert {**json.loads(again), "table": None} == {**record, "table": None}


def test_the_report_opens_without_a_server_and_the_scorer_is_kept(table: Path, tmp_path: Path) -> None:
    page, scorer = tmp_path / "report.html", tmp_path / "scorer.json"
    code, out, err = run_forecast("rank", "--table", table, "--html", page, "--save", scorer, "--all", *QUICK)
    assert code == 0, err
    assert "leave-models-out" in out and f"report: {page}" in err
    text = page.read_text()
    assert text.count("<svg") >= 2 and "<script" not in text and "c008" in text
    assert load(scorer).chosen()[0] in "+-"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "give either CONFIG"),
        (("--protocol", "leave-model-out"), 2, "leave-models-out"),
        (("--scorer", "svm"), 2, "unknown scorer 'svm'"),
        (("--features", "f00,f99"), 1, "column 'f99' is not there"),
        (("--permutations", "-1"), 2, "permutations"),
    ],
)
def test_wrong_usage_is_told(table: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    given = ("--table", str(table), *arguments) if arguments else ()
    found, out, err = run_forecast("rank", *given, *(QUICK if arguments[:1] == ("--features",) else ()))
    assert (found, out) == (code, ""), err
    assert message in err


@pytest.mark.slow
def test_a_run_is_ranked_with_what_it_measured(tmp_path: Path) -> None:
    """The held-out part beside the ranking; without scores it is null and the ranking says why."""
    rows = [{"prompt": f"What is {i} plus {i}?", "solution": f" It is {2 * i}."} for i in range(4)]
    (tmp_path / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = ["candidate,task,metric,value"]
    scores += [f"c{k},{task},acc,{0.1 * k + 0.01 * len(task)}" for k in range(6) for task in ("x", "yy")]
    (tmp_path / "scores.csv").write_text("\n".join(scores) + "\n")
    config = {
        "name": "small",
        "output": "out",
        "engine": {"kind": "fake"},
        "candidates": [{"name": f"c{k}", "source": f"fake://{k + 1}", "family": f"f{k}"} for k in range(6)],
        "trajectories": [{"task": "sums", "path": "solutions.jsonl"}],
        "measured_scores": [{"format": "csv", "path": "scores.csv"}],
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    assert run_forecast("run", path)[0] == 0
    code, out, err = run_forecast("rank", path, "--json", "--features", "cross_entropy__uniform", *QUICK)
    assert code == 0, err
    record = json.loads(out)
    held_out = record["held_out"]
    assert record["candidates"][0]["candidate"] == "c5"
    assert (held_out["n_candidates"], held_out["n_tasks"], held_out["n_features"]) == (6, 2, 1)
    honest = [r for r in held_out["rows"] if r["protocol"] == "leave-models-out"]
    assert {r["scorer"] for r in honest} == {
        "univariate",
        "own-mean",
        "baseline: parameters",
        "baseline: plain cross-entropy",
    }
    assert [r["spearman"] for r in honest if r["scorer"] == "univariate"] == [1.0]

    code, _, err = run_forecast("rank", path, "--baselines", "parameters")
    assert code == 2 and "--baselines goes with --table" in err

    del config["measured_scores"]
    path.write_text(yaml.safe_dump({**config, "output": "bare"}))
    assert run_forecast("run", path)[0] == 0
    code, out, err = run_forecast("rank", path, "--json", "--html", tmp_path / "r.html")
    assert code == 0, err
    assert json.loads(out)["held_out"] is None
    assert "no measured scores" in (tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_other_scores_forecast_a_benchmark_better_than_size_does(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    arguments = ("--table", PUBLISHED, "--protocol", "known-tasks", "--target", "MMLU", "--html", page)
    code, out, err = run_forecast("rank", *arguments, "--json")
    assert code == 0, err
    record = json.loads(out)
    rows = {row["method"]: row for row in record["rows"]}
    assert {row["target"] for row in record["rows"]} == {"MMLU"}
    assert {(row["n_models"], row["n_families"], row["n_missing"]) for row in record["rows"]} == {
        (123, 39, 25)
    }
    size, best = rows["training FLOPs"], rows["observational, 3 components"]
    assert size["rmse"] == pytest.approx(0.10488477538522, rel=1e-6)
    assert best["rmse"] == pytest.approx(0.048344897347919226, rel=1e-6)
    assert best["spearman"] > size["spearman"] > 0.8
    alone = {row["predictor"]: row["spearman"] for row in record["size_alone"]}
    assert alone["training FLOPs"] == pytest.approx(0.8539, abs=1e-4)
    assert "0.048" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--protocol", "known-tasks", "--target", "MMLU2"), "no benchmark 'MMLU2'; known: MMLU, ARC-C"),
        ((), "no features: only --protocol known-tasks"),
        (("--protocol", "known-tasks", "--protocol", "leave-models-out"), "only --protocol known-tasks"),
        (("--protocol", "known-tasks", "--scorer", "sparse-3"), "--scorer needs features"),
        (("--protocol", "known-tasks", "--save", "s.json"), "--save needs features"),
    ],
)
def test_published_scores_alone_have_no_features_to_rank_by(arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run_forecast("rank", "--table", PUBLISHED, *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())


def test_target_and_folds_go_with_published_scores(table: Path) -> None:
    for arguments in (("--target", "t0"), ("--folds", "5")):
        code, out, err = run_forecast("rank", "--table", table, *arguments)
        assert (code, out) == (2, "") and "published benchmark scores" in " ".join(err.split())
