"""Candidates that would fail are named before anything is scored, with the fix."""

import json
from pathlib import Path
from typing import Any

import pytest
from driving import run_forecast
from gguf_files import converted
from lakes import config_of, solutions
from tiny import save_model
from transformers import LlamaConfig

from forecast.config.schema import Config
from forecast.plan import Plan, make_plan
from forecast.preflight import refused_candidates

SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "good"
    save_model(folder, LlamaConfig(**SIZES, num_attention_heads=2, max_position_embeddings=256))
    return folder


def planned(tmp_path: Path, *candidates: dict[str, Any]) -> Plan:
    config = config_of(tmp_path, {"t": solutions(*"ab")}, {"m": "/none"}, engine={"kind": "torch"})
    return make_plan(Config.model_validate({**config.model_dump(), "candidates": candidates}))


def errors_of(plan: Plan) -> dict[str, str]:
    assert plan.failures == ()
    return {failure.name: failure.error for failure in refused_candidates(plan, plan.units)}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"drop_layers": 3}, "drop_layers 3 does not fit a model of 3 layers; drop at most 2"),
        ({"drop_layers": [7]}, "does not fit a model of 3 layers"),
        ({"vocab_size": 301}, "vocab_size 301 is more than the output matrix has (300)"),
        ({"prompt_form": "chat"}, "has no chat template; set prompt_form: raw"),
        ({"drop_layers": 2, "quantize": 4, "vocab_size": 300, "context_length": 64}, None),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_the_model_are_refused(
    settings: dict[str, Any], expected: str | None, model: Path, tmp_path: Path
) -> None:
    found = errors_of(planned(tmp_path, {"name": "m", "source": str(model), **settings}))
    assert expected is None if not found else expected is not None and expected in found["m"]


def changed(folder: Path, model: Path, **config: Any) -> Path:
    """A copy of the model with other keys in its config.json."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    known = json.loads((model / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **config}))
    return folder


def test_bad_files_are_refused_and_good_ones_are_not(model: Path, tmp_path: Path) -> None:
    folders = {
        "mystery": changed(tmp_path / "mystery", model, model_type="mystery"),
        "deeper": changed(tmp_path / "deeper", model, num_hidden_layers=4),
        "wider": changed(tmp_path / "wider", model, intermediate_size=72),
        "failing": changed(tmp_path / "failing", model),
        "good": model,
    }
    (folders["failing"] / "chat_template.jinja").write_text("{{ raise_exception('no users') }}")
    candidates = [
        {"name": name, "source": str(folder), "prompt_form": "chat" if name == "failing" else "raw"}
        for name, folder in folders.items()
    ]
    found = errors_of(planned(tmp_path, *candidates))
    assert found.keys() == folders.keys() - {"good"}
    for name, part in (
        ("mystery", "mystery"),
        ("deeper", "missing weights"),
        ("wider", "other shapes"),
        ("failing", "no users"),
    ):
        assert part in found[name] and f"candidate {name!r}" in found[name]


def test_gguf_key_that_is_not_honoured_is_refused_by_name(model: Path, tmp_path: Path) -> None:
    file = converted(model, "llama")
    good = file.write(tmp_path / "good.gguf")
    file.set(attn_logit_softcapping=30.0)
    bad = file.write(tmp_path / "bad.gguf")
    candidates = [{"name": path.stem, "source": str(path)} for path in (good, bad)]
    found = errors_of(planned(tmp_path, *candidates))
    assert found.keys() == {"bad"} and "llama.attn_logit_softcapping = 30.0" in found["bad"]


def test_dry_run_names_what_would_fail_and_starts_nothing(model: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("candidate,task,metric,value\nm,exam,acc,31%\n")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in solutions(*"ab")))
    config = {
        "name": "run",
        "output": str(tmp_path / "out"),
        "candidates": [{"name": "m", "source": str(model), "drop_layers": 9}],
        "trajectories": [{"task": "t", "path": "t.jsonl"}],
        "measured_scores": [{"format": "csv", "path": "scores.csv"}],
    }
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    code, out, _ = run_forecast("run", tmp_path / "run.yaml", "--dry-run", "--json")
    assert code == 3 and not (tmp_path / "out").exists()
    scores, candidate = json.loads(out)["failed"]
    assert "scores.csv:2" in scores["error"] and "31%" in scores["error"]
    assert candidate["candidate"] == "m" and "drop_layers 9" in candidate["error"]


def test_made_up_candidates_need_no_check(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("a")}, {"a": "fake://1"}))
    assert refused_candidates(plan, plan.units) == []
