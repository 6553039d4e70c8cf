"""How time grows: statistics with N and with V, scoring with the number of actors.

python tests/benchmarks/bench_scaling.py [--rounds 3]
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench_statistics import inputs
from measuring import interleaved, machine, write
from workloads import SOURCE, workloads

from actors.cluster import connected
from actors.scheduler import score_plan
from forecast.config.schema import Config
from forecast.lake.files import Receipt
from forecast.plan import Unit, make_plan
from forecast.runs.events import Subscriber
from forecast.tokenstats import token_stats


def statistics(rounds: int) -> dict[str, list[dict[str, Any]]]:
    record: dict[str, list[dict[str, Any]]] = {"n": [], "v": []}
    shapes = {
        "n": [(n, 49_152) for n in (64, 256, 1024, 4096)],
        "v": [(512, v) for v in (16_000, 64_000, 256_000)],
    }
    for axis, sizes in shapes.items():
        for n, v in sizes:
            hidden, head, targets = inputs(n, v, torch.bfloat16, "cpu")
            run = {"ours": lambda h=hidden, w=head, t=targets: token_stats(h, w, t)}
            seconds = interleaved(run, rounds)["ours"]
            record[axis].append(
                {"n": n, "v": v, "seconds": seconds, "ns_per_logit": 1e9 * seconds["best"] / n / v}
            )
            print(f"bfloat16 N {n} V {v}: {record[axis][-1]['ns_per_logit']:.2f} ns per logit", flush=True)
    return record


class Keeper(Subscriber):
    """Gathers receipts."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []

    def committed(self, unit: Unit, receipt: Receipt) -> None:
        self.receipts.append(receipt)


def actors(rounds: int, items: int = 96) -> list[dict[str, Any]]:
    """Tokens per second between the first and the last receipt of a run: without starting up and loading."""
    texts = workloads(items)["zero_shot"]
    record = []
    for count in range(1, (os.cpu_count() or 1) + 1):
        best = 0.0
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "texts.jsonl"
                rows = [{"prompt": t.prompt, "solution": t.solution} for t in texts]
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
                plan = make_plan(
                    Config.model_validate(
                        {
                            "name": "benchmark",
                            "output": f"{folder}/out",
                            "engine": {"dtype": "bfloat16"},
                            "cluster": {"actors": count},
                            "shard_trajectories": 4,
                            "candidates": [{"name": "SmolLM2-135M", "source": SOURCE}],
                            "trajectories": [{"task": "gsm8k", "path": str(path)}],
                        }
                    )
                )
                keeper = Keeper()
                with connected(plan.config.cluster):
                    outcome = score_plan(plan, plan.units, keeper)
                assert not outcome.failures, outcome.failures
                # Each actor's first unit waits for the weights.
                ends = sorted((r.finished_at, r.tokens_read) for r in keeper.receipts)[count - 1 :]
                best = max(best, sum(tokens for _, tokens in ends[1:]) / (ends[-1][0] - ends[0][0]))
        record.append({"actors": count, "tokens_per_second": best})
        print(f"{count} actors: {best:,.0f} tokens/s", flush=True)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    record = {"machine": machine(1), "statistics": statistics(args.rounds), "actors": actors(args.rounds)}
    print(write("scaling", record))


if __name__ == "__main__":
    main()
