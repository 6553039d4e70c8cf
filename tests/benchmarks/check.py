"""Whether fresh benchmarks are slower than the committed ones, each beside the peer that ran with it.

python tests/benchmarks/check.py [--tolerance 0.25] [--fresh FOLDER] [--committed FOLDER]

Seconds of two machines, or of two days, do not compare. So what is compared is a share: our time (or memory)
over that of the peer in the same run. Exits with 1 and names each share that has grown by more than the
tolerance; with 2 where no record is in both places; with 0 otherwise.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 0.25  # above what a share moves between two runs on a machine that does other work too
Shares = dict[str, float]  # by what is measured: ours / peer, lower is better

_PEERS = {
    "ours": ("lm_eval", "plain_transformers"),
    "ours_apart": ("bare_forward",),
    "vllm_ours": ("vllm_prompt_logprobs_20", "vllm_full_vocabulary"),
}


def statistics(record: Mapping[str, Any]) -> Shares:
    """Kernels against the matrix product alone and against plain torch; memory beyond the inputs a row."""
    shares = {}
    for shape in record["shapes"]:
        best = {name: each["best"] for name, each in shape["seconds"].items()}
        for ours in (name for name in best if name.startswith("ours")):
            for peer in best.keys() & {"product", "plain"}:
                where = f"{shape['dtype']} N {shape['n']} V {shape['v']}"
                shares[f"{where}: {ours} / {peer}"] = best[ours] / best[peer]
    peaks = {(one["dtype"], one["how"]): one["bytes"] / one["n"] for one in record["peak_extra_bytes"]}
    for dtype in sorted({dtype for dtype, _ in peaks}):
        shares[f"{dtype} memory a row: ours / plain"] = peaks[dtype, "ours"] / peaks[dtype, "plain"]
    return shares


def end_to_end(record: Mapping[str, Any]) -> Shares:
    """Scoring of whole texts against other programs."""
    return {
        f"{dtype} {workload}, {found['texts']} texts: {ours} / {peer}": speed[peer] / speed[ours]
        for dtype, workloads in record["dtypes"].items()
        for workload, found in workloads.items()
        for speed in (found["tokens_per_second"],)
        for ours, peers in _PEERS.items()
        for peer in peers
        if ours in speed and peer in speed
    }


def ranking(record: Mapping[str, Any]) -> Shares:
    """Scorers against the same work one at a time; the whole table with several workers against one."""
    fold, whole = record["one_fold"], record["whole_seconds"]
    shares = {
        f"{name}, {fold['permutations']} permutations: ours / one at a time": 1 / peer["ratio"]
        for name, peer in fold["peers"].items()
    }
    others = {name: seconds for name, seconds in whole.items() if name != "1 workers"}
    return shares | {
        f"whole table: {name} / 1": seconds / whole["1 workers"] for name, seconds in others.items()
    }


def service(record: Mapping[str, Any]) -> Shares:
    """Several actors against one."""
    shares = {}
    for part, speed in (("throughput", "units_per_second"), ("actors", "tokens_per_second")):
        measured = record.get(part, [])  # a run may be of some parts alone
        shares |= {f"{part}: {m['actors']} actors / 1": measured[0][speed] / m[speed] for m in measured[1:]}
    return shares


BENCHMARKS: dict[str, Callable[[Mapping[str, Any]], Shares]] = {
    "statistics": statistics,
    "statistics_gpu": statistics,
    "end_to_end": end_to_end,
    "ranking": ranking,
    "service": service,
}


def worse(committed: Shares, fresh: Shares, tolerance: float) -> list[str]:
    """What has grown by more than the tolerance, in words, the largest growth first."""
    growth = {what: fresh[what] / committed[what] - 1 for what in committed.keys() & fresh.keys()}
    grown = sorted((what for what in growth if growth[what] > tolerance), key=lambda what: -growth[what])
    return [
        f"{what}: {fresh[what]:.3g}, committed {committed[what]:.3g}, {growth[what]:+.0%}" for what in grown
    ]


def other_conditions(committed: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    """Where the two machines differ: then the peers may differ, too."""
    return [
        f"{key}: {fresh['machine'].get(key)}, committed {committed['machine'].get(key)}"
        for key in ("cpu", "cpu_features", "cores", "gpu", "threads", "versions")
        if fresh["machine"].get(key) != committed["machine"].get(key)
    ]


def committed_text(name: str, folder: Path | None) -> str | None:
    """A benchmark's record in a folder, or in the last commit; None where there is none."""
    if folder is not None:
        path = folder / f"{name}.json"
        return path.read_text() if path.exists() else None
    shown = subprocess.run(
        ["git", "show", f"HEAD:./{name}.json"], cwd=RESULTS, capture_output=True, text=True, check=False
    )
    return shown.stdout if shown.returncode == 0 else None


def check(fresh: Path, committed: Path | None, tolerance: float, say: Callable[[str], None] = print) -> int:
    """Compare every benchmark that both have; the exit code."""
    compared, slower = 0, 0
    for name, shares_of in BENCHMARKS.items():
        path, before = fresh / f"{name}.json", committed_text(name, committed)
        if before is None or not path.exists():
            continue
        old, new = json.loads(before), json.loads(path.read_text())
        shares, fresh_shares = shares_of(old), shares_of(new)
        found = worse(shares, fresh_shares, tolerance)
        compared += len(shares.keys() & fresh_shares.keys())
        slower += len(found)
        since = ", not measured since" if new == old else ""
        say(f"{name}: {len(fresh_shares)} shares, {len(found)} worse by more than {tolerance:.0%}{since}")
        _list("WORSE", found, say)
        _list("not measured", sorted(shares.keys() - fresh_shares.keys()), say)
        _list("other conditions", other_conditions(old, new), say)
    if not compared:
        say(f"nothing to compare in {fresh}")
        return 2
    return 1 if slower else 0


def _list(label: str, lines: Iterable[str], say: Callable[[str], None]) -> None:
    for line in lines:
        say(f"  {label}: {line}")


def main() -> int:
    """Compare what the arguments name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="share of growth that is still well"
    )
    parser.add_argument("--fresh", type=Path, default=RESULTS, help="folder with the records of `make bench`")
    parser.add_argument("--committed", type=Path, help="folder to compare with; default: the last commit")
    options = parser.parse_args()
    return check(options.fresh, options.committed, options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
