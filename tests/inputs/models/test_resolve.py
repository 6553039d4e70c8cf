"""Candidates: what identifies them, and what is said about files that are missing, damaged or dangerous."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import huggingface_hub.constants
import numpy as np
import pytest
from safetensors.numpy import save_file

from forecast.config.schema import CandidateConfig, Config
from forecast.errors import CandidateError
from forecast.inputs.models import resolve
from forecast.inputs.models.resolve import Candidate, locate_files, native_dtype, resolve_candidate

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)
BIAS = np.zeros(5, dtype=np.float32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder: 17 parameters in one file."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "tokenizer.json").write_text("{}")
    (path / "chat_template.jinja").write_text("{{ messages }}")
    (path / "README.md").write_text("a model")
    (path / "generation_config.json").write_text("{}")
    save_file({"weight": WEIGHT, "bias": BIAS}, path / "model.safetensors")
    return path


@pytest.fixture
def sharded(folder: Path) -> Path:
    """The same parameters in two files and their index."""
    (folder / "model.safetensors").unlink()
    shards = {"weight": "model-00001-of-00002.safetensors", "bias": "model-00002-of-00002.safetensors"}
    save_file({"weight": WEIGHT}, folder / shards["weight"])
    save_file({"bias": BIAS}, folder / shards["bias"])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    return folder


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", WEIGHT)
    writer.add_tensor("output_norm.bias", BIAS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def resolved(source: Path | str, run: dict[str, Any] | None = None, **settings: Any) -> Candidate:
    candidate = {"name": "it", "source": str(source), **settings}
    config = Config.model_validate(
        {
            "name": "run",
            "output": "out",
            "candidates": [candidate],
            "trajectories": [{"task": "t", "path": "t.jsonl"}],
            **(run or {}),
        }
    )
    return resolve_candidate(config.candidates[0], config)


def complaint(source: Path | str, **settings: Any) -> str:
    with pytest.raises(CandidateError) as caught:
        resolved(source, **settings)
    message = str(caught.value)
    assert message.startswith("candidate 'it': ")
    return message


def test_parameters_are_counted_by_the_headers(folder: Path, gguf_file: Path) -> None:
    assert resolved(folder).parameters == 17
    assert resolved(gguf_file).parameters == 17
    assert resolved(folder, parameters=135).parameters == 135


def test_shards_count_once_and_stray_weight_files_not_at_all(sharded: Path) -> None:
    save_file({"lora": WEIGHT}, sharded / "adapter_model.safetensors")
    save_file({"weight": WEIGHT, "bias": BIAS}, sharded / "consolidated.safetensors")
    assert resolved(sharded).parameters == 17
    assert [p.name for p in locate_files(CandidateConfig(name="it", source=str(sharded))).weights] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_equal_files_elsewhere_are_the_same_candidate(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "renamed"
    shutil.copytree(folder, copy)
    assert resolved(copy, name="other", family="f").candidate_id == resolved(folder).candidate_id


def test_an_equal_gguf_file_of_another_name_is_the_same_candidate(gguf_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "renamed.gguf"
    shutil.copy(gguf_file, copy)
    assert resolved(copy).candidate_id == resolved(gguf_file).candidate_id


@pytest.mark.parametrize(
    "name", ["README.md", "generation_config.json", "trainer_state.json", "optimizer.bin"]
)
def test_files_that_cannot_change_a_number_do_not_change_the_id(name: str, folder: Path) -> None:
    before = resolved(folder).candidate_id
    (folder / name).write_text('{"another": "text"}')
    assert resolved(folder).candidate_id == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja", "vocab.txt"])
def test_files_that_can_change_a_number_change_the_id(name: str, folder: Path) -> None:
    before = resolved(folder).candidate_id
    (folder / name).write_text('{"another": "text"}')
    assert resolved(folder).candidate_id != before


def test_another_weight_is_another_candidate_under_the_same_name(folder: Path) -> None:
    before = resolved(folder).candidate_id
    save_file({"weight": WEIGHT + 1, "bias": BIAS}, folder / "model.safetensors")
    assert resolved(folder).candidate_id != before


def test_settings_that_can_change_a_number_change_the_id(folder: Path) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"dtype": "bfloat16"},
        {"dtype": "float16"},
        {"quantize": 4},
        {"quantize": 8},
        {"quantize": {"bits": 4, "group_size": 32}},
        {"drop_layers": 1},
        {"drop_layers": [1]},
        {"prompt_form": "chat"},
        {"vocab_size": 10},
        {"context_length": 10},
    ]
    assert len({resolved(folder, **variant).candidate_id for variant in variants}) == len(variants)


def test_a_runs_defaults_count_like_the_candidates_own_settings(folder: Path) -> None:
    own = resolved(folder, dtype="bfloat16", prompt_form="chat")
    inherited = resolved(folder, {"engine": {"dtype": "bfloat16"}, "prompt_form": "chat"})
    assert (inherited.dtype, inherited.prompt_form) == ("bfloat16", "chat")
    assert inherited.candidate_id == own.candidate_id


def test_code_of_the_model_counts_where_it_may_run(folder: Path) -> None:
    (folder / "modeling.py").write_text("x = 1")
    refused, allowed = resolved(folder), resolved(folder, allow_remote_code=True)
    (folder / "modeling.py").write_text("x = 2")
    assert resolved(folder).candidate_id == refused.candidate_id
    assert resolved(folder, allow_remote_code=True).candidate_id != allowed.candidate_id


def test_made_up_candidates_have_no_files() -> None:
    run = {"engine": {"kind": "fake"}}
    one, other = resolved("fake://1", run), resolved("fake://2", run)
    assert one.files_digest is None
    assert one.candidate_id != other.candidate_id


def test_auto_dtype_is_settled_by_the_machine(folder: Path) -> None:
    assert resolved(folder, dtype="auto").dtype == native_dtype(on_gpu=False)
    assert resolved(folder, {"cluster": {"gpus_per_actor": 1}}, dtype="auto").dtype == "bfloat16"


def with_header(header: str) -> bytes:
    """A safetensors file of this header and three numbers."""
    return len(header).to_bytes(8, "little") + header.encode() + bytes(12)


def lying(shape: str) -> str:
    """The header of a tensor whose three numbers are given another shape."""
    return f'{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, 12]}}}}'


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (remove("config.json"), "{folder} has no config.json; expected a folder in Hugging Face layout"),
        (
            remove("model.safetensors"),
            "missing weights: neither model.safetensors nor its .index.json in {folder}",
        ),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "missing weights: no model.safetensors in {folder}; pytorch_model.bin is pickled and can run "
            "code when loaded: convert it to safetensors, or set allow_pickle: true",
        ),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "adapter_model.safetensors"),
            "missing weights: neither model.safetensors",
        ),
    ],
)
def test_missing_files_are_named(spoil: Callable[[Path], None], expected: str, folder: Path) -> None:
    spoil(folder)
    assert expected.format(folder=folder) in complaint(folder)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    assert (
        f"missing weights: {sharded}/model.safetensors.index.json names model-00002-of-00002.safetensors, "
        "not in the folder"
    ) in complaint(sharded)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 1}'])
def test_a_damaged_index_is_named(content: str, sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text(content)
    assert f"{sharded}/model.safetensors.index.json is damaged" in complaint(sharded)


def test_pickled_weights_load_only_where_they_are_trusted(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    candidate = resolved(folder, allow_pickle=True)
    assert candidate.parameters is None
    (folder / "pytorch_model.bin").write_bytes(b"another")
    assert resolved(folder, allow_pickle=True).candidate_id != candidate.candidate_id


@pytest.mark.parametrize("cut", [1, 60])
def test_truncated_safetensors_are_named(cut: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-cut])
    expected = f"{path} is not a safetensors file or is truncated or damaged"
    message = complaint(folder)
    assert expected in message
    assert "copy or download it again" in message
    path.write_bytes(path.read_bytes()[:20])
    assert expected in complaint(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 30,
        b"\x02" + b"\x00" * 7 + b"[]",
        b"\x08" + b"\x00" * 7 + b'{"a": 1}',
        b"text" * 9,
        (1 << 40).to_bytes(8, "little") + b"{}",
        with_header("[" * 100_000),
        with_header('{"a":' * 100_000 + "1" + "}" * 100_000),
        *(
            with_header(lying(shape))
            for shape in ("[NaN]", "[-3]", "[3.0]", "[4]", "[1e9]", "3", f"[{2**62},9]")
        ),
    ],
)
def test_what_is_no_safetensors_file_is_named(content: bytes, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(content)
    message = complaint(folder)
    assert f"{folder}/model.safetensors is not a safetensors file or is truncated or damaged" in message
    assert "copy or download it again" in message


@pytest.mark.parametrize("cut", [20, 60, 200])  # the last 12 bytes are padding
def test_truncated_gguf_is_named(cut: int, gguf_file: Path) -> None:
    gguf_file.write_bytes(gguf_file.read_bytes()[:-cut])
    message = complaint(gguf_file)
    assert f"{gguf_file} is not a GGUF file or is truncated" in message
    assert "copy or download it again" in message


@pytest.mark.parametrize("content", [b"", b"GGUF", b"text" * 99])
def test_what_is_no_gguf_file_is_named(content: bytes, gguf_file: Path) -> None:
    gguf_file.write_bytes(content)
    assert f"{gguf_file} is not a GGUF file or is truncated" in complaint(gguf_file)


def test_a_gguf_file_that_was_good_is_checked_again_when_it_has_changed(gguf_file: Path) -> None:
    assert resolved(gguf_file).parameters == 17
    gguf_file.write_bytes(gguf_file.read_bytes()[:-20])
    assert "is truncated" in complaint(gguf_file)


def test_sources_that_are_nowhere_are_named(tmp_path: Path) -> None:
    assert f"no model folder at {tmp_path}/none" in complaint(tmp_path / "none")
    assert f"no GGUF file at {tmp_path}/none.gguf" in complaint(tmp_path / "none.gguf")
    assert "the Python package 'no-such-dist' is not installed; `pip install no-such-dist`" in complaint(
        "package://no-such-dist/x.gguf"
    )


def test_a_hub_id_is_found_in_the_hub_cache_without_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "hub" / "models--org--model"
    shutil.copytree(folder, cached / "snapshots" / "0123abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolved("org/model").candidate_id == resolved(folder).candidate_id
    assert (
        "'org/none' is not a folder on this machine and could not be downloaded from the model hub"
        in complaint("org/none")
    )


@pytest.mark.parametrize(
    ("settings", "revision"),
    [
        ({"source": "org/m"}, None),
        ({"source": "org/m@v1"}, "v1"),
        ({"source": "org/m", "revision": "v2"}, "v2"),
    ],
)
def test_the_revision_of_a_hub_id(
    settings: dict[str, Any], revision: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def snapshot_download(repo: str, revision: str | None, **_: Any) -> str:
        asked.append((repo, revision))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    locate_files(CandidateConfig(name="it", **settings))
    assert asked == [("org/m", revision)]


def test_native_dtype_needs_native_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, expected in [
        ("sse avx512_bf16", "bfloat16"),
        ("fpu amx_bf16", "bfloat16"),
        ("avx2", "float32"),
    ]:
        monkeypatch.setattr(resolve.Path, "read_text", lambda self, flags=flags: f"flags : {flags}\n")
        assert native_dtype(on_gpu=False) == expected
    assert native_dtype(on_gpu=True) == "bfloat16"


@pytest.mark.parametrize(("source", "kind"), [("fake://1", "torch"), ("org/model", "fake")])
def test_made_up_candidates_and_the_fake_engine_go_together(source: str, kind: str) -> None:
    config = Config.model_validate(
        {
            "name": "x",
            "output": "out",
            "engine": {"kind": kind},
            "candidates": [{"name": "a", "source": source}],
            "trajectories": [{"task": "t", "path": "t.jsonl"}],
        }
    )
    with pytest.raises(
        CandidateError, match=r"candidate 'a': fake:// sources and engine: \{kind: fake\} go together"
    ):
        resolve_candidate(config.candidates[0], config)
