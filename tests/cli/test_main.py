"""The command line as scripts see it: exit codes, JSON on standard output, words on standard error."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from driving import run_forecast

import forecast
from forecast.cli import main

BASE = {
    "name": "small",
    "output": "out",
    "engine": {"kind": "fake"},
    "candidates": [{"name": "weak", "source": "fake://1"}, {"name": "strong", "source": "fake://4"}],
    "trajectories": [{"task": "sums", "path": "solutions.jsonl"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"prompt": f"What is {i} plus {i}?", "solution": f" It is {2 * i}."} for i in range(4)]
    (tmp_path / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def write(folder: Path, **changes: object) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}))
    return path


def test_an_unforeseen_error_shows_no_secrets_and_commands_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        raise OSError("s3://KEY:SECRET@bucket/x?token=SECRET \x1b[2J")
    except OSError as error:
        main._print_traceback(OSError, error, error.__traceback__)
    said = capsys.readouterr().err
    assert "s3://***@bucket/x?token=*** \\x1b[2J" in said and "Traceback" in said


def test_run_ends_with_a_ranking_and_resumes(folder: Path) -> None:
    config = write(folder)
    code, out, err = run_forecast("run", config)
    assert code == 0, err
    assert out.index("strong") < out.index("weak")
    assert f"results: {folder / 'out'}" in out
    assert f"forecast app {config}" in out
    assert "2/2 units" in err

    code, again, err = run_forecast("run", config)
    assert code == 0
    assert again == out
    assert "units" not in err, "a finished run has nothing to score"


def test_score_json_names_the_lake_and_counts_its_rows(folder: Path) -> None:
    import polars as pl

    code, out, _ = run_forecast("score", write(folder), "--json")
    record = json.loads(out)
    assert code == 0
    assert record["lake"] == str(folder / "out" / "lake")
    rows = pl.read_parquet(f"{record['lake']}/**/*.parquet")
    assert (record["units"], record["done"], record["rows"], record["failed"]) == (2, 2, rows.height, [])
    assert {c["candidate"]: c["candidate_id"] for c in record["candidates"]}.keys() == {"weak", "strong"}
    assert set(rows["candidate_id"]) == {c["candidate_id"] for c in record["candidates"]}
    assert rows.columns == [
        "candidate_id",
        "task",
        "expert",
        "instance_id",
        "position",
        "token_id",
        "n_bytes",
        "logprob",
        "entropy",
        "rank",
        "ties",
        "top1_logprob",
        "top1_id",
    ]


def test_dry_run_does_nothing_and_tells_the_work(folder: Path) -> None:
    config = write(folder)
    code, out, _ = run_forecast("run", config, "--dry-run", "--json")
    record = json.loads(out)
    assert code == 0
    assert (record["units"], record["done"]) == (2, 0)
    assert all(c["estimated_tokens"] > 0 for c in record["candidates"])
    assert not (folder / "out").exists()

    assert run_forecast("score", config)[0] == 0
    record = json.loads(run_forecast("score", config, "--dry-run", "--json")[1])
    assert record["done"] == 2
    assert all(c["estimated_tokens"] == 0 for c in record["candidates"])


def test_unknown_key_is_a_usage_error_that_names_line_and_nearest_key(folder: Path) -> None:
    config = write(folder, trajektories=[])
    code, out, err = run_forecast("score", config, "--json")
    line = next(
        i for i, text in enumerate(config.read_text().splitlines(), 1) if text.startswith("trajektories")
    )
    assert (code, out) == (2, "")
    assert f"{config}:{line}: unknown key 'trajektories'" in err
    assert "did you mean 'trajectories'?" in err


@pytest.mark.slow
def test_one_bad_task_is_reported_and_the_other_is_scored(folder: Path) -> None:
    (folder / "bad.jsonl").write_text('{"prompt": "a", "solution": "b"}\n\n{"prompt": "c"\n')
    tasks = [*BASE["trajectories"], {"task": "bad", "path": "bad.jsonl"}]  # type: ignore[misc]
    code, out, err = run_forecast("score", write(folder, trajectories=tasks), "--json")
    record = json.loads(out)
    assert code == 3
    assert (record["units"], record["done"]) == (2, 2)
    (failure,) = record["failed"]
    assert failure["task"] == "bad"
    assert f"{folder / 'bad.jsonl'}:2" in failure["error"] and f"{folder / 'bad.jsonl'}:3" in failure["error"]
    assert "bad.jsonl:2" in err


def test_nothing_to_score_is_an_error(folder: Path) -> None:
    code, out, err = run_forecast(
        "score", write(folder, trajectories=[{"task": "sums", "path": "nowhere.jsonl"}])
    )
    assert (code, out) == (1, "")
    assert "nowhere.jsonl: no such file" in err


@pytest.mark.slow
def test_too_long_trajectory_is_reported_not_cut(folder: Path) -> None:
    long = {"prompt": "word " * 60, "solution": " It is 8."}
    with (folder / "solutions.jsonl").open("a") as stream:
        stream.write(json.dumps(long) + "\n")
    candidates = [{"name": "short", "source": "fake://1?context=40"}, {"name": "wide", "source": "fake://2"}]
    config = write(folder, candidates=candidates)
    code, out, _ = run_forecast("run", config, "--json")
    record = json.loads(out)
    assert code == 3
    (failure,) = record["score"]["failed"]
    assert failure["candidate"] == "short" and "do not fit the context of 40" in failure["error"]
    assert record["rank"]["instances"] == {"sums": 4}, "means are over texts that every candidate has read"
    assert len(record["rank"]["candidates"]) == 2

    code, out, _ = run_forecast(
        "run", write(folder, candidates=candidates, too_long="truncate_prefix"), "--json"
    )
    assert code == 0
    assert json.loads(out)["rank"]["instances"] == {"sums": 5}


@pytest.mark.slow
def test_measured_scores_of_another_model_are_noted(folder: Path) -> None:
    (folder / "scores.csv").write_text(
        "candidate,task,metric,value\nstrong,exam,accuracy,0.5\nstrang,exam,accuracy,0.4\n"
    )
    config = write(folder, measured_scores=[{"format": "csv", "path": "scores.csv"}])
    code, _, err = run_forecast("run", config)
    assert code == 0
    assert "1 row of 1 model that is no candidate (strang)" in err


def test_commands_before_their_time_name_the_command_to_run(folder: Path) -> None:
    config = write(folder)
    for command, expected in (
        ("rank", "forecast aggregate"),
        ("aggregate", "forecast score"),
        ("show", "forecast score"),
    ):
        code, out, err = run_forecast(command, config)
        assert (code, out) == (1, ""), command
        assert expected in err


@pytest.mark.slow
def test_show_names_what_there_is(folder: Path) -> None:
    config = write(folder)
    assert run_forecast("score", config)[0] == 0
    code, out, _ = run_forecast("show", config, "--candidate", "strong", "--json")
    record = json.loads(out)
    assert code == 0
    assert "".join(token["text"] for token in record["tokens"]) == record["trajectory"]["solution"]
    code, _, err = run_forecast("show", config, "--candidate", "stronk")
    assert code == 2
    assert "weak, strong" in err


def test_every_command_has_help_with_an_example() -> None:
    for command in ("run", "score", "aggregate", "rank", "show", "parity", "app"):
        code, out, _ = run_forecast(command, "--help")
        assert code == 0
        assert f"forecast {command} configs/demo.yaml" in " ".join(out.split())


HEAVY = ("torch", "ray", "streamlit", "polars", "duckdb", "scipy", "pyarrow", "pydantic", "transformers")


@pytest.mark.parametrize(
    ("module", "absent"), [("forecast", (*HEAVY, "typer", "rich")), ("forecast.cli.main", HEAVY)]
)
def test_import_loads_no_heavy_module(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sorted({set(absent)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_version_is_printed() -> None:
    code, out, _ = run_forecast("--version")
    assert (code, out) == (0, f"forecast {forecast.__version__}\n")
