"""A run of the command line, and the one who disturbs it and does what an operator would do then."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from machines import Machines
from soak import surroundings

# A driver that has lost its head, or an actor that has been asked for, should be gone, or there, by then.
_PATIENCE = 180.0
_HOUR, _YEAR = 3600.0, 365 * 24 * 3600.0
Told = dict[str, Any]  # what a record says about one fault


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
        self.process = self.driver(str(self.drivers))

    def driver(self, name: str) -> subprocess.Popen[bytes]:
        """Start the command; what it prints goes to files with that name."""
        command = [sys.executable, str(Path(__file__).with_name("recorded.py")), "run", str(self.config)]
        environment = {
            **os.environ,
            **self.machines.environment,
            "FORECAST_SOAK_EVENTS": str(self.events_file),
        }
        with self._stream(name, "out").open("wb") as out, self._stream(name, "err").open("wb") as err:
            return subprocess.Popen(
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
        return json.loads(self._stream(str(self.drivers), "out").read_text())

    def last_words(self) -> str:
        """The end of what the last driver said beside its answer."""
        return self._stream(str(self.drivers), "err").read_text(errors="replace")[-2000:].strip()

    def printed(self) -> str:
        """What the last driver printed: JSON, once it has ended."""
        return self._stream(str(self.drivers), "out").read_text(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """What the supervisors said, all drivers' together."""
        return [json.loads(line) for line in self.events_file.read_text().splitlines()]

    def _stream(self, name: str, kind: str) -> Path:
        return self.config.with_suffix(f".{name}.{kind}")


def unit_files(output: Path) -> list[Path]:
    """The files of all units, trajectories and options."""
    found = [path for kind in ("lake", "choices") for path in (output / kind).rglob("*.parquet")]
    return [path for path in found if not path.name.startswith(".")]


class Over(Exception):
    """The run has come to its end."""


