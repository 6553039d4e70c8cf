"""Whether a Ray cluster can be joined at an address, found out in seconds: Ray itself tries for minutes."""

import contextlib
import time

import grpc
from ray._private import ray_constants, services
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc, ray_client_pb2, ray_client_pb2_grpc
from ray.exceptions import AuthenticationError

from actors.jobs.errors import about_tokens
from forecast.errors import ConfigError, ForecastError

_CLIENT = "ray://"
_SECONDS = 8.0
_FIX = "check the address, or leave it out to start Ray on this machine"
_EXPECTED = "expected HOST:PORT of the head (`ray start --port`, default 6379), ray://HOST:10001, or auto"


def check_address(target: str) -> None:
    """Ask the cluster at an address for its nodes.

    Raises:
        ConfigError: this is no address of a Ray cluster.
        ForecastError: no cluster answers, it refuses the token, or this machine is none of its nodes.
    """
    if target == "auto":
        found = services.canonicalize_bootstrap_address(target)
        if found is None:
            raise ForecastError(f"no Ray cluster runs on this machine for --address auto; {_FIX}")
        target = found
    address = target.removeprefix(_CLIENT)
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise ConfigError(f"--address {target}: that is for `forecast submit`; {_EXPECTED}")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"--address {target}: {_EXPECTED}")
    try:
        with init_grpc_channel(address, ray_constants.GLOBAL_GRPC_OPTIONS) as channel:
            if target != address:
                ping = ray_client_pb2.ClusterInfoRequest(type=ray_client_pb2.ClusterInfoType.PING)
                ray_client_pb2_grpc.RayletDriverStub(channel).ClusterInfo(ping, timeout=_SECONDS)
            else:
                _check_is_node(address, channel)
                _check_asks_for_token(address)
    except AuthenticationError as error:
        raise ForecastError(about_tokens(target, str(error))) from None
    except grpc.RpcError as error:
        raise _translated(target, error) from None


def _check_is_node(address: str, channel: grpc.Channel) -> None:
    """Ray joins a cluster through a node on this machine, which may have been started just now."""
    stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
    deadline = time.monotonic() + _SECONDS
    while True:
        answer = stub.GetAllNodeInfo(gcs_service_pb2.GetAllNodeInfoRequest(), timeout=_SECONDS)
        nodes = {node.node_id.hex(): node for node in answer.node_info_list if node.state == node.ALIVE}
        if nodes.keys() & set(services.find_node_ids()):
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    names = sorted({node.node_manager_address for node in nodes.values()})
    raise ForecastError(
        f"this machine is no node of the Ray cluster at {address} ({', '.join(names[:5]) or 'none is up'}): "
        "run the command on one of them, or send the run there with `forecast submit`"
    )


def _check_asks_for_token(address: str) -> None:
    """With tokens here and none there, what the cluster sends to this process is refused, without end."""
    if not is_token_auth_enabled():
        return
    with grpc.insecure_channel(address, list(ray_constants.GLOBAL_GRPC_OPTIONS)) as channel:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        with contextlib.suppress(grpc.RpcError):
            stub.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=_SECONDS)
            raise ForecastError(
                f"the Ray cluster at {address} runs without tokens, and here RAY_AUTH_MODE is token: set "
                "RAY_AUTH_MODE=disabled, or start the cluster with RAY_AUTH_MODE=token"
            )


def _translated(target: str, error: grpc.RpcError) -> ForecastError:
    code, text = error.code(), error.details() or ""
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return ForecastError(about_tokens(target, text))
    if "Failed parsing HTTP/2" in text:
        return ForecastError(
            f"what answers at {target} is no Ray head but a web server, perhaps the head's dashboard, whose "
            f"address `forecast submit` takes; {_EXPECTED}"
        )
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return ForecastError(f"what answers at {target} is another port of a Ray cluster; {_EXPECTED}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        text = f"no answer within {_SECONDS:g} s"
    return ForecastError(f"no Ray cluster answers at {target}: {text.rpartition(': ')[2]}\n{_FIX}")
