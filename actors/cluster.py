"""Connecting to Ray: a cluster by its address, or one started on this machine for the length of a run."""

import math
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

# Read by Ray when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray._common.utils import get_default_system_temp_dir
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from actors.address import check_address
from actors.placement import Machine
from forecast.config.schema import ClusterConfig
from forecast.errors import ForecastError

# Nothing but receipts passes through Ray's object store.
_OBJECT_STORE_BYTES = 128 << 20
# Workers import first from the folder in which Ray is started, where a torch.py of anybody's may lie.
_OWN_CODE = Path(__file__).parents[1]
_LEAST_FREE_BYTES = 20_000_000  # logs of a short run


@contextmanager
def connected(settings: ClusterConfig, address: str | None = None) -> Iterator[None]:
    """A connection to Ray for the length of a `with` block.

    The address is the argument, else the configuration's, else `RAY_ADDRESS` (set inside a Ray job); without
    any of them Ray is started on this machine, listening on loopback only, and stopped at the end.

    Raises:
        ConfigError: this is no address of a Ray cluster.
        ForecastError: the cluster cannot be joined, or Ray cannot be started here.
    """
    target = address or settings.address or os.environ.get("RAY_ADDRESS") or "local"
    if ray.is_initialized():  # a test or a notebook brought its own connection, and keeps it
        yield
        return
    handler = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    with _on_loopback() if target == "local" else _joined(target), _sigterm(handler):
        try:
            yield
        finally:
            _shut_down()


def _shut_down() -> None:
    """As `ray.shutdown`, in which Ray puts back the system's handler of SIGTERM: a second one would kill."""
    if threading.current_thread() is not threading.main_thread():
        ray.shutdown()
        return
    handler = signal.getsignal(signal.SIGTERM)
    ending = threading.Thread(target=ray.shutdown)
    ending.start()
    while ending.is_alive():
        signal.signal(signal.SIGTERM, handler)
        ending.join(0.001)


@contextmanager
def _sigterm(handler: Any) -> Iterator[None]:
    """SIGTERM as it was before Ray put its own handler there; as Ctrl-C where nobody handled it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    unhandled = handler == signal.SIG_DFL
    signal.signal(signal.SIGTERM, signal.default_int_handler if unhandled else handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _joined(target: str) -> Iterator[None]:
    check_address(target)
    try:
        with chdir(_OWN_CODE):
            ray.init(address=target, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises all kinds, some of them bare
        raise ForecastError(f"the Ray cluster at {target} cannot be joined: {_first_line(error)}") from error
    yield


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray of one machine, none of whose listeners can be reached from another."""
    _check_temporary_folder()
    # Ray read the variable when it was imported, for this process; its children read it now. It may be set
    # for neither when a real cluster is joined.
    constant, name = ray_constants.ENABLE_RAY_CLUSTER, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    variables = {key: os.environ.get(key) for key in (name, "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[name] = False, "0"
    # Without a token Ray would write one into the user's home, for which every later head would ask.
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    read_authentication()
    try:
        try:
            with chdir(_OWN_CODE):
                ray.init(
                    address="local",
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    object_store_memory=_OBJECT_STORE_BYTES,
                )
        except Exception as error:  # Ray raises all kinds, some of them bare
            raise _not_started(_first_line(error)) from error
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        for key, value in variables.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
        read_authentication()


def read_authentication() -> None:
    """Have Ray read `RAY_AUTH_*` again, which it keeps in a cache."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _check_temporary_folder() -> None:
    """Ray waits half a minute for what it cannot write there."""
    folder = Path(get_default_system_temp_dir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _not_started(str(error)) from None
    if free < _LEAST_FREE_BYTES:
        raise _not_started(f"the disk is full, {free / 1e6:,.1f} MB are free")


def _not_started(why: str) -> ForecastError:
    folder = get_default_system_temp_dir()
    if "AF_UNIX path length" in why:
        why = "its path is too long for Unix sockets, of which Ray keeps some there"
    return ForecastError(
        f"Ray cannot be started on this machine with {folder} as its temporary folder: {why}; set RAY_TMPDIR "
        "to a short path to which this user can write, on a disk with room"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def machines() -> list[Machine]:
    """The machines of the connected cluster that are up."""
    return [_machine(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def own_node_is_up() -> bool:
    """Whether the cluster still counts this machine, through which all that this process asks for goes."""
    own = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == own and node["Alive"] for node in ray.nodes())


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
