"""The public Python interface over the fake engine and made-up tables."""

import inspect
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import typer
import yaml
from driving import run_forecast
from lakes import fill
from worlds import csv_of, world

import forecast
from forecast.analysis.ranking.feature_table import design_of
from forecast.analysis.ranking.feature_table_from_file import read_table
from forecast.analysis.ranking.scorers.registry import SCORERS, save
from forecast.api import RunRanking
from forecast.api.arguments import RANGES
from forecast.cli.main import app
from forecast.errors import ConfigError, InputError, NoDataError
from forecast.proxies.token_proxies import PROXIES
from forecast.report.records import record_of

QUICK = {"permutations": 9, "bootstraps": 50, "scorer": "univariate"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rows = [{"prompt": f"What is {i} plus {i}?", "solution": f" It is {2 * i}."} for i in range(4)]
    (folder / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = [f"m{i}" for i in range(5)]
    scores = "".join(f"{name},sums,accuracy,{0.1 * i}\n" for i, name in enumerate(names, 1))
    (folder / "scores.csv").write_text("candidate,task,metric,value\n" + scores)
    path = folder / "run.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "small",
                "output": "out",
                "engine": {"kind": "fake"},
                "candidates": [{"name": n, "source": f"fake://{i}"} for i, n in enumerate(names, 1)],
                "trajectories": [{"task": "sums", "path": "solutions.jsonl"}],
                "measured_scores": [{"format": "csv", "path": "scores.csv"}],
            }
        )
    )
    return path


@pytest.fixture(scope="module")
def run(config: Path) -> forecast.Run:
    loaded = forecast.load(config)
    fill(loaded.plan())
    assert loaded.aggregate() == []
    return loaded


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "T.csv"
    path.write_text(csv_of(world("ability", 0, candidates=9, tasks=4, features=4, family=2)))
    return path


