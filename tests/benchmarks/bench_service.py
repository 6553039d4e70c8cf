"""What the service costs beside the models: planning, handing out, resuming, aggregating; made-up candidates.

python tests/benchmarks/bench_service.py [--candidates 1000 --shards 1000 --units 100000 --parts plan,...]

Every figure is that of a fresh process, so that its memory is its own: the high-water mark of the command's
own process, without Ray's and without the actors'. About ten minutes and 2 GB of disk.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, TypeVar

import numpy as np
import polars as pl
import psutil
import yaml
from measuring import RESULTS, machine, write

from forecast import storage
from forecast.config.loader import load_config
from forecast.engines import load_engine
from forecast.lake.files import write_unit
from forecast.plan import joint_units, make_plan
from forecast.scoring import score_units

T = TypeVar("T")
PARTS = ("plan", "throughput", "finished", "actors")


def configuration(
    folder: Path, candidates: int, shards: int, texts: int, words: int, **settings: Any
) -> Path:
    """So many made-up candidates on so many shards of `texts` trajectories, each `words` words long."""
    with (folder / "texts.jsonl").open("w") as stream:
        for i in range(shards * texts):
            solution = " ".join(f"step {i} and {j}" for j in range(words // 4))
            stream.write(
                json.dumps({"prompt": f"What is {i} plus {i + 1}?", "solution": f" {solution}"}) + "\n"
            )
    config = {
        "name": "service",
        "output": "out",
        "engine": {"kind": "fake"},
        "shard_trajectories": texts,
        "candidates": [{"name": f"c{i}", "source": f"fake://{1 + i / 1000}"} for i in range(candidates)],
        "trajectories": [{"task": "sums", "path": "texts.jsonl"}],
        **settings,
    }
    path = folder / "service.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def high_water(pid: int | str = "self") -> int:
    """The most memory that a process has had, in MiB; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")) >> 10


def command(*arguments: str | Path) -> dict[str, Any]:
    """Wall seconds, peak memory, CPU seconds by the clock (`cpu`) and answer of one command."""
    started, peak, cpu = time.perf_counter(), 0, []
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = psutil.Popen(
            [sys.executable, "-m", "forecast", *map(str, arguments), "--json"],
            stdout=out,
            stderr=err,
        )
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            with contextlib.suppress(psutil.Error):
                own = process.cpu_times()
                cpu.append((time.time(), own.user + own.system))
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        for stream in (out, err):
            stream.seek(0)
        if process.returncode:
            raise SystemExit(f"{arguments}: exit code {process.returncode}\n{err.read()}")
        answer = json.load(out)
    return {"seconds": round(seconds, 2), "peak_mib": peak, "cpu": cpu, "answer": answer}


def in_a_process(work: Callable[..., T], *arguments: Any) -> T:
    """The result of a function in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def planned(path: Path) -> dict[str, Any]:
    """Seconds and memory of what a driver does before anything is scored; run in a process of its own."""
    record: dict[str, Any] = {"bare_peak_mib": high_water()}

    def timed(name: str, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = work()
        record[name] = {"seconds": round(time.perf_counter() - started, 2), "peak_mib": high_water()}
        print(f"  {name}: {record[name]}", flush=True)
        return result

    config = timed("load_config", lambda: load_config(path))
    plan = timed("make_plan", lambda: make_plan(config))
    timed("done", plan.done)
    timed("joint_units", lambda: joint_units(plan.units))
    record["units"] = len(plan.units)
    return record


def until_the_first_unit(path: Path, lake: Path) -> dict[str, Any]:
    """Seconds from the command to the first file of a run, and the memory of the driver by then."""
    started, peak = time.perf_counter(), 0
    process = psutil.Popen(
        [sys.executable, "-m", "forecast", "score", str(path)], stdout=DEVNULL, stderr=DEVNULL
    )
    while process.poll() is None and not next(lake.rglob("[!.]*.parquet"), None):
        peak = max(peak, high_water(process.pid))
        time.sleep(0.1)
    seconds = time.perf_counter() - started
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130, "interrupted"
    return {"seconds": round(seconds, 2), "peak_mib": peak}


def plan_part(args: argparse.Namespace) -> dict[str, Any]:
    """The driver's share before anything is scored, and the whole of a dry run."""
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        path = configuration(Path(folder), args.candidates, args.shards, texts=32, words=40)
        record = in_a_process(planned, path)
        dry = command("score", path, "--dry-run")
        dry.pop("cpu")
        assert dry.pop("answer")["units"] == args.candidates * args.shards
        record["dry_run"] = dry
        print(f"  dry_run: {dry}", flush=True)
        record["first_unit"] = until_the_first_unit(path, Path(folder) / "out" / "lake")
        print(f"  first_unit: {record['first_unit']}", flush=True)
        return {"candidates": args.candidates, "shards": args.shards, **record}


