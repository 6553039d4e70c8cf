"""Connecting to Ray: a cluster by its address, or one started on this machine for the length of a run."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

# Read by Ray when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

from forecast.config import ClusterConfig
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
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # keeps every listener on loopback
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    else:
        _check_reachable(target)
        try:
            ray.init(address=target, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ForecastError(
                f"no Ray cluster answers at {target}: {error}\n"
                "check the address, or leave it out to start Ray on this machine"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(target: str) -> None:
    """Ray itself goes on trying an address for minutes before it says that nobody is there."""
    host, _, port = target.rpartition("://")[2].rpartition(":")
    if not port.isdigit():  # "auto" and the like
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise ForecastError(
            f"no Ray cluster answers at {target}: {error}\n"
            "check the address, or leave it out to start Ray on this machine"
        ) from None


def actor_count(settings: ClusterConfig, units: int) -> int:
    """How many scoring actors the cluster has room for, at most one per unit.

    Raises:
        ForecastError: not even one fits, or more were asked for than fit.
    """
    have = ray.cluster_resources()
    fits = int(have.get("CPU", 0) // settings.cpus_per_actor)
    if settings.gpus_per_actor:
        # Below one GPU an actor shares a card, never two halves of different cards.
        per_gpu = (
            int(1 // settings.gpus_per_actor) if settings.gpus_per_actor <= 1 else 1 / settings.gpus_per_actor
        )
        fits = min(fits, int(have.get("GPU", 0) * per_gpu))
    wanted = settings.actors or fits
    if fits < 1 or wanted > fits:
        raise ForecastError(
            f"need {max(1, wanted)} actors of {settings.cpus_per_actor:g} CPUs and "
            f"{settings.gpus_per_actor:g} GPUs, "
            f"the cluster has {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs; "
            "lower cluster.actors, cluster.cpus_per_actor or cluster.gpus_per_actor"
        )
    return min(wanted, max(1, units))