@pytest.fixture(scope="module")
def saved(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scorers") / "scorer.json"
    fitted = forecast.rank_table(table, workers=1, **{**QUICK, "scorer": "sparse-3"}).fitted
    assert fitted is not None
    save(fitted, path)
    return path


def test_every_public_name_resolves() -> None:
    assert all(getattr(forecast, name) is not None for name in forecast.__all__)
    assert set(forecast.__all__) <= set(dir(forecast))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = forecast.lode


def test_load_raises_the_command_lines_error(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: x\ntrajektories: []\n")
    with pytest.raises(ConfigError, match=r"run\.yaml:2: unknown key 'trajektories'"):
        forecast.load(tmp_path / "run.yaml")


def test_results_before_their_computation_name_the_command(config: Path, tmp_path: Path) -> None:
    settings = {**yaml.safe_load(config.read_text()), "output": str(tmp_path / "none")}
    elsewhere = config.with_name("elsewhere.yaml")
    elsewhere.write_text(yaml.safe_dump(settings))
    fresh = forecast.load(elsewhere)
    with pytest.raises(NoDataError, match="forecast score"):
        fresh.tokens()
    for call in (fresh.proxies, fresh.rank):
        with pytest.raises(NoDataError, match="forecast aggregate"):
            call()


def test_scoring_calls_back_and_prints_nothing(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {**yaml.safe_load(config.read_text()), "output": str(tmp_path / "out")}
    settings["trajectories"].append({"task": "absent", "path": "absent.jsonl"})
    other = config.with_name("other.yaml")
    other.write_text(yaml.safe_dump(settings))
    events: list[forecast.api.subscribers.Event] = []
    record = forecast.load(other).score(on_event=events.append)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "units" not in printed.err and "absent" not in printed.err
    assert (record["units"], record["done"], len(record["failed"])) == (5, 5, 1)
    kinds = [event["event"] for event in events]
    assert kinds[:2] == ["failed", "started"] and kinds[-1] == "ended"
    assert kinds.count("committed") == 5
    again: list[forecast.api.subscribers.Event] = []
    forecast.load(other).score(on_event=again.append)
    assert [event["event"] for event in again] == ["failed"]


def test_tokens_are_the_lakes_rows(run: forecast.Run) -> None:
    tokens = run.tokens()
    assert isinstance(tokens, pl.LazyFrame)
    files = pl.read_parquet(f"{run.config.output}/lake/**/*.parquet")
    assert tokens.collect().sort(pl.all()).equals(files.sort(pl.all()))


def test_proxies_are_named_by_candidate(run: forecast.Run) -> None:
    proxies = run.proxies()
    assert {p.name for p in PROXIES} <= set(proxies["proxy"])
    assert proxies["candidate"].unique(maintain_order=True).to_list() == ["m0", "m1", "m2", "m3", "m4"]
    entropy = -run.tokens().collect()["logprob"].mean()  # type: ignore[operator]
    uniform = proxies.filter(pl.col("proxy") == "cross_entropy__uniform")["value"]
    assert uniform.min() < entropy < uniform.max()  # type: ignore[operator]


def test_rank_agrees_with_the_command_line(run: forecast.Run, config: Path, tmp_path: Path) -> None:
    code, out, err = run_forecast("rank", config, "--json", "--no-held-out")
    assert code == 0, err
    record, ranking = json.loads(out), run.rank()
    assert ranking.standings["candidate"].to_list() == [c["candidate"] for c in record["candidates"]]
    assert ranking.correlations.height == len(PROXIES)
    shown = ("spearman", "kendall", "ci_low", "ci_high", "n_candidates")
    (target,) = record["targets"]
    for row in ranking.correlations.iter_rows(named=True):
        (own,) = (c for c in target["correlations"] if c["proxy"] == row["proxy"])
        assert all(row[name] == own[name] for name in shown)
    assert list(ranking.warnings) == record["warnings"]
    page = tmp_path / "r.html"
    ranking.report().save(str(page))
    assert ranking.correlations["proxy"][0] in page.read_text()


def test_held_out_of_a_run_reports_its_progress(run: forecast.Run) -> None:
    steps: list[tuple[float, float]] = []
    found = run.rank().held_out(
        ["cross_entropy__uniform"], workers=1, on_progress=lambda *step: steps.append(step), **QUICK
    )
    assert found is not None and found.n_features == 1 and steps
    with pytest.raises(ConfigError, match="leave-models-out"):
        run.rank().held_out(protocol="leave-model-out")


def test_second_ranking_computes_nothing_and_is_equal(
    run: forecast.Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = run.rank(held_out=False)
    before = first.held_out(**QUICK)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("forecast.analysis.ranking.single_proxy.rank_candidates", refuse)
    monkeypatch.setattr("forecast.analysis.ranking.held_out.evaluate_held_out", refuse)
    again = run.rank(held_out=False)
    assert again.ranking == first.ranking
    after = again.held_out(**QUICK)
    assert before is not None and after is not None and before.fitted is not None
    assert replace(after, fitted=None) == replace(before, fitted=None)
    save(before.fitted, tmp_path / "before.json")
    assert after.fitted is not None
    save(after.fitted, tmp_path / "after.json")
    assert (tmp_path / "after.json").read_bytes() == (tmp_path / "before.json").read_bytes()
    with pytest.raises(AssertionError, match="computed again"):
        run.rank("bytes", held_out=False)
    with pytest.raises(AssertionError, match="computed again"):
        again.held_out(**{**QUICK, "permutations": 8})


@pytest.mark.parametrize("scorer", SCORERS)
def test_kept_scorers_score_as_before(run: forecast.Run, scorer: str) -> None:
    options = {**QUICK, "scorer": scorer, "protocol": "leave-models-out", "permutations": 0}
    fresh, kept = (run.rank(held_out=False).held_out(**options) for _ in range(2))
    assert fresh is not None and kept is not None
    if fresh.fitted is not None and kept.fitted is not None:
        assert kept.fitted.as_record() == fresh.fitted.as_record()
    assert (fresh.fitted is None) == (kept.fitted is None)


def test_a_trajectory_is_the_one_that_the_command_shows(run: forecast.Run, config: Path) -> None:
    code, out, err = run_forecast("show", config, "--candidate", "m2", "--json")
    assert code == 0, err
    assert json.loads(out) == record_of(run.show(candidate="m2"))


def test_diagnosis_of_a_run(run: forecast.Run) -> None:
    with pytest.raises(ConfigError, match=r"--windows \[0\]: expected numbers of tokens"):
        forecast.diagnose(run, windows=[0])
    assert forecast.diagnose(run, windows=(5,)).name == "small"


def test_a_frame_ranks_as_its_file(table: Path) -> None:
    of_file = forecast.rank_table(table, workers=1, **QUICK)
    of_frame = forecast.rank_table(pl.read_csv(table), workers=1, **QUICK)
    assert of_frame.rows == of_file.rows and of_frame.order == of_file.order


def test_a_mistake_in_a_frame_is_named_by_row() -> None:
    frame = pl.DataFrame({"candidate": ["a", "a"], "task": ["t", "t"], "score": [1.0, 2.0], "f": [1.0, 2.0]})
    with pytest.raises(InputError, match=r"^table: row 2: a second row for a / t"):
        forecast.rank_table(frame)


def options_of(command: str) -> dict[str, object]:
    """A command's options by the names of Python, with their defaults."""
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    return {parameter.name or "": parameter.default for parameter in root.commands[command].params}


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("corpora", forecast.compare_corpora),
        ("extrapolate", forecast.forecast_checkpoints),
        ("diagnose", forecast.diagnose),
        ("parity", forecast.parity),
        ("show", forecast.Run.show),
        ("score", forecast.Run.score),
        ("rank", forecast.rank_table),
        ("rank", forecast.forecast_benchmarks),
        ("rank", RunRanking.held_out),
    ],
)
def test_arguments_and_defaults_are_those_of_the_command(
    command: str, function: Callable[..., object]
) -> None:
    beside = {"self", "run", "source", "on_progress", "on_note", "on_event", "show", "watch"}
    if command == "rank":
        beside.add("confidence")  # a run's is in its configuration
    own = {n: p.default for n, p in inspect.signature(function).parameters.items() if n not in beside}
    options = options_of(command)
    assert own.keys() <= options.keys()
    for name, default in own.items():
        if options[name] is not None and name != "windows":
            assert default == options[name], name


@pytest.mark.parametrize("command", ["corpora", "extrapolate", "diagnose", "parity", "rank"])
def test_ranges_are_those_of_the_command(command: str) -> None:
    root = typer.main.get_command(app)
    ranges = {p.name: (p.min, p.max) for p in root.commands[command].params if p.min is not None}
    assert ranges
    assert ranges.keys() <= RANGES.keys()
    for name, (low, high) in ranges.items():
        assert RANGES[name][1:] == (low, math.inf if high is None else high), name


def test_numbers_out_of_range_are_refused_before_anything_is_read() -> None:
    wrong = (
        (forecast.rank_table, {"permutations": -5}),
        (forecast.rank_table, {"permutations": 2.5}),
        (forecast.rank_table, {"confidence": 5}),
        (forecast.rank_table, {"workers": 0}),
        (forecast.forecast_benchmarks, {"folds": 1}),
        (forecast.compare_corpora, {"scored_tokens": -5.0}),
        (forecast.compare_corpora, {"budget": "1e-3"}),
        (forecast.forecast_checkpoints, {"min_gain": math.nan}),
        (forecast.forecast_checkpoints, {"horizon": math.inf}),
        (forecast.diagnose, {"min_k": 500}),
        (forecast.diagnose, {"ngram_of": "foo"}),
        (forecast.parity, {"tolerance": -1.0}),
    )
    for function, given in wrong:
        (name,) = given
        with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')} "):
            function("absent.csv", **given)


@pytest.mark.parametrize("source", [None, {"a": [1]}, pl.LazyFrame({"a": [1]})])
def test_other_tables_than_files_and_frames_are_refused(source: object) -> None:
    for function in (forecast.rank_table, forecast.forecast_benchmarks):
        with pytest.raises(InputError, match="expected a file's path or a polars DataFrame, got"):
            function(source)


def test_corpora_and_checkpoints_check_their_arguments(table: Path) -> None:
    with pytest.raises(ConfigError, match="--budget 0"):
        forecast.compare_corpora(table, table, budget=0.0)
    with pytest.raises(ConfigError, match="--expert-tokens"):
        forecast.compare_corpora(table, table, expert_parameters=1.0)
    with pytest.raises(ConfigError, match=r"--parameters 4M=-1\.0: expected SIZE=NUMBER"):
        forecast.compare_corpora(table, table, parameters={"4M": -1.0})
    with pytest.raises(ConfigError, match="--chance t=1: expected TASK=P"):
        forecast.forecast_checkpoints(table, target="accuracy", chance="t=1")
    with pytest.raises(ConfigError, match="--table needs --target METRIC"):
        forecast.forecast_checkpoints(table)
    with pytest.raises(ConfigError, match="--horizon 1"):
        forecast.forecast_checkpoints(table, target="accuracy", horizon=1.0)


def test_a_saved_scorer_predicts_as_it_was_fitted(table: Path, saved: Path) -> None:
    scorer = forecast.load_scorer(saved)
    found = scorer.predict(pl.read_csv(table).drop("score", "family"))
    design, _ = design_of(read_table(str(table)).table)
    expected = scorer.fitted.score(design)
    for row in found.iter_rows(named=True):
        t, c = design.tasks.index(row["task"]), design.candidates.index(row["candidate"])
        assert row["score"] == pytest.approx(expected[t, c], abs=1e-12)
    assert found.columns == ["candidate", "task", "score", "rank"]
    assert found.height == 36 and found.filter(pl.col("rank") == 1).height >= 1
    first = found.filter(pl.col("task") == "t00")
    assert first["score"].to_list() == sorted(first["score"], reverse=True)


def test_a_missing_feature_is_an_error_that_names_it(table: Path, saved: Path) -> None:
    scorer = forecast.load_scorer(saved)
    gone = scorer.features[0]
    frame = pl.read_csv(table)
    with pytest.raises(InputError, match=f"{gone}' is not there"):
        scorer.predict(frame.drop(gone))
    with pytest.raises(InputError, match=f"{gone}', which has no value"):
        scorer.predict(frame.with_columns(pl.lit(None, pl.Float64).alias(gone)))


def test_a_missing_value_costs_its_cell_alone(table: Path, saved: Path) -> None:
    scorer = forecast.load_scorer(saved)
    here = (pl.col("candidate") == "c000") & (pl.col("task") == "t00")
    gap = pl.when(here).then(None).otherwise(pl.col(scorer.features[0])).alias(scorer.features[0])
    found = scorer.predict(pl.read_csv(table).with_columns(gap))
    assert found.filter(pl.col("score").is_null()).rows() == [("c000", "t00", None, None)]


def test_a_version_mismatch_is_a_warning(saved: Path, tmp_path: Path) -> None:
    record = json.loads(saved.read_text())
    record["versions"]["numpy"] = "0.0.1"
    other = tmp_path / "old.json"
    other.write_text(json.dumps(record))
    with pytest.warns(UserWarning, match=r"old\.json was fitted with numpy 0\.0\.1"):
        assert len(forecast.load_scorer(other).warnings) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecast.load_scorer(saved)


def test_the_command_line_uses_a_saved_scorer(table: Path, saved: Path) -> None:
    code, out, err = run_forecast("rank", "--table", table, "--scorer", saved, "--json")
    assert code == 0, err
    assert json.loads(out)["predictions"] == forecast.load_scorer(saved).predict(table).to_dicts()
    code, out, err = run_forecast("rank", "--table", table, "--scorer", saved)
    assert code == 0 and "c000" in out, err
    code, _, err = run_forecast("rank", "--table", table, "--scorer", saved, "--scorer", "univariate")
    assert code == 2 and "goes with --table FILE" in err
