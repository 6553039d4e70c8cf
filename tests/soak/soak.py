"""A run over two machines whose actors, machines, drivers and heads are killed at random moments.

python tests/soak/soak.py [--kills 20] [--seed 0] [--out soak.json]

Two `ray start` processes on loopback make the cluster. The run is done once undisturbed and once with kills
(SIGKILL, nothing is asked first), after each of which this script does what an operator would: a new machine
for a lost one, a fresh cluster for a lost head, the same command again for a driver that is gone. In the end
token rows, options and ranking must be those of the undisturbed run, value for value; otherwise exit code
1, and also when the run was over before all kills had been made.

Extra work is counted in what the supervisor hands out: a unit that was handed out twice counts twice, with
all its tokens, however little of it had been read when it was lost. That is an upper bound.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))  # as in the tests

from driving import lake_rows
from machines import Machines

KINDS = ("actor", "node", "driver", "head")
CONFIGS = Path(__file__).parents[2] / "configs"
KEYS = ["candidate_id", "task", "expert", "instance_id", "position"]
# A driver that has lost its head, or an actor that has been asked for, should be gone, or there, by then.
_PATIENCE = 180.0


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


def made_up(folder: Path, name: str) -> Path:
    """Candidates that need no weights, slowed down."""
    texts = folder / "texts.jsonl"
    rows = [{"prompt": f"{i} + {i + 1}?", "solution": f" That makes {2 * i + 1}."} for i in range(40)]
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


@dataclass
class Run:
    """One configuration, its drivers one after another, and what they had to say."""

    config: Path
    machines: Machines
    drivers: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def output(self) -> Path:
        """Where its results lie."""
        return self.config.with_suffix("")

    @property
    def events_file(self) -> Path:
        """What the supervisors said."""
        return self.config.with_suffix(".events.jsonl")

    def issue(self) -> None:
        """Give the command (again)."""
        self.drivers += 1
        command = [sys.executable, str(Path(__file__).with_name("recorded.py")), "run", str(self.config)]
        environment = {
            **os.environ,
            **self.machines.environment,
            "FORECAST_SOAK_EVENTS": str(self.events_file),
        }
        with self._stream("out").open("wb") as out, self._stream("err").open("wb") as err:
            self.process = subprocess.Popen(
                [*command, "--json", "--address", self.machines.address],
                env=environment,
                stdout=out,
                stderr=err,
            )

    def ended(self) -> int | None:
        """The exit code of the driver, None while it runs."""
        assert self.process is not None
        return self.process.poll()

    def wait(self, seconds: float) -> int | None:
        """The exit code, None when it still runs after so many seconds."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End the driver as hard as it gets."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def units(self) -> int:
        """How many units have their file."""
        return len(unit_files(self.output))

    def answer(self) -> Any:
        """What the last driver printed."""
        return json.loads(self._stream("out").read_text())

    def last_words(self) -> str:
        """The end of what the last driver said beside its answer."""
        return self._stream("err").read_text(errors="replace")[-2000:].strip()

    def events(self) -> list[dict[str, Any]]:
        """What the supervisors said, all drivers' together."""
        return [json.loads(line) for line in self.events_file.read_text().splitlines()]

    def _stream(self, kind: str) -> Path:
        return self.config.with_suffix(f".{self.drivers}.{kind}")


class Over(Exception):
    """The run has come to its end."""


