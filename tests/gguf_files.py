"""GGUF files of tiny models, written from a folder in Hugging Face layout as llama.cpp's converter does."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tiny
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPACE = "\u2581"
_KINDS = {
    bool: gguf.GGUFValueType.BOOL,
    int: gguf.GGUFValueType.UINT32,
    float: gguf.GGUFValueType.FLOAT32,
    str: gguf.GGUFValueType.STRING,
    list: gguf.GGUFValueType.ARRAY,
}


@dataclass
class File:
    """What a GGUF file holds; tests change it before they write it."""

    architecture: str
    metadata: dict[str, Any]
    tensors: dict[str, np.ndarray]

    def set(self, **values: Any) -> None:
        """Keys of the architecture, with `__` for the dot; None removes one."""
        self.put({f"{self.architecture}.{key.replace('__', '.')}": value for key, value in values.items()})

    def put(self, values: Mapping[str, Any]) -> None:
        """Keys by their full names; None removes one."""
        self.metadata = {k: v for k, v in {**self.metadata, **values}.items() if v is not None}

    def write(self, path: Path) -> Path:
        writer = gguf.GGUFWriter(path, self.architecture)
        for key, value in self.metadata.items():
            writer.add_key_value(key, value, _KINDS[type(value)])
        for name, values in self.tensors.items():
            writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


def converted(folder: Path, architecture: str, pre: str = "gpt-2") -> File:
    """What llama.cpp's converter writes for a folder with a byte-level or a sentencepiece-like vocabulary."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    of_model: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.freq_base": float(rope["rope_theta"]),
        "rope.dimension_count": int(head * rope.get("partial_rotary_factor", 1)),
        "vocab_size": config.vocab_size,
    }
    for field, key in (
        ("rms_norm_eps", "layer_norm_rms_epsilon"),
        ("norm_eps", "layer_norm_epsilon"),
        ("norm_epsilon", "layer_norm_epsilon"),
        ("layer_norm_eps", "layer_norm_epsilon"),
    ):
        if hasattr(config, field):
            of_model[f"attention.{key}"] = float(getattr(config, field))
    metadata = {"general.type": "model", "general.name": "tiny", "general.file_type": 0}
    metadata |= {f"{architecture}.{key}": value for key, value in of_model.items()}
    metadata |= of_tokenizer(AutoTokenizer.from_pretrained(folder), config.vocab_size, pre)
    return File(architecture, metadata, _tensors(model, architecture))


def of_tokenizer(tokenizer: Any, n_rows: int, pre: str) -> dict[str, Any]:
    """The keys that describe a tokenizer, padded to the rows of the embedding."""
    found = json.loads(tokenizer.backend_tokenizer.to_str())
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    added = {entry["id"]: entry["special"] for entry in found["added_tokens"]}
    is_byte_level = not found["model"]["byte_fallback"]
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(n_rows)]

    def kind(number: int, token: str) -> int:
        if number not in by_id:
            return UNUSED
        if number == tokenizer.unk_token_id:
            return UNKNOWN
        if number in added:
            return CONTROL if added[number] else USER_DEFINED
        return BYTE if not is_byte_level and token.startswith("<0x") else NORMAL

    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in found["model"]["merges"]]
    ranks = {merge.replace(" ", ""): rank for rank, merge in reversed(list(enumerate(merges)))}
    values = {
        "model": "gpt2" if is_byte_level else "llama",
        "pre": pre,
        "tokens": tokens,
        "token_type": [kind(*entry) for entry in enumerate(tokens)],
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "unknown_token_id": tokenizer.unk_token_id,
    }
    if is_byte_level:
        values["merges"] = merges
    else:
        values["scores"] = [float(-ranks[token] if token in ranks else -1e6) for token in tokens]
    # AutoTokenizer adds entries of its own to some vocabularies.
    left_out = {
        key for key, value in values.items() if key.endswith("_id") and (value is None or value >= n_rows)
    }
    return {f"tokenizer.ggml.{key}": value for key, value in values.items() if key not in left_out}


def _tensors(model: Any, architecture: str) -> dict[str, np.ndarray]:
    config = model.config
    number = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    found = {}
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        if architecture == "llama" and ".q_proj." in name:
            values = _interleaved(values, config.num_attention_heads)
        if architecture == "llama" and ".k_proj." in name:
            values = _interleaved(values, config.num_key_value_heads)
        if architecture in ("gemma2", "gemma3", "nemotron") and name.endswith("norm.weight"):
            values = values + 1
        if name.endswith("experts.gate_up_proj"):
            block = name.split(".")[2]
            half = values.shape[1] // 2
            found[f"blk.{block}.ffn_gate_exps.weight"] = values[:, :half]
            found[f"blk.{block}.ffn_up_exps.weight"] = values[:, half:]
            continue
        if name.endswith("shared_expert_gate.weight"):
            values = values[0]
        there = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert there is not None, name
        found[there if there.endswith((".weight", ".bias")) else f"{there}.weight"] = values
    return found


def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """The rows of each head as llama.cpp rotates them: in pairs, not in halves."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def save_byte_level(
    folder: Path, splits: tuple[str, ...], texts: tuple[str, ...] = tiny.SENTENCES
) -> PreTrainedTokenizerFast:
    """A byte-level vocabulary whose words are cut by regular expressions, one after another."""
    tokenizer = Tokenizer(models.BPE())
    steps = [pre_tokenizers.Split(Regex(split), behavior="isolated") for split in splits]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tiny.VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return _saved(folder, tokenizer, trainer, texts, False, 0)


def save_sentencepiece(folder: Path, bos: bool = True, prefix: bool = True) -> PreTrainedTokenizerFast:
    """A vocabulary as Llama 2 has it: spaces are letters, bytes stand in for unknown ones."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    before = [normalizers.Prepend(SPACE)] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=tiny.VOCABULARY + 120,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    return _saved(folder, tokenizer, trainer, tiny.SENTENCES, bos, 1)


def _saved(
    folder: Path, tokenizer: Tokenizer, trainer: Any, texts: tuple[str, ...], bos: bool, number: int
) -> PreTrainedTokenizerFast:
    tokenizer.train_from_iterator(texts * 4, trainer)
    made = json.loads(tokenizer.to_str())
    made["added_tokens"] = [entry for entry in made["added_tokens"] if not entry["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(made))
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", number)]
        )
    unknown = {"unk_token": "<unk>"} if number else {}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **unknown)
    fast.save_pretrained(folder)
    return fast
