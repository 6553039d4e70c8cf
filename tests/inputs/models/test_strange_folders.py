"""Model folders that are no whole model, or mislead: each is refused when planned, and the others go on."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from forecast.config.schema import CandidateConfig, Config
from forecast.inputs.models.resolve import locate_files
from forecast.plan import make_plan

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)
INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make_folder(path: Path) -> Path:
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "tokenizer.json").write_text("{}")
    save_file({"weight": WEIGHT}, path / "model.safetensors")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "strange")


def refusal(source: Path | str, tmp_path: Path, **settings: Any) -> str:
    """Why a candidate was not planned, as the only one of two."""
    trajectories = tmp_path / "t.jsonl"
    trajectories.write_text('{"prompt": "p", "solution": "s", "instance_id": "1"}\n')
    good = tmp_path / "good"
    plan = make_plan(
        Config.model_validate(
            {
                "name": "run",
                "output": str(tmp_path / "out"),
                "candidates": [
                    {"name": "strange", "source": str(source), **settings},
                    {"name": "good", "source": str(good if good.exists() else make_folder(good))},
                ],
                "trajectories": [{"task": "t", "path": str(trajectories)}],
            }
        )
    )
    assert [candidate.name for candidate in plan.candidates] == ["good"]
    assert len(plan.units) == 1
    (failure,) = plan.failures
    assert (failure.subject, failure.name) == ("candidate", "strange")
    assert failure.error.startswith("candidate 'strange': ")
    assert "\n" not in failure.error
    assert len(failure.error) < 1000
    return failure.error


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "org/base", "peft_type": "LORA"}'
    )
    save_file({"lora": WEIGHT}, folder / "adapter_model.safetensors")


def index_of(folder: Path, *shards: object) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {f"w{i}": s for i, s in enumerate(shards)}}))


def test_an_adapter_is_said_to_be_one_and_how_to_merge_it(folder: Path, tmp_path: Path) -> None:
    adapter(folder)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()
    message = refusal(folder, tmp_path)
    assert f"{folder} is an adapter of base 'org/base' and no whole model" in message
    assert "merge_and_unload().save_pretrained(" in message


def test_an_adapter_beside_a_whole_model_is_refused(folder: Path, tmp_path: Path) -> None:
    adapter(folder)
    message = refusal(folder, tmp_path)
    assert "holds an adapter (adapter_config.json) beside a whole model" in message
    assert "remove adapter_config.json" in message


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "weights", 7, None, ["model.safetensors"]])
def test_an_index_of_other_files_is_refused(shard: object, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    index_of(folder, shard)
    assert f"{folder}/{INDEX} is damaged: its weight_map has {shard!r}" in refusal(folder, tmp_path)


@pytest.mark.parametrize(
    "shard", ["../good/model.safetensors", "/etc/model.safetensors", "sub/a.safetensors"]
)
def test_an_index_does_not_lead_out_of_the_folder(shard: str, folder: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "good")
    (folder / "model.safetensors").unlink()
    index_of(folder, shard)
    assert f"{INDEX} names {shard}, not in the folder" in refusal(folder, tmp_path)


def test_a_tensor_in_two_files_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    save_file({"weight": WEIGHT + 1}, folder / "b.safetensors")
    index_of(folder, "a.safetensors", "b.safetensors")
    assert "a.safetensors and " in (message := refusal(folder, tmp_path))
    assert "b.safetensors both hold 'weight'" in message


@pytest.mark.parametrize("file", ["config.json", INDEX, "adapter_config.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[]",
        b"\xff\xfe",
        b'{"a": ' + b"9" * 5000 + b"}",
        b"",
        b'{"a": 1, "a": 1}',
    ],
)
def test_damaged_json_is_named(file: str, content: bytes, folder: Path, tmp_path: Path) -> None:
    if file == INDEX:
        (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(content)
    assert f"{folder}/{file} is damaged" in refusal(folder, tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        '{"num_hidden_layers": 1000000}',
        '{"text_config": {"n_layer": 1e300}}',
        '{"num_labels": 10000000000}',
        '{"n_layers": Infinity}',
        '{"num_layers": NaN}',
    ],
)
def test_counts_that_would_take_hours_are_named(config: str, folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text(config)
    message = refusal(folder, tmp_path)
    assert f"in {folder}/config.json, expected at most 100000" in message


def test_weights_of_another_name_in_the_configuration_are_refused(folder: Path, tmp_path: Path) -> None:
    save_file({"weight": WEIGHT + 1}, folder / "other.safetensors")
    (folder / "config.json").write_text('{"transformers_weights": "other.safetensors"}')
    assert "transformers_weights in " in refusal(folder, tmp_path)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_another_repository_is_refused(file: str, folder: Path, tmp_path: Path) -> None:
    (folder / file).write_text('{"auto_map": {"AutoConfig": "org/other--code.Config"}}')
    assert f"auto_map in {folder}/{file}" in refusal(folder, tmp_path, allow_remote_code=True)
    assert locate_files(CandidateConfig(name="it", source=str(folder))).parameters == 12


def test_a_file_that_was_never_written_is_refused(folder: Path, tmp_path: Path) -> None:
    size = 1 << 31
    header = f'{{"a": {{"dtype": "U8", "shape": [{size}], "data_offsets": [0, {size}]}}}}'.encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    assert f"of the {8 + len(header) + size} bytes of {folder}/model.safetensors only " in refusal(
        folder, tmp_path
    )


def test_a_default_template_in_another_place_is_refused(folder: Path, tmp_path: Path) -> None:
    place = folder / "additional_chat_templates"
    place.mkdir()
    (place / "tool_use.jinja").write_text("x")
    (place / "default.jinja").write_text("x")
    assert f"move it to {folder}/chat_template.jinja" in refusal(folder, tmp_path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def nothing(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors", "tokenizer.json", "adapter_config.json"]
)
@pytest.mark.parametrize("replace", [pipe, device, nothing, itself])
def test_what_is_no_regular_file_is_named(
    replace: Callable[[Path], None], file: str, folder: Path, tmp_path: Path
) -> None:
    (folder / file).unlink(missing_ok=True)
    replace(folder / file)
    assert f"{folder}/{file} is no regular file, or a link that leads nowhere" in refusal(folder, tmp_path)


def test_a_shard_that_is_no_regular_file_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    device(folder / "a.safetensors")
    index_of(folder, "a.safetensors")
    assert f"{folder}/a.safetensors is no regular file" in refusal(folder, tmp_path)


def test_a_vocabulary_of_terabytes_is_not_read(folder: Path, tmp_path: Path) -> None:
    with (folder / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    assert f"{folder}/tokenizer.json has {1 << 40} bytes" in refusal(folder, tmp_path)


def test_a_name_too_long_is_refused(tmp_path: Path) -> None:
    assert "File name too long" in refusal(tmp_path / ("x" * 300), tmp_path)


def test_a_folder_that_may_not_be_read_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)  # the tests may run as a user who may read everything
    assert "cannot be read: PermissionError" in refusal(folder, tmp_path)


def test_names_that_are_no_text_do_no_harm(folder: Path) -> None:
    settings = CandidateConfig(name="it", source=str(folder))
    before = locate_files(settings).digest()
    (folder / os.fsdecode(b"\xff.md")).write_text("{}")
    assert locate_files(settings).digest() == before
    (folder / os.fsdecode(b"\xff.json")).write_text("{}")
    assert locate_files(settings).digest() != before