class Soak:
    """The disturbed run and the one who disturbs it."""

    def __init__(self, run: Run, dice: random.Random, units: int) -> None:
        self.run, self._machines, self._dice, self._units = run, run.machines, dice, units
        self._began = time.monotonic()
        self.kills: list[dict[str, Any]] = []
        self.reissued: Counter[str] = Counter()  # by reason
        self._heads = 0

    def disturb(self, kinds: list[str]) -> None:
        """Kill something of each kind in turn, at random moments spread over the run, and let it end."""
        self.run.issue()
        try:
            for place, kind in enumerate(kinds):
                self._await_the_moment(len(kinds) - place)
                self._kill(kind)
        except Over:
            print(f"the run was over after {len(self.kills)} of {len(kinds)} kills", flush=True)
        while (code := self.run.wait(1)) != 0:
            if code is not None:
                self._look_after()

    def _await_the_moment(self, kills_left: int) -> None:
        """Some units later than now, and then a little; the last tenth of the units is left alone."""
        now = self.run.units()
        step = max(0.0, 0.9 * self._units - now) / kills_left
        until = now + self._dice.uniform(0, 2 * step if kills_left > 1 else step)
        while self.run.units() < until:
            self._look_after()
            time.sleep(0.05)
        time.sleep(self._dice.uniform(0, 2))
        self._look_after()

    def _kill(self, kind: str) -> None:
        second, units = round(time.monotonic() - self._began, 1), self.run.units()
        print(f"kill {len(self.kills) + 1}: {kind} at {second} s with {units} units", flush=True)
        told = getattr(self, f"_{kind}")()
        restored = round(max(0.0, time.monotonic() - self._began - second), 1)
        self.kills.append(
            {"kind": kind, "second": second, "units": units, "seconds_to_restore": restored, **told}
        )

    def _actor(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = sorted(self._machines.actors(), key=lambda p: p.pid)
            with contextlib.suppress(psutil.NoSuchProcess):  # gone by itself just now
                if found:
                    self._dice.choice(found).kill()
                    return {}
            assert time.monotonic() < deadline, f"no scoring actor came up:\n{self.run.last_words()}"
            self._look_after()
            time.sleep(0.1)

    def _node(self) -> dict[str, Any]:
        self._machines.kill_worker()
        self._machines.start_worker()
        return {}

    def _driver(self) -> dict[str, Any]:
        self.run.kill()
        self._issue_again("driver killed")
        return {}

    def _head(self) -> dict[str, Any]:
        """The first time the driver is left to find out; later it goes with the machine of the head."""
        self._machines.kill_head()
        self._heads += 1
        told: dict[str, Any] = {}
        if self._heads == 1:
            killed = time.monotonic()
            told["driver_exit_code"] = code = self.run.wait(_PATIENCE)
            took = round(time.monotonic() - killed, 1)
            told["driver_ended_after_seconds"] = None if code is None else took
            told["driver_last_words"] = self.run.last_words()[-400:]
        self._machines.kill_all()
        self.run.kill()
        self._machines.start_head()
        self._machines.start_worker()
        self._issue_again("head killed")
        return told

    def _look_after(self) -> None:
        """Give the command again when a driver has ended by itself without having finished."""
        code = self.run.ended()
        if code is None:
            return
        if code == 0:
            raise Over
        print(f"  a driver ended by itself with {code}: {self.run.last_words()[-600:]}", flush=True)
        assert self.reissued["ended by itself"] < 20, "the run does not get on"
        self._issue_again("ended by itself")

    def _issue_again(self, why: str) -> None:
        self.reissued[why] += 1
        self.run.issue()


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


def unit_files(output: Path) -> list[Path]:
    """The files of all units, trajectories and options."""
    found = [path for kind in ("lake", "choices") for path in (output / kind).rglob("*.parquet")]
    return [path for path in found if not path.name.startswith(".")]


def tokens_by_address(output: Path) -> dict[str, int]:
    """Tokens that each unit of a finished run reads, from the receipts in its files."""
    found = {}
    for path in unit_files(output):
        receipt = json.loads(pq.read_metadata(path).metadata[b"forecast"])
        found[receipt["address"]] = int(receipt["tokens_read"])
    return found


def record_of(calm: Run, soak: Soak) -> dict[str, Any]:
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
        "kills": dict(Counter(k["kind"] for k in soak.kills)),
        "kills_in_all": len(soak.kills),
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
        "each_kill": soak.kills,
    }


def main() -> int:
    """Exit code 0 when the two runs are equal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="kinds take turns in random order; default 20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the record there, as JSON")
    parser.add_argument("--made-up", action="store_true", help="candidates without weights: minutes shorter")
    parser.add_argument("--folder", type=Path, help="for runs and logs, kept; default: one that is removed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        record = soaked(args, folder)
    text = json.dumps(record, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    short = record["kills_in_all"] < args.kills
    return 1 if short or not record["equal"] else 0


def soaked(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both runs, and what came of them."""
    write = made_up if args.made_up else real_weights
    dice = random.Random(args.seed)
    with Machines() as machines:
        machines.start_head()
        machines.start_worker()
        calm = Run(write(folder, "calm"), machines)
        began = time.monotonic()
        calm.issue()
        while (code := calm.wait(1)) is None:
            pass
        assert code == 0, f"the undisturbed run failed:\n{calm.last_words()}"
        calm_seconds = time.monotonic() - began
        print(f"undisturbed: {calm.units()} units in {calm_seconds:.0f} s", flush=True)
        kinds = [KINDS[i % len(KINDS)] for i in range(args.kills)]
        dice.shuffle(kinds)
        soak = Soak(Run(write(folder, "hit"), machines), dice, calm.units())
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
