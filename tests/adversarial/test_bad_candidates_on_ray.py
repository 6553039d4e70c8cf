"""Candidates that loop or crash while they are scored are given up with the reason; the others finish."""

import json
from pathlib import Path

import pytest
import yaml
from driving import run_forecast
from lakes import solutions
from tiny import save_model
from training_runs import written
from transformers import LlamaConfig

SMALL = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}


@pytest.mark.slow
def test_looping_and_crashing_candidates_are_given_up_with_the_reason(tmp_path: Path) -> None:
    names = ("good", "loops", "explodes")
    for name in names:
        save_model(tmp_path / name, LlamaConfig(**SMALL, num_attention_heads=2, max_position_embeddings=256))
    loop = "{% for i in range(99999) %}"
    (tmp_path / "loops" / "chat_template.jinja").write_text(4 * loop + 4 * "{% endfor %}")
    file = tmp_path / "explodes" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    step = {"type": "Replace", "pattern": {"Regex": "a"}, "content": 16 * "a"}
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": 12 * [step]}
    file.write_text(json.dumps(tokenizer))
    config = {
        "name": "test",
        "output": "out",
        "cluster": {"attempts": 2, "actors": 1},
        "candidates": [
            {"name": name, "source": f"./{name}", "prompt_form": "chat" if name == "loops" else "raw"}
            for name in names
        ],
        "trajectories": [{"task": "t", "path": written(tmp_path / "t.jsonl", solutions(*"abc"))}],
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    code, out, err = run_forecast("score", path, "--json")
    assert code == 3, err
    record = json.loads(out)
    assert {c["candidate"]: c["done"] for c in record["candidates"]} == {"good": 1, "loops": 0, "explodes": 0}
    errors = {entry["candidate"]: entry["error"] for entry in record["failed"]}
    assert "it was not done after 30.1 seconds" in errors["loops"]
    assert "fails on 1 text" in errors["explodes"]
