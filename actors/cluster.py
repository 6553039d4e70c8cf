"""Connecting to Ray: a cluster by its address, or one started on this machine for the length of a run."""

import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

# Read by Ray when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray._private import ray_constants

from actors.placement import Machine
from forecast.config.schema import ClusterConfig
from forecast.errors import ForecastError

# Nothing but receipts passes through Ray's object store.
_OBJECT_STORE_BYTES = 128 << 20
_REACH_SECONDS = 10.0


@contextmanager
def connected(settings: ClusterConfig, address: str | None = None) -> Iterator[None]:
    """A connection to Ray for the length of a `with` block.

    The address is the argument, else the configuration's, else `RAY_ADDRESS` (set inside a Ray job); without
    any of them Ray is started on this machine, listening on loopback only, and stopped at the end.

    Raises:
        ForecastError: no cluster answers at the address.
    """
    target = address or settings.address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():  # a test or a notebook brought its own connection, and keeps it
        yield
        return
    if target is None:
        _start_on_loopback()
    else:
        _check_reachable(target)
        try:
            ray.init(address=target, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_answer(target, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _start_on_loopback() -> None:
    """A Ray of one machine, none of whose listeners can be reached from another."""
    # Ray read the variable when it was imported, for this process; its children read it now. It may be set
    # for neither when a real cluster is joined.
    constant, name = ray_constants.ENABLE_RAY_CLUSTER, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    variable = os.environ.get(name)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[name] = False, "0"
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        if variable is None:
            del os.environ[name]
        else:
            os.environ[name] = variable


def _check_reachable(target: str) -> None:
    """Ray itself tries an address for minutes before it reports that nothing answers."""
    host, _, port = target.rpartition("://")[2].rpartition(":")
    if not port.isdigit():  # "auto" and the like
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise _no_answer(target, error) from None


def _no_answer(target: str, error: Exception) -> ForecastError:
    fix = "check the address, or leave it out to start Ray on this machine"
    return ForecastError(f"no Ray cluster answers at {target}: {error}\n{fix}")


def machines() -> list[Machine]:
    """The machines of the connected cluster that are up."""
    return [_machine(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _machine(resources: dict[str, float]) -> Machine:
    """From Ray's resources of a node; where a kind of GPU has two names, the longer one tells its memory."""
    kinds = [name.partition(":")[2] for name in resources if name.startswith("accelerator_type:")]
    known = {"CPU", "GPU", "memory", "object_store_memory"}
    return Machine(
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        kind=max(kinds, key=len, default=None) if resources.get("GPU") else None,
        memory=resources.get("memory", math.inf),
        others=tuple(sorted((name, amount) for name, amount in resources.items() if name not in known)),
    )
