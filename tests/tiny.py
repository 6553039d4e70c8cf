"""Tiny random models with a tiny tokenizer, saved the way real ones are."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from forecast.config.schema import Config, EngineConfig, Window
from forecast.engines import Engine, load_engine
from forecast.engines.encode import Encoded, encode
from forecast.inputs.models.resolve import Candidate, resolve_candidate
from forecast.inputs.trajectories import Trajectory

VOCABULARY = 300
SENTENCES = (
    "Question: Janet has 16 eggs and eats 3 of them. How many are left?\nAnswer:",
    " She has 16 - 3 = 13 eggs left.\n#### 13",
    "Question: A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts?\nAnswer:",
    " It takes 2 / 2 = 1 bolt of white fiber, so 2 + 1 = 3 bolts in all.\n#### 3",
    "Say it:",
    " ok",
)
TRAJECTORIES = tuple(
    Trajectory("sums", f"q{i}", "human", SENTENCES[2 * i], SENTENCES[2 * i + 1]) for i in range(3)
) + tuple(
    Trajectory("sums", f"long{i}", "human", SENTENCES[0] * (i + 1), SENTENCES[3] * (3 - i)) for i in range(3)
)


def save_tokenizer(folder: Path, bos: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 300 entries; 0 is `<s>`, 1 is `</s>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    assert len(fast) == VOCABULARY
    fast.save_pretrained(folder)
    return fast


def save_model(folder: Path, config: Any, seed: int = 0, bos: bool = False) -> Any:
    """A random model whose logits spread over several nats, and its tokenizer; returns the model."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.5 * parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    save_tokenizer(folder, bos)
    return model


def resolve(
    source: Path | str, engine: dict[str, Any] | None = None, **settings: Any
) -> tuple[Candidate, Config]:
    """A candidate named `tiny` and the run it belongs to."""
    config = Config.model_validate(
        {
            "name": "test",
            "output": "/nowhere",
            "engine": engine or {},
            "candidates": [{"name": "tiny", "source": str(source), **settings}],
            "trajectories": [{"task": "sums", "path": "/nowhere.jsonl"}],
        }
    )
    return resolve_candidate(config.candidates[0], config), config


def load(
    source: Path | str, batch_tokens: int | None = None, share_prefixes: bool = True, **settings: Any
) -> Any:
    """The engine of a candidate named `tiny`."""
    candidate, _ = resolve(source, **settings)
    config = EngineConfig(batch_tokens=batch_tokens, share_prefixes=share_prefixes)
    engine: Engine = load_engine(candidate, config)
    return engine


def encoded(engine: Engine, trajectories: Sequence[Trajectory] = TRAJECTORIES) -> list[Encoded]:
    """The trajectories as the engine's candidate reads them, all solution tokens scored."""
    found = encode(
        trajectories,
        engine.tokenizer,
        candidate="tiny",
        prompt_form="raw",
        window=Window(),
        context_length=engine.facts.context_length,
        truncate_prefix=False,
    )
    return [one for one in found if isinstance(one, Encoded)]


def shape(**others: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 256,
        "pad_token_id": None,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **others,
    }


def without(settings: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def llama(**others: Any) -> LlamaConfig:
    return LlamaConfig(**shape(**others))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