class Disturbed:
    """The disturbed run. One method per kind of fault; `KINDS` lists them."""

    def __init__(
        self,
        run: Run,
        dice: random.Random,
        units: int,
        network: surroundings.Network | None = None,
        clock: surroundings.Clock | None = None,
    ) -> None:
        """Nothing is disturbed yet. Args: units: of the whole run."""
        self.run, self._machines, self._dice, self._units = run, run.machines, dice, units
        self._network, self._clock = network, clock
        self._began = time.monotonic()
        self.faults: list[Told] = []
        self.reissued: Counter[str] = Counter()  # by reason
        self._heads = 0
        self._other: subprocess.Popen[bytes] | None = None

    def disturb(self, kinds: Sequence[str]) -> None:
        """One fault of each kind in turn, at random moments spread over the run; then let it end."""
        self.run.issue()
        try:
            for place, kind in enumerate(kinds):
                self._await_the_moment(len(kinds) - place)
                self._cause(kind)
        except Over:
            print(f"the run was over after {len(self.faults)} of {len(kinds)} faults", flush=True)
        while (code := self.run.wait(1)) != 0:
            self._new_machine_for_a_lost_one()
            if code is not None:
                self._look_after()
        if self._other is not None:
            self._other.kill()
            self._other.wait()

    def _await_the_moment(self, left: int) -> None:
        """Some units later than now, and then a little; the last tenth of the units is left alone."""
        now = self.run.units()
        step = max(0.0, 0.9 * self._units - now) / left
        until = now + self._dice.uniform(0, 2 * step if left > 1 else step)
        while self.run.units() < until:
            self._look_after()
            time.sleep(0.05)
        time.sleep(self._dice.uniform(0, 2))
        self._look_after()

    def _cause(self, kind: str) -> None:
        second, units = round(time.monotonic() - self._began, 1), self.run.units()
        print(f"fault {len(self.faults) + 1}: {kind} at {second} s with {units} units", flush=True)
        told = KINDS[kind](self)
        restored = round(max(0.0, time.monotonic() - self._began - second), 1)
        self.faults.append(
            {"kind": kind, "second": second, "units": units, "seconds_to_restore": restored, **told}
        )

    # Killed: SIGKILL, nothing is asked first.

    def actor(self) -> Told:
        """A scoring actor is killed."""
        self._signal_actor(signal.SIGKILL)
        return {}

    def node(self) -> Told:
        """A machine goes dark, and another takes its place."""
        self._machines.kill_worker()
        self._machines.start_worker()
        return {}

    def driver(self) -> Told:
        """The command is killed and given again."""
        self.run.kill()
        self._issue_again("driver killed")
        return {}

    def head(self) -> Told:
        """The first time the driver is left to find out; later it goes with the machine of the head."""
        self._machines.kill_head()
        self._heads += 1
        told: Told = {}
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

    # Asked, held up, cut off.

    def term(self) -> Told:
        """SIGTERM, as a scheduler of a cluster sends it, to the command, a machine or an actor."""
        target = self._dice.choice(("driver", "machine", "actor"))
        if target == "actor":
            self._signal_actor(signal.SIGTERM)
        elif target == "machine":
            self._machines.workers[-1].terminate()
            self._patiently(lambda: self._machines.workers[-1].poll() is not None)
            self._new_machine_for_a_lost_one()
        else:
            assert self.run.process is not None
            self.run.process.terminate()
            code = self.run.wait(_PATIENCE)
            self.run.kill()
            self._issue_again("driver asked to end")
            return {"target": target, "driver_exit_code": code}
        return {"target": target}

    def stop(self) -> Told:
        """SIGSTOP, as when a machine swaps or a debugger holds it, and after a while SIGCONT."""
        target, seconds = self._dice.choice(("driver", "machine", "actor")), self._some_seconds()
        assert self.run.process is not None
        if target == "actor":
            held = [self._an_actor()]
        elif target == "machine":
            held = self._machines.worker
        else:
            held = [psutil.Process(self.run.process.pid)] if self.run.ended() is None else []
        for process in held:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        time.sleep(seconds)
        for process in held:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        return {"target": target, "seconds": seconds}

    def partition(self) -> Told:
        """A machine's cable is out for a while."""
        assert self._network is not None
        seconds = self._some_seconds()
        with self._network.cut(self._machines.workers[-1].pid):
            time.sleep(seconds)
        return {"seconds": seconds}

    # Disk, files, clock, colleagues.

    def disk(self) -> Told:
        """The disk with the results has no byte left for a while."""
        seconds = self._some_seconds()
        with surroundings.full(self.run.output):
            time.sleep(seconds)
        return {"seconds": seconds}

    def torn(self) -> Told:
        """A file is cut short or overwritten in the middle, as after a power failure."""
        found = unit_files(self.run.output) + [p for p in self.run.output.glob("*.parquet") if p.is_file()]
        if not found:
            return {"file": None}
        file = self._dice.choice(sorted(found))
        content = file.read_bytes()
        place = self._dice.randrange(len(content))
        how = self._dice.choice(("cut", "overwritten"))
        # The writer's own way would replace the file; damage comes to the file that is there.
        with file.open("r+b") as stream:
            if how == "cut":
                stream.truncate(place)
            else:
                stream.seek(place)
                stream.write(bytes(b ^ 0xA5 for b in content[place : place + 64]))
        return {"file": str(file.relative_to(self.run.output)), "how": how}

    def clock(self) -> Told:
        """The time of day jumps, by seconds or by a year, on all machines."""
        assert self._clock is not None
        ahead = self._dice.choice((-1, 1)) * self._dice.choice((30.0, _HOUR, 24 * _HOUR, _YEAR))
        self._clock.set(ahead)
        return {"ahead_seconds": ahead}

    def second_run(self) -> Told:
        """A colleague gives the same command too; the one before is killed."""
        told: Told = {}
        if self._other is not None:
            told["earlier_exit_code"] = self._other.poll()
            self._other.kill()
            self._other.wait()
        self._other = self.run.driver(f"other{len(self.faults)}")
        return told

    def _some_seconds(self) -> float:
        """Mostly less than Ray waits for a machine, sometimes more."""
        long = self._dice.random() < 0.2
        return round(self._dice.uniform(40, 60) if long else self._dice.uniform(1, 8), 1)

    def _an_actor(self) -> psutil.Process:
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = sorted(self._machines.actors(), key=lambda p: p.pid)
            return bool(found)

        self._patiently(there)
        return self._dice.choice(found)

    def _signal_actor(self, number: int) -> None:
        """To one that is still there when the signal comes."""
        while True:
            with contextlib.suppress(psutil.NoSuchProcess):  # gone by itself just now
                return self._an_actor().send_signal(number)

    def _patiently(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not done():
            assert time.monotonic() < deadline, f"waited in vain:\n{self.run.last_words()}"
            self._look_after()
            time.sleep(0.1)

    def _look_after(self) -> None:
        """A new machine for a lost one; the command again when a driver ended by itself unfinished."""
        self._new_machine_for_a_lost_one()
        code = self.run.ended()
        if code is None:
            return
        if code == 0:
            raise Over
        words = self.run.last_words()
        print(f"  a driver ended by itself with {code}: {words[-600:]}", flush=True)
        assert self.reissued["ended by itself"] < 20 + len(self.faults), "the run does not get on"
        self._delete_what_is_called_damaged(words + self.run.printed())
        self._issue_again("ended by itself")

    def _new_machine_for_a_lost_one(self) -> None:
        if self._machines.workers and self._machines.workers[-1].poll() is not None:
            self._machines.kill_worker()
            self._machines.start_worker()

    def _delete_what_is_called_damaged(self, words: str) -> None:
        """As the message asks."""
        for name in re.findall(r"(/\S+\.parquet) cannot be read", words):
            Path(name).unlink(missing_ok=True)

    def _issue_again(self, why: str) -> None:
        self.reissued[why] += 1
        self.run.issue()


KILLED = ("actor", "node", "driver", "head")
KINDS: dict[str, Callable[[Disturbed], Told]] = {
    kind: getattr(Disturbed, kind)
    for kind in (*KILLED, "term", "stop", "partition", "disk", "torn", "clock", "second_run")
}
