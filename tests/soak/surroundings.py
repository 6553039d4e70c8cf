"""What a cluster stands in and what can go wrong with it: the network, the disk, the clock.

All of it is made in namespaces of a process of its own (`unshare`), so that nothing outside is touched and no
rights are needed; Linux only.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_INSIDE = "FORECAST_SOAK_INSIDE"
_DISK_MIB = 64
# The machine's program, once its cable is plugged in.
_WAIT_FOR_CABLE = 'until ip route | grep -q default; do sleep 0.05; done; exec "$@"'


def possible() -> bool:
    """Whether namespaces of one's own can be had here."""
    command = ["unshare", "--map-root-user", "--net", "--mount", "ip", "link"]
    return shutil.which("unshare") is not None and not subprocess.run(command, capture_output=True).returncode


def enter() -> None:
    """Start this program again in its own network and mount namespaces, unless it already runs there."""
    if os.environ.get(_INSIDE) != str(os.getppid()):
        command = ["unshare", "--map-root-user", "--net", "--mount", sys.executable, *sys.argv]
        # unshare execs the program, which then has the parent that this process has.
        os.execvpe("unshare", command, {**os.environ, _INSIDE: str(os.getppid())})


class Network:
    """A switch, and a cable from it to each machine but the head's, which is plugged in directly."""

    address = "10.77.0.1"  # of the head's machine

    def __init__(self) -> None:
        self._machines = 1
        for command in (
            "link set lo up",
            "link add switch type bridge",
            f"addr add {self.address}/24 dev switch",
            "link set switch up",
            "route add default dev switch",  # a program finds its own address by the default route
        ):
            _ip(command)

    def command(self, command: list[str]) -> list[str]:
        """A machine's program in a network namespace of its own; it begins once `plug` was called."""
        return ["unshare", "--net", "sh", "-c", _WAIT_FOR_CABLE, "sh", *command]

    def plug(self, pid: int) -> None:
        """Connect the machine whose program was started as `command` says; the cable goes when it ends."""
        own, other = Path("/proc/self/ns/net"), Path(f"/proc/{pid}/ns/net")
        while own.readlink() == other.readlink():
            pass
        self._machines += 1
        _ip(f"link add {_cable(pid)} type veth peer name eth0 netns {pid}")
        _ip(f"link set {_cable(pid)} master switch up")
        for command in (
            "link set lo up",
            f"addr add 10.77.0.{self._machines % 250 + 2}/24 dev eth0",
            "link set eth0 up",
            "route add default dev eth0",
        ):
            subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", *command.split()], check=True)

    @contextlib.contextmanager
    def cut(self, pid: int) -> Iterator[None]:
        """The machine's cable is out: nothing arrives and nothing is refused."""
        _ip(f"link set {_cable(pid)} down")
        try:
            yield
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):  # the machine has ended meanwhile
                _ip(f"link set {_cable(pid)} up")


def _cable(pid: int) -> str:
    return f"cable{pid}"


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def small_disk(folder: Path) -> None:
    """A disk of a few megabytes below the folder."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs"]
    subprocess.run(["mount", *options, str(folder)], check=True)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """The disk below the folder has no byte left."""
    ballast = folder / ".ballast"
    try:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        yield
    finally:
        ballast.unlink()


class Clock:
    """The time of day as the Python code of every process sees it that was started with `environment`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0.0)

    @property
    def environment(self) -> dict[str, str]:
        """Loads `clock/sitecustomize.py` when Python starts."""
        ours = str(Path(__file__).with_name("clock"))
        return {
            "FORECAST_SOAK_CLOCK": str(self._file),
            "PYTHONPATH": os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH")))),
        }

    def set(self, ahead: float) -> None:
        """So many seconds before (or after, when negative) the true time, from now on."""
        spare = self._file.with_suffix(".new")
        spare.write_text(repr(ahead))
        spare.replace(self._file)
