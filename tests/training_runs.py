"""Training runs whose checkpoints arrive: folders of tiny models, whole, half-written or damaged."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

MARKER = "_SUCCESS"


def train(folder: Path, checkpoints: int, every: int = 4) -> list[Path]:
    """Train a tiny model on a handful of texts; its checkpoints, better and better, each a folder."""
    import torch  # here, because most tests make do with stubs
    from tiny import SENTENCES, VOCABULARY, save_tokenizer
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    tokenizer = save_tokenizer(folder / "tokenizer")
    texts = [SENTENCES[i] + SENTENCES[i + 1] for i in range(0, len(SENTENCES), 2)]
    batches = [torch.tensor([tokenizer(text)["input_ids"]]) for text in texts]
    found = []
    for number in range(checkpoints):
        for _ in range(every):
            optimizer.zero_grad()
            loss = sum(model(input_ids=ids, labels=ids).loss for ids in batches)
            loss.backward()
            optimizer.step()
        path = folder / str(number)
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        found.append(path)
    return found


def stub_checkpoint(path: Path, seed: int = 0, marker: str | None = MARKER) -> Path:
    """A folder that looks like a model without being one: enough for a plan, not for an engine."""
    path.mkdir(parents=True)
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "tokenizer.json").write_text("{}")
    rng = np.random.default_rng(seed)
    save_file({"weight": rng.normal(size=(3, 4)).astype(np.float32)}, path / "model.safetensors")
    if marker is not None:
        (path / marker).touch()
    return path


def arrive(source: Path, run: Path, step: int, whole: bool = True) -> Path:
    """A checkpoint appears in a watched folder; one that is not whole lacks half its weights and marker."""
    target = run / f"step_{step}"
    shutil.copytree(source, target)
    if whole:
        (target / MARKER).touch()
    else:
        truncate(target)
    return target


def complete(source: Path, target: Path) -> None:
    """The rest of a half-written checkpoint is there."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    (target / MARKER).touch()


def truncate(checkpoint: Path) -> None:
    """Cut the weights of a checkpoint in half."""
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def inputs(folder: Path, questions: int = 20) -> dict[str, Any]:
    """Sections of a configuration: three solutions of task `sums`, and questions of two options of `quiz`."""
    from tiny import SENTENCES

    folder.mkdir(parents=True, exist_ok=True)
    solutions = [{"prompt": SENTENCES[2 * i], "solution": SENTENCES[2 * i + 1]} for i in range(3)]
    rows = []
    for i in range(questions):
        # The beginning of the right solution against that of another one, of equal length.
        options = [SENTENCES[2 * ((i + k) % 2) + 1][: 8 + i] for k in (i % 3 == 0, i % 3 != 0)]
        rows.append(
            {
                "id": f"q{i:02}",
                "prompt": SENTENCES[2 * (i % 2)],
                "options": options,
                "answer": int(i % 3 == 0),
            }
        )
    return {
        "trajectories": [{"task": "sums", "path": written(folder / "solutions.jsonl", solutions)}],
        "direct_evaluation": [
            {
                "task": "quiz",
                "path": written(folder / "questions.jsonl", rows),
                "prompt_template": "{prompt}",
                "choices": "options",
                "answer": "answer",
                "instance_id": "id",
                "choice_prefix": "",
            }
        ],
    }


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    """The path of a new file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
