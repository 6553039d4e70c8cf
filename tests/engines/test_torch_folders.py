"""Folders of models that the engine must refuse: missing or foreign weights, code, pickles."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tiny import (
    change_config,
    change_weights,
    encoded,
    llama,
    load,
    resolve,
    save_model,
    without,
)

from forecast.engines import load_engine
from forecast.engines.hf_loading import forget_models
from forecast.errors import CandidateError


class TestFiles:
    def test_missing_weights(self, folder: Path) -> None:
        change_weights(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
        with pytest.raises(
            CandidateError, match=r"'tiny': missing weights: model\.layers\.1\.mlp\.up_proj\.weight; correct"
        ):
            load(folder)

    def test_missing_head(self, folder: Path) -> None:
        change_weights(folder, lambda weights: weights.pop("lm_head.weight"))
        with pytest.raises(CandidateError, match=r"missing weights: lm_head\.weight; "):
            load(folder)

    def test_a_tied_head_need_not_be_there(self, tmp_path: Path) -> None:
        save_model(tmp_path / "model", llama(tie_word_embeddings=True))
        assert "lm_head.weight" not in load_file(tmp_path / "model" / "model.safetensors")
        load(tmp_path / "model")

    def test_a_tied_model_lacks_its_embedding(self, tmp_path: Path) -> None:
        save_model(tmp_path / "model", llama(tie_word_embeddings=True))
        change_weights(tmp_path / "model", lambda weights: weights.pop("model.embed_tokens.weight"))
        with pytest.raises(CandidateError, match=r"missing weights: .*embed_tokens"):
            load(tmp_path / "model")

    def test_many_missing_weights_are_counted(self, folder: Path) -> None:
        change_config(folder, num_hidden_layers=3)
        with pytest.raises(CandidateError, match=r"missing weights: model\.layers\.2\..* and 4 more; "):
            load(folder)

    def test_weights_of_another_shape(self, folder: Path) -> None:
        change_config(folder, intermediate_size=48)
        with pytest.raises(
            CandidateError,
            match=r"shapes than config\.json gives: model\.layers\.0\.mlp\.down_proj\.weight "
            r"\(\[32, 64\], not \[32, 48\]\), .* and 1 more; correct config\.json",
        ):
            load(folder)

    @pytest.mark.parametrize(
        ("settings", "remedy"),
        [
            ({"_attn_implementation": "flash_attention_9"}, "remove _attn_implementation"),
            ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, r"its type is 'ntk'.*dynamic.*yarn"),
            ({"rope_scaling": {"type": "linear"}}, "factor.*correct it"),
            ({"num_attention_heads": 0}, "correct it, or copy or download it again"),
            ({"num_attention_heads": "4"}, "expected int.*correct it"),
            ({"hidden_act": "unheard-of"}, "unheard-of.*correct it"),
            ({"quantization_config": "none"}, "correct it"),
            ({"transformers_version": "4.0.0", "num_key_value_heads": 0}, r"written by transformers 4\.0\.0"),
        ],
    )
    def test_config_that_cannot_be_used_is_named_with_its_remedy(
        self, settings: dict[str, Any], remedy: str, folder: Path
    ) -> None:
        change_config(folder, **settings)
        with pytest.raises(CandidateError, match=rf"'tiny': its config\.json cannot be loaded: .*{remedy}"):
            load(folder)

    @pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
    def test_byte_order_mark_is_named_with_its_remedy(self, file: str, folder: Path) -> None:
        (folder / file).write_bytes(b"\xef\xbb\xbf" + (folder / file).read_bytes())
        with pytest.raises(CandidateError, match=rf"{file} begins with a byte order mark; save it"):
            load(folder)

    @pytest.mark.parametrize(
        ("before", "inside"),
        [
            ("_orig_mod.", ""),
            ("module.", ""),
            ("module._orig_mod.", ""),
            ("_fsdp_wrapped_module.", ""),
            ("", "_orig_mod."),
        ],
    )
    def test_weights_named_by_a_wrapper_of_the_model(self, before: str, inside: str, folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        renamed = {before + n.replace(".mlp.", f".mlp.{inside}"): w for n, w in weights.items()}
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(
            CandidateError, match=rf"missing weights: .*wrapper.*{before}.*save the model inside"
        ):
            load(folder)

    def test_an_unknown_architecture(self, folder: Path) -> None:
        change_config(folder, model_type="unheard-of", architectures=["Unheard"])
        with pytest.raises(CandidateError, match=r"'tiny'.*config.json cannot be loaded.*unheard-of"):
            load(folder)

    def test_no_tokenizer(self, folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        with pytest.raises(CandidateError, match="'tiny': its tokenizer cannot be loaded"):
            load(folder)

    @pytest.mark.parametrize("kept", [False, True])
    def test_files_changed_since_planning(self, folder: Path, kept: bool) -> None:
        candidate, config = resolve(folder)
        if kept:
            load_engine(candidate, config.engine).close()
        change_weights(folder, lambda weights: weights["lm_head.weight"].mul_(2))
        with pytest.raises(CandidateError, match="'tiny': its files changed since the run was planned"):
            load_engine(candidate, config.engine)

    def test_pickled_weights_need_leave(self, folder: Path) -> None:
        expected = load(folder).score(encoded(load(folder)))
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(CandidateError, match=r"pytorch_model\.bin is pickled"):
            load(folder)
        allowed = load(folder, allow_pickle=True)
        for one, other in zip(expected, allowed.score(encoded(allowed)), strict=True):
            np.testing.assert_array_equal(one.logprob, other.logprob)


class TestFilesBesideTheModel:
    """What lies beside the files that are in the fingerprint changes neither numbers nor fingerprint."""

    def test_is_not_read(self, folder: Path) -> None:
        (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
        before, _ = resolve(folder, prompt_form="chat")
        expected = scores(folder)
        foreign = load_file(folder / "model.safetensors")
        for tensor in foreign.values():
            tensor.mul_(2)
        save_file(foreign, folder / "adapter_model.safetensors")
        save_file(foreign, folder / "consolidated.safetensors")
        torch.save(foreign, folder / "pytorch_model.bin")
        (folder / "additional_chat_templates").mkdir()
        for name in ("tool_use", "rag"):
            (folder / "additional_chat_templates" / f"{name}.jinja").write_text("other")
        (folder / "generation_config.json").write_text("[")
        (folder / "tokenizer.model.v3").write_text("other")
        after, _ = resolve(folder, prompt_form="chat")
        assert after.candidate_id == before.candidate_id
        forget_models()
        np.testing.assert_array_equal(scores(folder), expected)
        assert load(folder).tokenizer.chat_template == "{{ messages[0].content }}"

    def test_a_stale_index_is_not_read(self, folder: Path) -> None:
        expected = scores(folder)
        index = {"weight_map": {"lm_head.weight": "gone.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        np.testing.assert_array_equal(scores(folder), expected)


def scores(folder: Path) -> NDArray[np.float32]:
    engine = load(folder)
    return np.concatenate([one.logprob for one in engine.score(encoded(engine))])


class _Marker:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class TestCodeInTheFolder:
    """A candidate's folder can hold code; it runs only with the user's leave."""

    @pytest.fixture
    def marker(self, tmp_path: Path) -> Path:
        return tmp_path / "code-has-run"

    @pytest.fixture(autouse=True)
    def _own_modules(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
        monkeypatch.syspath_prepend(str(tmp_path / "modules"))

    @pytest.fixture
    def armed(self, folder: Path, marker: Path) -> Path:
        """A model whose classes are its own code."""
        (folder / "custom_code.py").write_text(
            f"open({str(marker)!r}, 'w').close()\n"
            "from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast\n"
            "class CustomConfig(LlamaConfig):\n    model_type = 'custom'\n"
            "class CustomModel(LlamaForCausalLM):\n    config_class = CustomConfig\n"
            "class CustomTokenizer(PreTrainedTokenizerFast):\n    pass\n"
        )
        classes = {"AutoConfig": "CustomConfig", "AutoModelForCausalLM": "CustomModel"}
        change_config(folder, auto_map={key: f"custom_code.{name}" for key, name in classes.items()})
        path = folder / "tokenizer_config.json"
        tokenizer = json.loads(path.read_text())
        tokenizer["auto_map"] = {"AutoTokenizer": [None, "custom_code.CustomTokenizer"]}
        path.write_text(json.dumps({**tokenizer, "tokenizer_class": "CustomTokenizer"}))
        return folder

    def test_of_an_unknown_architecture_is_refused(self, armed: Path, marker: Path) -> None:
        change_config(armed, model_type="custom")
        with pytest.raises(CandidateError, match=r"'tiny'.*cannot be loaded"):
            load(armed)
        assert not marker.exists()

    def test_of_a_known_architecture_is_not_needed(self, armed: Path, marker: Path) -> None:
        path = armed / "tokenizer_config.json"
        path.write_text(json.dumps(without(json.loads(path.read_text()), "auto_map", "tokenizer_class")))
        engine = load(armed)
        assert engine.score(encoded(engine))
        assert not marker.exists()

    def test_runs_with_leave(self, armed: Path, marker: Path) -> None:
        change_config(armed, model_type="custom")
        engine = load(armed, allow_remote_code=True)
        assert engine.score(encoded(engine))
        assert marker.exists()

    def test_in_a_pickle_beside_safetensors_is_not_read(self, folder: Path, marker: Path) -> None:
        torch.save({"weights": _Marker(marker)}, folder / "pytorch_model.bin")
        load(folder)
        load(folder, allow_pickle=True)
        assert not marker.exists()

    def test_in_a_pickle_does_not_run_even_with_leave(self, folder: Path, marker: Path) -> None:
        torch.save({"weights": _Marker(marker)}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(CandidateError, match="'tiny': its weights cannot be loaded"):
            load(folder, allow_pickle=True)
        assert not marker.exists()
