"""`forecast diagnose`: what it prints, its JSON and its page."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from lakes import config_of, solutions, tell
from typer.testing import CliRunner

from forecast.cli.diagnose import diagnose
from forecast.errors import ConfigError
from forecast.plan import make_plan
from forecast.warehouse.build import build_warehouse

LONG = " Thirteen words are what it takes, so here are rather more than that, for {} and all of its friends."


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run of four candidates, two of which stand for one model in both forms, and two experts."""
    tasks = {"t[1]": [*solutions(*"xyz", text=LONG), *solutions(*"xyz", expert="Qwen-big", text=LONG)]}
    names = ["a", "b", "c", "d [chat]"]
    scores = tmp_path / "scores.csv"
    scores.write_text(
        "candidate,task,metric,value\n" + "".join(f"{n},exam,acc,{i / 4}\n" for i, n in enumerate(names))
    )
    made = config_of(
        tmp_path,
        tasks,
        {name: f"fake://{min(i, 2) + 1}" for i, name in enumerate(names)},
        measured_scores=[{"format": "csv", "path": str(scores)}],
        experts={"Qwen-big": {"family": "Qwen"}},
    )
    record = made.model_dump(mode="json", exclude_none=True)
    for candidate, family in zip(record["candidates"], ["Qwen", "Llama", "Qwen", "Qwen"], strict=True):
        candidate["family"] = family
    record["candidates"][3]["prompt_form"] = "chat"
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(record))
    from forecast.config.loader import load_config

    plan = make_plan(load_config(path))
    tell(
        plan,
        lambda unit, t: [
            {
                "logprob": -1.0 - 0.1 * i - 0.3 * len(unit.candidate.name) - 0.01 * ord(t.instance_id) * i,
                "n_bytes": 2,
                "rank": 1 + i,
                "ties": i % 2,
            }
            for i in range(120 + ord(unit.candidate.name[0]) % 3)
        ],
    )
    build_warehouse(plan)
    return path


def call(*arguments: Any) -> Any:
    app = typer.Typer()
    app.command()(diagnose)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_tables_and_page(config: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(LONG.format("x") * 3)
    page = tmp_path / "new" / "page.html"
    found = call(config, "--corpus", corpus, "--html", page, "--all")
    assert found.exit_code == 0, found.output
    for words in (
        "Does an expert favour its own family?",
        "Qwen-big",
        "Do experts agree",
        "How much rests on ties?",
        "Does the window matter?",
        "Does the prompt form matter?",
        "1 models in both forms",
        "Do tokenizers matter?",
        "How many instances are needed?",
        "Min-20%",
        "Are the texts in a corpus?",
        "The longest matches",
        "d [chat]",
        "t[1]",
    ):
        assert words in found.stdout, words
    html = page.read_text()
    assert html.count("<h2>") == 9 and html.count("<svg") == 2
    assert "<script" not in html and "d [chat]" in html


def test_json_has_no_nan_and_every_section(config: Path) -> None:
    found = call(config, "--json", "--proxy", "rank__uniform", "--proxy", "cross_entropy__uniform")
    assert found.exit_code == 0, found.output
    record = json.loads(found.stdout, parse_constant=lambda name: pytest.fail(name))
    assert record["proxies"] == ["rank__uniform", "cross_entropy__uniform"]
    for key in (
        "expert_overlap",
        "expert_agreement",
        "ties",
        "windows",
        "prompt_forms",
        "tokenizers",
        "instances_needed",
        "min_k",
        "contamination",
        "warnings",
        "failed",
    ):
        assert key in record
    assert record["min_k"]["min_k_plus_plus"] is None
    assert [w["last_tokens"] for w in record["windows"]] == [100, 250, 500, 1000]
    assert record["windows"][0]["shortened"] == 24
    assert record["expert_overlap"][1]["left_out"] == [] or record["expert_overlap"][0]["family"] == "Qwen"


def test_missing_corpus_exits_with_3(config: Path, tmp_path: Path) -> None:
    found = call(config, "--json", "--corpus", tmp_path / "no.jsonl")
    assert found.exit_code == 3
    assert "no such file" in json.loads(found.stdout)["failed"][0]["error"]


def test_invalid_windows_raise(config: Path) -> None:
    for text in ("ten", "0", "5,-1"):
        found = call(config, "--windows", text)
        assert isinstance(found.exception, ConfigError) and "--windows" in str(found.exception)
    found = call(config, "--json", "--windows", "50,20")
    assert [w["last_tokens"] for w in json.loads(found.stdout)["windows"]] == [20, 50]
