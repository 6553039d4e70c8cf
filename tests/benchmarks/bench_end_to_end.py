"""Tokens per CPU second of engines on real texts: ours, lm-evaluation-harness, plain transformers, vLLM.

All contenders of one dtype read the same texts with the same weights and threads, in turns. The harness runs
at the best of three batch sizes and returns a sum of log-probabilities; "plain" is what people write by hand,
log_softmax over all positions, batch of one; "bare" is the forward pass with the output head at the scored
positions and nothing else, in our batches, with our matrix products, without sharing. vLLM runs afterwards,
in a process of its own.

    python tests/benchmarks/bench_end_to_end.py [--items 8] [--rounds 2] [--threads 1] [--skip-vllm]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import interleaved, machine, verdict, write
from workloads import save_model, workloads

from forecast.config.schema import Config, Window
from forecast.engines import load_engine
from forecast.engines.encode import Encoded, encode
from forecast.inputs.models.resolve import resolve_candidate
from forecast.inputs.trajectories import Trajectory
from forecast.tokenstats.onednn_linear import linear


def engine_of(folder: str, dtype: str, **engine: Any) -> Any:
    config = Config.model_validate(
        {
            "name": "benchmark",
            "output": "unused",
            "engine": {"dtype": dtype, **engine},
            "candidates": [{"name": "SmolLM2-135M", "source": folder}],
            "trajectories": [{"task": "gsm8k", "path": "unused.jsonl"}],
        }
    )
    return load_engine(resolve_candidate(config.candidates[0], config), config.engine)


def encoded(engine: Any, texts: list[Trajectory]) -> list[Encoded]:
    found = encode(
        texts,
        engine.tokenizer,
        candidate="SmolLM2-135M",
        prompt_form="raw",
        window=Window(),
        context_length=engine.facts.context_length,
        truncate_prefix=False,
    )
    return [one for one in found if isinstance(one, Encoded)]


def plain_transformers(model: Any, sequences: list[Encoded]) -> None:
    with torch.inference_mode():
        for one in sequences:
            ids = torch.from_numpy(one.input_ids)[None]
            log_p = torch.log_softmax(model(input_ids=ids, use_cache=False).logits.float(), dim=-1)
            log_p[0, :-1].gather(1, ids[0, 1:, None])[one.first_scored - 1 :].tolist()


def bare_forward(engine: Any, sequences: list[Encoded]) -> None:
    """The same batches and positions as our engine's; the head's product is made in blocks and dropped."""
    with torch.inference_mode():
        ids = [one.input_ids for one in sequences]
        for found in engine._reader.read(ids, [one.first_scored for one in sequences]):
            for block in found.hidden.split(256):
                linear(block, engine._head)


def harness(folder: str, dtype: str, batch_size: int) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=folder, device="cpu", dtype=dtype, batch_size=batch_size)


def run_harness(model: Any, texts: list[Trajectory]) -> list[float]:
    from lm_eval.api.instance import Instance

    requests = [Instance("loglikelihood", {}, (t.prompt, t.solution), i) for i, t in enumerate(texts)]
    return [total for total, _ in model.loglikelihood(requests, disable_tqdm=True)]


def torch_contenders(folder: str, dtype: str, items: int, rounds: int) -> dict[str, Any]:
    ours, apart = engine_of(folder, dtype), engine_of(folder, dtype, share_prefixes=False)
    texts = workloads(items)
    sizes = (1, 8, 32)
    models = {size: harness(folder, dtype, size) for size in sizes}
    plain = models[1].model  # untouched by us
    tried = {}
    for size, model in models.items():
        started = time.process_time()
        run_harness(model, texts["zero_shot"])
        tried[size] = time.process_time() - started
    best = min(tried, key=lambda size: tried[size])
    record: dict[str, Any] = {}
    for workload, own in texts.items():
        sequences = encoded(ours, own)
        tokens = sum(len(one.input_ids) for one in sequences)
        scored = sum(len(one.n_bytes) for one in sequences)
        sums: list[list[float]] = []
        contenders = {
            "ours": lambda sequences=sequences: (ours._reader.forget(), ours.score(sequences)),
            "lm_eval": lambda own=own, sums=sums: sums.append(run_harness(models[best], own)),
        }
        if workload == "zero_shot":
            contenders["plain_transformers"] = lambda s=sequences: plain_transformers(plain, s)
            contenders["bare_forward"] = lambda sequences=sequences: bare_forward(apart, sequences)
            contenders["ours_apart"] = lambda sequences=sequences: apart.score(sequences)
        ours.score(sequences[:1])  # warms up, as the trials above did for the harness
        seconds = interleaved(contenders, rounds, warm_up=False)
        # The same thing is computed: the harness's sums against the sums of our log-probabilities.
        theirs = sums[-1]
        mine = [float(stats.logprob.sum()) for stats in ours.score(sequences)]
        off = max(
            abs(a - b) / max(1, len(s.n_bytes)) for a, b, s in zip(mine, theirs, sequences, strict=True)
        )
        record[workload] = {
            "texts": len(own),
            "tokens": tokens,
            "scored_tokens": scored,
            "lm_eval_batch_size": best,
            "largest_difference_to_lm_eval_nats_per_token": off,
            "seconds": seconds,
            "tokens_per_second": {name: tokens / each["best"] for name, each in seconds.items()},
        }
        speeds = ", ".join(f"{k} {v:,.0f}" for k, v in record[workload]["tokens_per_second"].items())
        print(f"{dtype} {workload}: tokens/s: {speeds}; off by {off:.2g} nats a token", flush=True)
    return record


def vllm_contenders(folder: str, dtype: str, items: int, rounds: int) -> dict[str, Any]:
    engine = engine_of(folder, dtype, kind="vllm")
    record: dict[str, Any] = {}
    for workload, own in workloads(items).items():
        sequences = encoded(engine, own)

        def prompt_logprobs(chosen: list[Encoded], k: int) -> None:
            params = engine._sampling_params(
                max_tokens=1, temperature=0, detokenize=False, prompt_logprobs=k, flat_logprobs=True
            )
            prompts = [{"prompt_token_ids": one.input_ids.tolist()} for one in chosen]
            engine._llm.generate(prompts, [params] * len(prompts), use_tqdm=False)

        def ours(chosen: list[Encoded] = sequences) -> None:
            engine._llm.reset_prefix_cache()
            engine.score(chosen)

        def top20(chosen: list[Encoded] = sequences) -> None:
            prompt_logprobs(chosen, 20)

        contenders = {"vllm_ours": ours, "vllm_prompt_logprobs_20": top20}
        ours(sequences[:1]), top20(sequences[:1])
        seconds = interleaved(contenders, rounds, warm_up=False)
        tokens = sum(len(one.input_ids) for one in sequences)
        speeds = {name: tokens / each["best"] for name, each in seconds.items()}
        if workload == "zero_shot":  # minutes and gigabytes for more than a text
            started = time.process_time()
            prompt_logprobs(sequences[:1], -1)
            took = time.process_time() - started
            seconds["vllm_full_vocabulary"] = {"best": took, "texts": 1}
            speeds["vllm_full_vocabulary"] = len(sequences[0].input_ids) / took
        record[workload] = {"seconds": seconds, "tokens_per_second": speeds}
        print(
            f"{dtype} {workload}: tokens/s: " + ", ".join(f"{k} {v:,.0f}" for k, v in speeds.items()),
            flush=True,
        )
    engine.close()
    return record


def in_own_process(part: str, dtype: str, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.json"
        command = [sys.executable, __file__, "--part", part, "--dtype", dtype, "--out", str(out)]
        for key in ("items", "rounds", "threads"):
            command += [f"--{key}", str(getattr(args, key))]
        subprocess.run(command, check=True)
        return dict(json.loads(out.read_text()))


def one_part(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{args.threads - 1}")
    run = vllm_contenders if args.part == "vllm" else torch_contenders
    with save_model(args.dtype) as folder:
        record = run(folder, args.dtype, args.items, args.rounds)
    Path(args.out).write_text(json.dumps(record))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-vllm", action="store_true")
    parser.add_argument("--part", choices=["torch", "vllm"], help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        one_part(args)
        return
    record: dict[str, Any] = {
        "machine": machine(args.threads),
        "items": args.items,
        "dtypes": {},
        "targets": [],
    }
    for dtype in ("float32", "bfloat16"):
        found = in_own_process("torch", dtype, args)
        record["dtypes"][dtype] = found
        write("end_to_end", record)
        if not args.skip_vllm:
            for workload, more in in_own_process("vllm", dtype, args).items():
                found[workload]["seconds"].update(more["seconds"])
                found[workload]["tokens_per_second"].update(more["tokens_per_second"])
        record["dtypes"][dtype] = found
        write("end_to_end", record)  # what is done is kept
    for dtype, found in record["dtypes"].items():
        print(dtype)
        seconds = found["zero_shot"]["seconds"]
        added = seconds["ours_apart"]["best"] / seconds["bare_forward"]["best"] - 1
        targets = [verdict("statistics add to the bare forward pass", added, 0.10, at_most=True)]
        for workload, least in (
            ("zero_shot", 1.2),
            ("few_shot", 4),
            ("three_experts", 2),
            ("three_experts_long", 2),
        ):
            speed = found[workload]["tokens_per_second"]
            ratio = speed["ours"] / speed["lm_eval"]
            targets.append(verdict(f"{workload}: ours / lm_eval", ratio, least, at_most=False))
            if "vllm_ours" in speed:
                ratio = speed["vllm_ours"] / speed["vllm_prompt_logprobs_20"]
                targets.append(
                    verdict(f"{workload}: vllm_ours / prompt_logprobs=20", ratio, 1, at_most=False)
                )
        record["targets"] += [{"dtype": dtype, **one} for one in targets]
    print(write("end_to_end", record))


if __name__ == "__main__":
    main()