def throughput_part(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Units per second through one driver when the units cost next to nothing, and the driver's own share."""
    record = []
    for actors in range(1, (os.cpu_count() or 1) + 1):
        with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
            path = configuration(
                Path(folder), candidates=4, shards=500, texts=1, words=8, cluster={"actors": actors}
            )
            ran = command("score", path)
            assert ran.pop("answer")["done"] == 2000
            # By the files' own times: without starting Ray and the actors.
            ends = sorted(
                Path(p).stat().st_mtime for p in storage.list_files(f"{folder}/out/lake", ".parquet")
            )
        first, last, units = ends[100 - 1], ends[-1], len(ends) - 100
        clock, cpu = zip(*ran.pop("cpu"), strict=True)
        used = float(np.interp(last, clock, cpu) - np.interp(first, clock, cpu))
        record.append(
            {
                "actors": actors,
                "units": len(ends),
                "units_per_second": round(units / (last - first), 1),
                "driver_cpu_ms_per_unit": round(1e3 * used / units, 2),
                **ran,
            }
        )
        print(f"  {record[-1]}", flush=True)
    return record


def fill(path: Path, part: int, parts: int) -> int:
    """Write the lake files of every so-manieth candidate, whole and with their receipts; returns how many.

    Rows are scored once per shard and lent to all candidates; the disk is not waited for.
    """
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    config = load_config(path)
    plan = make_plan(config)
    first = plan.candidates[0]
    engine = load_engine(first, config.engine)
    scored = {u.shard: score_units([u], engine, config)[0] for u in plan.units if u.candidate == first}
    own = {c.candidate_id for c in plan.candidates[part::parts]}
    written = 0
    for unit in plan.units:
        if unit.candidate.candidate_id in own:
            one = scored[unit.shard]
            rows = one.rows.with_columns(pl.lit(unit.candidate.candidate_id).alias("candidate_id"))
            write_unit(plan.path(unit), unit, type(one)(rows, (), one.tokens_read, one.seconds), engine.facts)
            written += 1
    return written


def finished_part(args: argparse.Namespace) -> dict[str, Any]:
    """The same commands on a run that is done already."""
    candidates = max(1, args.units // 1000)
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        folder = Path(name)
        path = configuration(folder, candidates, shards=args.units // candidates, texts=1, words=20)
        cores = os.cpu_count() or 1
        with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
            written = sum(pool.map(fill, [path] * cores, range(cores), [cores] * cores))
        files = storage.list_files(str(folder / "out" / "lake"), ".parquet")
        assert len(files) == written == args.units // candidates * candidates
        record: dict[str, Any] = {"candidates": candidates, "units": written}
        print(f"  {written} units written", flush=True)
        for step in ("score", "aggregate", "score", "rank"):
            # The second `score` finds whatever the first has left to make it faster.
            key = "score_again" if step in record else step
            ran = command(step, path)
            answer, _ = ran.pop("answer"), ran.pop("cpu")
            if step == "score":
                assert answer["done"] == written
                record["rows"] = answer["rows"]
            record[key] = ran
            print(f"  {key}: {ran}", flush=True)
        record["lake_bytes"] = sum(files.values())
        record["lake_bytes_on_disk"] = sum(Path(p).stat().st_blocks * 512 for p in files)
        record["bytes_per_unit"] = round(record["lake_bytes"] / written)
        warehouses = [p for p in (folder / "out").iterdir() if p.suffix == ".duckdb"]
        record["warehouse_bytes"] = sum(p.stat().st_size for p in warehouses)
        return record


def actors_part(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Tokens per second of real weights by the number of actors."""
    from bench_scaling import actors

    return actors(rounds=1, items=48)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"default: {','.join(PARTS)}")
    parser.add_argument("--scratch", help="folder for what is written and removed; default: the system's")
    parser.add_argument("--name", default="service", help="of the file in tests/benchmarks/results")
    args = parser.parse_args()
    kept = RESULTS / f"{args.name}.json"
    record: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}  # parts not asked for
    record["machine"] = machine()
    for part in args.parts.split(","):
        print(f"{part}:", flush=True)
        record[part] = globals()[f"{part}_part"](args)
    print(write(args.name, record))


if __name__ == "__main__":
    main()
