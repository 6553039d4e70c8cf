"""A Ray cluster of several machines on one: `ray start` processes that all listen on loopback only."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from driving import title

if TYPE_CHECKING:
    from soak.surroundings import Network

# In the environment of all that a cluster starts, so that nothing of it can be overlooked.
_MARK = "FORECAST_TEST_CLUSTER"
_MACHINE = "FORECAST_TEST_MACHINE"  # the same for one machine of it
_UP_SECONDS = 120.0

# `ray start`, at 127.0.0.1. Ray listens on loopback alone only where it has been told to do without clusters
# of several machines, and then refuses the second one; here it is asked not to refuse.
_RAY_START = """
from ray._private import ray_constants, services
from ray.scripts import scripts
services.get_node_ip_address = lambda address=None: "127.0.0.1"
ray_constants.ENABLE_RAY_CLUSTER = True
scripts.cli(prog_name="ray")
"""
_NODES = """
import json, ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(json.dumps([node["NodeID"] for node in ray.nodes() if node["Alive"]]))
"""


class Machines:
    """A head and, perhaps, workers, with everything that they have started.

    Used in a `with` block, at whose end all of it is gone.
    """

    def __init__(
        self, cpus: int = 1, network: "Network | None" = None, more: Mapping[str, str] | None = None
    ) -> None:
        """Nothing is started yet.

        Args:
            cpus: of each machine.
            network: that connects them; loopback when there is none.
            more: environment of all that is started.
        """
        self._cpus, self._network, self._more = cpus, network, dict(more or {})
        self._mark = uuid.uuid4().hex
        # Paths of Unix sockets are short.
        self._folder = Path(tempfile.mkdtemp(prefix="fm-", dir="/tmp"))
        self._started = 0
        self._marks: dict[int, str] = {}
        self.head: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self.address = ""  # of the head, for `--address`

    def __enter__(self) -> "Machines":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """For those who use the cluster; with it they are found among its processes."""
        loopback = {} if self._network else {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        return {
            **self._more,
            **loopback,
            _MARK: self._mark,
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }

    def start_head(self) -> None:
        """A new head, which remembers nothing of an earlier one."""
        assert self.head is None, "there is one"
        port = free_port()
        self.address = f"{self._network.address if self._network else '127.0.0.1'}:{port}"
        self.head = self._start(
            "--head",
            f"--port={port}",
            "--include-dashboard=false",
            f"--ray-client-server-port={free_port()}",
            f"--temp-dir={self._folder / str(self._started)}",
        )
        self._wait_for_machines()

    def start_worker(self) -> None:
        """One machine more."""
        self.workers.append(self._start(f"--address={self.address}", worker=True))
        if self._network:
            self._network.plug(self.workers[-1].pid)
        self._wait_for_machines()

    def kill_head(self) -> None:
        """The head's machine goes dark, and with it all that ran there."""
        assert self.head is not None, "there is none"
        _end(self._family(self.head))
        self.head.wait()
        self.head = None

    def kill_worker(self) -> None:
        """The machine that was started last goes dark, and with it all that ran there."""
        worker = self.workers.pop()
        _end(self._family(worker))
        worker.wait()

    def kill_all(self) -> None:
        """Every process of the cluster and of those that used it, whatever became of its parents."""
        _end(self._marked())
        for one in (self.head, *self.workers):
            if one is not None:
                one.wait()
        self.head, self.workers = None, []

    @property
    def worker(self) -> list[psutil.Process]:
        """What runs on the machine that was started last."""
        return self._family(self.workers[-1])

    def actors(self) -> list[psutil.Process]:
        """The scoring actors on all machines."""
        return [p for p in self._marked() if title(p).startswith("ray::") and "ScoringActor" in title(p)]

    def actors_by_machine(self) -> list[list[psutil.Process]]:
        """The scoring actors on the head's machine, then those on each worker's."""
        found = self.actors()
        machines = [one for one in (self.head, *self.workers) if one is not None]
        return [[p for p in self._family(one) if p in found] for one in machines]

    def node_ids(self) -> list[str]:
        """Ray's names of the machines that are up, as somebody sees them who joins now."""
        asked = subprocess.run(
            [sys.executable, "-c", _NODES, self.address],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=_UP_SECONDS,
        )
        return list(json.loads(asked.stdout.splitlines()[-1])) if asked.returncode == 0 else []

    def listeners_beyond_loopback(self) -> list[str]:
        """Addresses on which a process of the cluster listens to other machines; there should be none."""
        return [
            f"{c.laddr.ip}:{c.laddr.port} ({title(p)[:60]})"
            for p in self._marked()
            for c in p.net_connections("inet")
            if c.status == psutil.CONN_LISTEN
            and c.laddr.ip.removeprefix("::ffff:") not in ("127.0.0.1", "::1")
        ]

    def _family(self, machine: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """All that was started on a machine, also what has outlived its parents."""
        return self._marked(_MACHINE, self._marks[machine.pid])

    def _marked(self, name: str = _MARK, mark: str | None = None) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(name) == (mark or self._mark):
                    found.append(process)
            except psutil.Error:
                continue  # gone, or somebody else's
        return found

    def _start(self, *arguments: str, worker: bool = False) -> subprocess.Popen[bytes]:
        program = "from ray.scripts import scripts; scripts.main()" if self._network else _RAY_START
        command = [sys.executable, "-c", program, "start", "--block", "--disable-usage-stats"]
        command += [f"--num-cpus={self._cpus}", "--object-store-memory=100000000"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        command += [f"--dashboard-agent-listen-port={free_port()}", *arguments]
        if self._network and worker:
            command = self._network.command(command)
        self._started += 1
        bin_ = Path(sys.executable).parent
        mark = f"{self._mark} {self._started}"
        with self._log().open("w") as log:
            started = subprocess.Popen(
                command,
                env={
                    **os.environ,
                    **self.environment,
                    _MACHINE: mark,
                    "PATH": f"{bin_}:{os.environ['PATH']}",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._marks[started.pid] = mark
        return started

    def _log(self) -> Path:
        return self._folder / f"ray-start-{self._started}.log"

    def _wait_for_machines(self) -> None:
        """Until as many are up as should be; those that have just died are known to be dead after seconds."""
        started = [one for one in (self.head, *self.workers) if one is not None]
        deadline = time.monotonic() + _UP_SECONDS
        while len(self.node_ids()) != len(started):
            ended = [one for one in started if one.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{len(started)} machines should be up:\n{self._log().read_text()}")


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _end(processes: list[psutil.Process]) -> None:
    """All at once, as when the power fails."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    left = psutil.wait_procs(processes, timeout=30)[1]
    assert not left, f"still there: {left}"
