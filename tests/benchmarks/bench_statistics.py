"""The statistics alone: hidden states and output head in, five numbers per token out.

Time against the bare matrix product, bytes moved against the memory's bandwidth, and the most memory that was
needed beyond inputs and result (measured in a process of its own, as the system accounts for it). "plain" is
log_softmax over all positions at once, and what follows from it.

    python tests/benchmarks/bench_statistics.py [--threads 1] [--rounds 3] [--quick]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import interleaved, machine, verdict, write

from forecast.tokenstats import token_stats
from forecast.tokenstats.onednn_linear import linear

HIDDEN = 576  # SmolLM2-135M; GPUs: a 1B-class model
HIDDEN_GPU = 2048


def inputs(
    n: int, v: int, dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    d = HIDDEN if device == "cpu" else HIDDEN_GPU
    hidden = torch.randn(n, d, generator=generator, dtype=torch.float32).to(dtype)
    head = torch.empty(v, d, dtype=dtype)
    for rows in head.split(8192):
        rows.copy_(torch.randn(rows.shape, generator=generator) * d**-0.5 * 4)
    return hidden.to(device), head.to(device), torch.randint(v, (n,), generator=generator).to(device)


def plain(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What people write by hand."""
    logits = torch.nn.functional.linear(hidden, head).float()
    log_p = torch.log_softmax(logits, dim=-1)
    chosen = log_p.gather(1, targets[:, None])
    entropy = -(log_p.exp() * log_p).sum(1)
    return chosen, entropy, (log_p > chosen).sum(1), (log_p == chosen).sum(1), log_p.amax(1)


def product_alone(hidden: torch.Tensor, head: torch.Tensor) -> None:
    """The product in blocks as large as ours, dropped."""
    rows = 256 if hidden.device.type == "cpu" else max(1, (92 << 20) // (len(head) * hidden.element_size()))
    for block in hidden.split(rows):
        linear(block, head)


def bandwidth(device: str) -> float:
    """Bytes per second of a copy of 256 MiB, read and written."""
    source = torch.ones(64 << 20, device=device)
    target = torch.empty_like(source)
    best = min(timed(lambda: target.copy_(source), device) for _ in range(5))
    return 2 * source.numel() * 4 / best


def timed(run: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_extra_bytes(n: int, v: int, dtype: str, how: str, device: str) -> int:
    """Memory beyond the inputs; in a process of its own, since a process' peak never falls."""
    command = [sys.executable, __file__, "--peak", how, "--n", str(n), "--v", str(v), "--dtype", dtype]
    # Memory that is freed goes back to the system at once, so that none is used again unseen.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command += ["--device", device]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return int(json.loads(done.stdout.splitlines()[-1]))


def measure_peak(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    hidden, head, targets = inputs(args.n, args.v, getattr(torch, args.dtype), args.device)
    run = token_stats if args.peak == "ours" else plain
    run(hidden[:2], head, targets[:2])  # what libraries allocate once
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(hidden, head, targets)
        extra = torch.cuda.max_memory_allocated() - before
    else:
        # The peak so far may lie in the past; fill up to it, so that all that follows shows.
        filler = torch.ones(max(1, (peak() - resident()) // 4))
        before = peak()
        run(hidden, head, targets)
        extra = peak() - before
        del filler
    print(json.dumps(extra))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one small shape")
    for name in ("--peak", "--dtype"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--n", "--v"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.peak:
        measure_peak(args)
        return
    torch.set_num_threads(args.threads)
    device = args.device
    speed = bandwidth(device)
    record: dict[str, Any] = {
        "machine": machine(args.threads),
        "device": device,
        "copy_bytes_per_second": speed,
        "shapes": [],
    }
    sizes = [(512, 32_000), (512, 128_256), (512, 256_000), (2048, 128_256)]
    if device == "cuda":
        sizes += [(8192, 32_000), (8192, 128_256), (8192, 256_000)]
    for dtype in ("float32", "bfloat16"):
        for n, v in sizes[:1] if args.quick else sizes:
            hidden, head, targets = inputs(n, v, getattr(torch, dtype), device)
            paths = ["auto"] if device == "cpu" else ["torch", "triton", "triton_fused"]

            def synchronised(run: Callable[[], object]) -> Callable[[], object]:
                return lambda: timed(run, device)

            contenders: dict[str, Callable[[], object]] = {
                "product": synchronised(lambda h=hidden, w=head: product_alone(h, w)),
                **{
                    f"ours {path}": synchronised(
                        lambda h=hidden, w=head, t=targets, path=path: token_stats(h, w, t, path=path)
                    )
                    for path in paths
                },
            }
            if n * v * 4 * 3 < 4 << 30:
                contenders["plain"] = synchronised(lambda h=hidden, w=head, t=targets: plain(h, w, t))
            with torch.inference_mode():
                seconds = interleaved(contenders, args.rounds)
                if device == "cuda":  # the CPU only waits
                    seconds = {name: {**each, "best": each["wall_best"]} for name, each in seconds.items()}
            # Read the head and the states, write and read the product once.
            moved = (head.numel() + hidden.numel() + 2 * n * v) * hidden.element_size()
            entry = {
                "n": n,
                "v": v,
                "d": hidden.shape[1],
                "dtype": dtype,
                "seconds": seconds,
                "ns_per_logit": {name: 1e9 * each["best"] / (n * v) for name, each in seconds.items()},
                "least_bytes_moved": moved,
                "share_of_copy_bandwidth": {
                    name: moved / each["best"] / speed for name, each in seconds.items()
                },
            }
            record["shapes"].append(entry)
            times = ", ".join(f"{name} {ns:.2f}" for name, ns in entry["ns_per_logit"].items())
            print(f"{dtype} N {n} V {v}: ns per logit: {times}", flush=True)
    record["peak_extra_bytes"] = []
    for dtype in ("float32", "bfloat16"):
        for how, n in (("ours", 8192), ("plain", 1024)):
            v = 151_936 if not args.quick else 32_000
            n = n if not args.quick else 512
            extra = peak_extra_bytes(n, v, dtype, how, device)
            record["peak_extra_bytes"].append({"how": how, "n": n, "v": v, "dtype": dtype, "bytes": extra})
            print(f"{dtype} N {n} V {v}: {how}: {extra / 2**20:,.0f} MiB beyond the inputs", flush=True)
    record["targets"] = [
        {"dtype": one["dtype"], **verdict("MiB for 8k x 152k", one["bytes"] / 2**20, 256, at_most=True)}
        for one in record["peak_extra_bytes"]
        if one["how"] == "ours"
    ]
    print(write("statistics" if device == "cpu" else "statistics_gpu", record))


if __name__ == "__main__":
    main()
