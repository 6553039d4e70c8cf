"""Chat templates and tokenizers that loop, explode or crash are refused with the reason, within limits."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tiny import resolve, save_tokenizer
from training_runs import stub_checkpoint

from forecast.config.schema import Window
from forecast.engines import bounded_encode
from forecast.engines.bounded_encode import encode_bounded, warm_up
from forecast.engines.encode import Encoded, encode
from forecast.errors import CandidateError
from forecast.inputs.trajectories import Trajectory

TEXTS = [Trajectory("t", str(i), "e", "Question: " + 40 * "a", " an answer") for i in range(3)]


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_encode, "_SECONDS", 2.0)
    monkeypatch.setattr(bounded_encode, "_LOAD_SECONDS", 20.0)
    monkeypatch.setattr(bounded_encode, "MEMORY", 1 << 29)
    warm_up()


def encoded(folder: Path, form: str = "raw") -> list[Any]:
    candidate, _ = resolve(folder)
    options = {"window": Window(), "context_length": None, "truncate_prefix": False}
    return encode_bounded(candidate, TEXTS, prompt_form=form, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = stub_checkpoint(tmp_path / "model")
    save_tokenizer(path)
    return path


def test_result_is_that_of_the_same_process(folder: Path) -> None:
    options: dict[str, Any] = {"prompt_form": "raw", "window": Window(), "context_length": None}
    here = encode(TEXTS, save_tokenizer(folder), candidate="tiny", truncate_prefix=False, **options)
    there = encoded(folder)
    assert len(there) == 3 and all(isinstance(one, Encoded) for one in there)
    for a, b in zip(here, there, strict=True):
        assert isinstance(a, Encoded) and a.trajectory == b.trajectory
        assert a.input_ids.tolist() == b.input_ids.tolist() and a.n_bytes.tolist() == b.n_bytes.tolist()


RANGE = "{% for i in range(99999) %}"
TEMPLATES = {
    "nested loops": (4 * RANGE + "x" + 4 * "{% endfor %}", "not done after|memory"),
    "one long loop": ("{% for i in range(10**9) %}x{% endfor %}", "its chat template fails"),
    "long text": ("{{ 'a' * 10**10 }}", "MemoryError"),
    "power": ("{{ 10 ** (10 ** 9) }}", "not done after"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "its chat template fails"),
    "format": ("{{ '%099999999999d' % 1 }}", "its chat template fails|memory"),
}


def some_slow(kinds: Iterable[str]) -> list[Any]:
    """Each helper process that is ended costs seconds: another imports transformers anew."""
    slow = {"power", "normalizer nested"}
    return [pytest.param(kind, marks=pytest.mark.slow) if kind in slow else kind for kind in kinds]


@pytest.mark.parametrize("kind", some_slow(TEMPLATES))
def test_chat_template_is_refused_within_limits(folder: Path, kind: str) -> None:
    template, message = TEMPLATES[kind]
    (folder / "chat_template.jinja").write_text(template)
    begun = time.monotonic()
    with pytest.raises(CandidateError, match=message) as caught:
        encoded(folder, "chat")
    assert "candidate 'tiny'" in str(caught.value) and "prompt_form: raw" in str(caught.value)
    assert time.monotonic() - begun < 150


def changed(**parts: Any) -> Callable[[dict[str, Any]], None]:
    return lambda tokenizer: tokenizer.update(parts)


def replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


TOKENIZERS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "normalizer explodes": (
        changed(normalizer={"type": "Sequence", "normalizers": 12 * [replace("a", 16 * "a")]}),
        "not done after|SIGABRT|memory",
    ),
    "normalizer nested": (
        changed(normalizer={"type": "Sequence", "normalizers": 9 * [replace("$|^|a", 4000 * "a")]}),
        "not done after|SIGABRT|memory",
    ),
    "pattern backtracks": (
        changed(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": r"((((a|a)*)*)*)*\d\z"},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "its tokenizer",
    ),
    "id without end": (
        lambda tokenizer: tokenizer["model"]["vocab"].update(b=2**32 - 2),
        "tokenizer cannot be loaded.*(SIGABRT|memory)",
    ),
    "not JSON": (lambda tokenizer: tokenizer.clear(), "tokenizer cannot be loaded"),
    "post-processor of unknown tokens": (
        changed(
            post_processor={
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<none>", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        ),
        "PanicException",
    ),
}


@pytest.mark.parametrize("kind", some_slow(TOKENIZERS))
def test_tokenizer_is_refused_within_limits(folder: Path, kind: str) -> None:
    change, message = TOKENIZERS[kind]
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    change(tokenizer)
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(CandidateError, match=message) as caught:
        encoded(folder)
    assert "candidate 'tiny'" in str(caught.value)


def test_next_candidate_is_encoded_after_one_that_was_ended(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").write_text(TEMPLATES["nested loops"][0])
    with pytest.raises(CandidateError):
        encoded(folder, "chat")
    (folder / "chat_template.jinja").unlink()
    assert len(encoded(folder)) == 3
    other = stub_checkpoint(tmp_path / "other")
    save_tokenizer(other, bos=True)
    assert {one.input_ids[0] for one in encoded(other)} == {0}
