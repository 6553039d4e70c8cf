"""Variants of one base model share its reading and nothing else."""

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import VOCABULARY, encoded, load, save_model

from forecast.engines import SequenceStats, hf_loading
from forecast.errors import CandidateError


def config(**others: Any) -> transformers.Qwen3Config:
    return transformers.Qwen3Config(
        **{
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 256,
            **others,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    save_model(path, config())
    return path


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one dtype with every reading of weights from disk."""
    seen: list[str] = []
    original = hf_loading._load_model

    def counted(candidate: Any, files: Any) -> Any:
        seen.append(candidate.dtype)
        return original(candidate, files)

    monkeypatch.setattr(hf_loading, "_load_model", counted)
    return seen


def scores(engine: Any) -> list[SequenceStats]:
    found: list[SequenceStats] = engine.score(encoded(engine))
    return found


def same(one: list[SequenceStats], other: list[SequenceStats]) -> bool:
    return all(np.array_equal(a.logprob, b.logprob) for a, b in zip(one, other, strict=True))


VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"quantize": 3},
    {"drop_layers": 1},
    {"drop_layers": [0], "quantize": 4},
    {"vocab_size": 280},
)


def test_no_variant_leaks_into_another(folder: Path, readings: list[str]) -> None:
    fresh = []
    for variant in VARIANTS[:4]:
        hf_loading.forget_models()
        fresh.append(scores(load(folder, **variant)))
    assert not any(same(fresh[0], other) for other in fresh[1:])
    assert len(readings) == 4
    # All of them alive at once, in either order, each the base model again in between.
    engines = []
    for i in (0, 1, 2, 3, 3, 2, 1, 0):
        engines.append((i, load(folder, **VARIANTS[i])))
        base = load(folder)
        assert base.facts.parameters == engines[0][1].facts.parameters
        assert same(scores(base), fresh[0])
    assert all(same(scores(engine), fresh[i]) for i, engine in engines)
    assert len(readings) == 4


def test_a_closed_engine_leaves_the_next_one_whole(folder: Path, readings: list[str]) -> None:
    first = load(folder)
    expected = scores(first)
    first.close()
    assert same(scores(load(folder)), expected)
    assert len(readings) == 1


def test_settings_of_a_variant_stay_with_it(folder: Path) -> None:
    sizes = [load(folder, **variant).facts.vocab_size for variant in ({}, {"vocab_size": 280}, {})]
    assert sizes == [VOCABULARY, 280, VOCABULARY]


def test_another_dtype_is_read_anew(folder: Path, readings: list[str]) -> None:
    load(folder)
    engine = load(folder, dtype="bfloat16", quantize=4)
    assert engine._model.dtype == torch.bfloat16
    assert readings == ["float32", "bfloat16"]


def test_new_weights_under_the_same_path_are_read_anew(folder: Path, readings: list[str]) -> None:
    before = scores(load(folder))
    save_model(folder, config(), seed=1)
    after = scores(load(folder))
    assert not same(before, after)
    assert len(readings) == 2


def test_a_new_tokenizer_under_the_same_path_is_read_anew(folder: Path) -> None:
    before = encoded(load(folder))
    save_model(folder, config(), bos=True)
    after = encoded(load(folder))
    assert [len(one.input_ids) for one in after] == [len(one.input_ids) + 1 for one in before]


def test_a_tokenizer_that_cuts_at_random_is_refused(folder: Path) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    assert content["model"]["type"] == "BPE"
    content["model"]["dropout"] = 0.1
    file.write_text(json.dumps(content))
    with pytest.raises(CandidateError, match=r"cuts each text at random \(tokenizer\.json: model\.dropout\)"):
        encoded(load(folder))


def weights_of(engine: Any) -> list[Callable[[], Any]]:
    return [weakref.ref(parameter) for parameter in engine._model.parameters()]


def test_large_models_are_not_kept(
    folder: Path, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_loading, "KEEP_BYTES", 1000)
    engine = load(folder)
    weights = weights_of(engine)
    engine.close()
    assert not any(weight() is not None for weight in weights)
    load(folder)
    assert len(readings) == 2


def test_closing_lets_go_of_every_tensor(tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    save_model(tmp_path, transformers.PhiConfig(**shape, vocab_size=VOCABULARY))
    engine = load(tmp_path)

    def held() -> list[str]:
        return [
            key for key, value in vars(engine).items() if isinstance(value, torch.Tensor | torch.nn.Module)
        ]

    assert len(held()) == 4
    engine.close()
    assert held() == []


def test_closing_gives_back_the_copy_and_forgetting_the_base(folder: Path) -> None:
    engine = load(folder)
    weights = weights_of(engine)
    ((base, _),) = hf_loading._kept.values()
    kept = [weakref.ref(parameter) for parameter in base.parameters()]
    del base
    engine.close()
    assert not any(weight() is not None for weight in weights)
    assert all(weight() is not None for weight in kept)
    hf_loading.forget_models()
    gc.collect()
    assert not any(weight() is not None for weight in kept)


def test_one_base_model_is_kept_at_most(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "other", config(), seed=1)
    load(folder)
    kept_while_reading = []
    original = hf_loading._load_model

    def watched(candidate: Any, files: Any) -> Any:
        kept_while_reading.append(len(hf_loading._kept))
        return original(candidate, files)

    monkeypatch.setattr(hf_loading, "_load_model", watched)
    load(tmp_path / "other")
    assert kept_while_reading == [0]
    assert len(hf_loading._kept) == 1
