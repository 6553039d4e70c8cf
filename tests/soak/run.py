"""A run over two machines that is disturbed at random moments, against the same run undisturbed.

python tests/soak/run.py [--faults 20] [--kinds killed|other|all] [--seed 0] [--out soak.json]

Two `ray start` processes make the cluster. The run is done once undisturbed and once with faults, after each
of which this script does what an operator would: a new machine for a lost one, a fresh cluster for a lost
head, the same command again for a driver that is gone, a file deleted that a message calls damaged. In the
end token rows, options and ranking must be those of the undisturbed run, value for value; otherwise exit
code 1, and also when the run was over before all faults had happened.

`killed` are actors, machines, drivers and heads that end by SIGKILL; for them loopback is the network.
`other` are SIGTERM, SIGSTOP, cut cables, a full disk, torn files, a clock that jumps and the same command
given twice; for them, and for `all`, the script runs in namespaces of its own (Linux).

Extra work is counted in what the supervisor hands out: a unit that was handed out twice counts twice, with
all its tokens, however little of it had been read when it was lost. That is an upper bound.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))  # as in the tests

from driving import lake_rows
from machines import Machines
from soak import surroundings
from soak.disturbed import KILLED, KINDS, Disturbed, Run, unit_files

CONFIGS = Path(__file__).parents[2] / "configs"
KEYS = ["candidate_id", "task", "expert", "instance_id", "position"]


def real_weights(folder: Path, name: str) -> Path:
    """The demo in small: six variants of a real model, small units."""
    config = yaml.safe_load((CONFIGS / "demo.yaml").read_text())
    keep = ("SmolLM2-135M", "8-bit", "4-bit", "minus 1 layer", "minus 4 layers", "minus 8 layers")
    config["candidates"] = [c for c in config["candidates"] if c["name"] in keep]
    for source in config["trajectories"]:
        source |= {"limit": 40, "path": str(CONFIGS / source["path"])}
    for source in config["direct_evaluation"]:
        source["limit"] = 40
    return _written(config | {"shard_trajectories": 4}, folder, name)


def made_up(folder: Path, name: str, texts_each: int = 40) -> Path:
    """Candidates that need no weights, slowed down."""
    texts = folder / "texts.jsonl"
    rows = [{"prompt": f"{i} + {i + 1}?", "solution": f" That makes {2 * i + 1}."} for i in range(texts_each)]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "engine": {"kind": "fake"},
        "shard_trajectories": 2,
        "candidates": [{"name": f"c{i}", "source": f"fake://{i}?delay=0.25"} for i in range(4)],
        "trajectories": [{"task": "sums", "path": str(texts)}],
    }
    return _written(config, folder, name)


def _written(config: dict[str, Any], folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**config, "name": name, "output": str(folder / name)}))
    return path


def differences(calm: pl.DataFrame, hit: pl.DataFrame) -> dict[str, int]:
    """Rows of the undisturbed run that are missing, rows too many, and rows that say something else."""
    once = hit.unique(KEYS)
    return {
        "rows": calm.height,
        "rows_lost": calm.join(hit, KEYS, "anti").height,
        "rows_doubled": hit.height - once.height,
        "rows_foreign": once.join(calm, KEYS, "anti").height,
        # Every value is compared, also with what the key says about its row.
        "rows_changed": once.join(calm, KEYS, "semi").height
        - once.join(calm, calm.columns, "semi", nulls_equal=True).height,
    }


def tokens_by_address(output: Path) -> dict[str, int]:
    """Tokens that each unit of a finished run reads, from the receipts in its files."""
    found = {}
    for path in unit_files(output):
        receipt = json.loads(pq.read_metadata(path).metadata[b"forecast"])
        found[receipt["address"]] = int(receipt["tokens_read"])
    return found


def record_of(calm: Run, soak: Disturbed) -> dict[str, Any]:
    """All figures; `equal` says whether the two runs came to the same."""
    hit = soak.run
    compared = {
        kind: differences(*(lake_rows(run.output / kind) for run in (calm, hit)))
        for kind in ("lake", "choices")
        if (calm.output / kind).exists()
    }
    events = hit.events()
    tokens = tokens_by_address(calm.output)
    handed_out = Counter(a for e in events if e["event"] == "handed_out" for a in e["addresses"])
    known = sum(handed_out.values()) > 0
    read, needed = sum(tokens[a] * n for a, n in handed_out.items()), sum(tokens.values())
    wrong = sum(n for each in compared.values() for name, n in each.items() if name != "rows")
    ranking_equal = calm.answer()["rank"] == hit.answer()["rank"]
    return {
        "faults": dict(Counter(fault["kind"] for fault in soak.faults)),
        "faults_in_all": len(soak.faults),
        "commands_issued_again": dict(soak.reissued),
        "retries": sum(e["event"] == "retried" for e in events),
        "actor_restarts": sum(e["event"] == "restarted" for e in events),
        "given_up": [e["error"] for e in events if e["event"] == "gave_up"],
        "units": len(tokens),
        "compared": compared,
        "ranking_equal": ranking_equal,
        "equal": ranking_equal and wrong == 0,
        "tokens_undisturbed": needed,
        "tokens_handed_out": read if known else None,
        "extra_work_percent_at_most": round(100 * (read / needed - 1), 1) if known else None,
        "each_fault": soak.faults,
    }


def main() -> int:
    """Exit code 0 when the two runs are equal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=20, help="kinds take turns in random order; default 20")
    parser.add_argument("--kinds", choices=("killed", "other", "all"), default="killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the record there, as JSON")
    parser.add_argument("--made-up", action="store_true", help="candidates without weights: minutes shorter")
    parser.add_argument("--folder", type=Path, help="for runs and logs, kept; default: one that is removed")
    args = parser.parse_args()
    if args.kinds != "killed":
        surroundings.enter()
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        record = soaked(args, folder)
    text = json.dumps(record, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    short = record["faults_in_all"] < args.faults
    return 1 if short or not record["equal"] else 0


def soaked(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both runs, and what came of them."""
    own = args.kinds != "killed"  # surroundings
    network = surroundings.Network() if own else None
    clock = surroundings.Clock(folder) if own else None

    def write(name: str) -> Path:
        texts = max(40, 12 * args.faults)  # a fault lasts several seconds, in which the run goes on
        return made_up(folder, name, texts) if args.made_up else real_weights(folder, name)

    more = clock.environment if clock else None
    with Machines(cpus=4 if args.made_up else 2, network=network, more=more) as machines:
        machines.start_head()
        calm = Run(write("calm"), machines)
        began = time.monotonic()
        calm.issue()
        while (code := calm.wait(1)) is None:
            pass
        assert code == 0, f"the undisturbed run failed:\n{calm.last_words()}"
        calm_seconds = time.monotonic() - began
        print(f"undisturbed: {calm.units()} units in {calm_seconds:.0f} s", flush=True)
    dice = random.Random(args.seed)
    with Machines(network=network, more=more) as machines:
        machines.start_head()
        machines.start_worker()
        other = tuple(kind for kind in KINDS if kind not in KILLED)
        chosen = {"killed": KILLED, "other": other, "all": tuple(KINDS)}[args.kinds]
        kinds = [chosen[i % len(chosen)] for i in range(args.faults)]
        dice.shuffle(kinds)
        soak = Disturbed(Run(write("hit"), machines), dice, calm.units(), network, clock)
        if own:
            surroundings.small_disk(soak.run.output)
        began = time.monotonic()
        soak.disturb(kinds)
        return {
            "seed": args.seed,
            "candidates": "made up" if args.made_up else "real weights",
            "seconds_undisturbed": round(calm_seconds, 1),
            "seconds_disturbed": round(time.monotonic() - began, 1),
            **record_of(calm, soak),
        }


if __name__ == "__main__":
    sys.exit(main())
