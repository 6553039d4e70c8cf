"""Joining and starting Ray: what stands in the way is said in one sentence, within seconds."""

import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
from ray._private import services
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from actors import address, cluster
from actors.cluster import connected
from forecast.config.schema import ClusterConfig
from forecast.errors import ConfigError, ForecastError


def refusal(target: str) -> str:
    """Why a cluster at an address is not joined, which must be known within ten seconds."""
    begun = time.monotonic()
    with pytest.raises(ForecastError) as refused, connected(ClusterConfig(), target):
        pass
    assert time.monotonic() - begun < 10
    return str(refused.value)


class Gcs(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):  # type: ignore[misc]
    """The head of a cluster with one node, which may ask for a token."""

    def __init__(self, node: bytes, token: str | None) -> None:
        self.node, self.token = node, token

    def CheckAlive(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check(context)
        return gcs_service_pb2.CheckAliveReply()

    def GetAllNodeInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check(context)
        answer = gcs_service_pb2.GetAllNodeInfoReply()
        answer.node_info_list.add(node_id=self.node, node_manager_address="10.0.0.7", state=0)
        return answer

    def _check(self, context: grpc.ServicerContext) -> None:
        sent = dict(context.invocation_metadata()).get("authorization")
        if self.token is not None and sent != f"Bearer {self.token}":
            text = "InvalidAuthToken: Authentication token is missing or incorrect"
            context.abort(grpc.StatusCode.UNAUTHENTICATED, text)


@contextmanager
def gcs(node: bytes = b"\1" * 28, token: str | None = None) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(Gcs(node, token), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize(
    "target", ["head", "head:", ":6379", "head:x", "head:0", "head:65536", "http://head:8265"]
)
def test_malformed_address_is_a_usage_error(target: str) -> None:
    with (
        pytest.raises(ConfigError, match="expected HOST:PORT of the head"),
        connected(ClusterConfig(), target),
    ):
        pass


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_port_of_a_web_server_is_named(prefix: str) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert "perhaps the head's dashboard" in refusal(f"{prefix}127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_silent_port_is_given_up_after_a_timeout(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert address._SECONDS < 10
    monkeypatch.setattr(address, "_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "no answer within 1 s" in refusal(f"{prefix}127.0.0.1:{listener.getsockname()[1]}")


@pytest.mark.parametrize("target", ["127.0.0.1:1", "ray://127.0.0.1:1", "no-such-host.invalid:6379"])
def test_closed_port_is_one_sentence(target: str) -> None:
    assert f"no Ray cluster answers at {target}" in refusal(target)


def test_head_and_client_ports_are_told_apart() -> None:
    with gcs() as target:
        assert "another port of a Ray cluster" in refusal(f"ray://{target}")


def test_machine_outside_the_cluster_is_pointed_to_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "find_node_ids", lambda: {"02" * 28})
    monkeypatch.setattr(address, "_SECONDS", 1.0)
    with gcs() as target:
        said = refusal(target)
    assert "this machine is no node" in said and "10.0.0.7" in said and "forecast submit" in said


def test_missing_or_wrong_token_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setattr(services, "find_node_ids", lambda: {"01" * 28})

    def said(token: str | None = "a" * 64, **environment: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            cluster.read_authentication()
            with gcs(token=token) as target:
                return refusal(target)

    try:
        assert "asks for a token, and none was sent" in said()
        assert "there is no token for" in said(RAY_AUTH_MODE="token")
        assert "refuses the token of RAY_AUTH_TOKEN" in said(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="b" * 64)
        assert "runs without tokens" in said(None, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="b" * 64)
    finally:
        monkeypatch.undo()
        cluster.read_authentication()


def test_address_auto_without_a_cluster_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda address: None)
    assert "no Ray cluster runs on this machine" in refusal("auto")


def file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return file(folder) / "tmp"


def in_proc(folder: Path) -> Path:
    return Path("/proc")


def too_long(folder: Path) -> Path:
    return folder / ("x" * 90)


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
@pytest.mark.parametrize("kind", [file, below_a_file, in_proc, too_long])
def test_unusable_temporary_folder_is_named(
    variable: str, kind: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = kind(tmp_path)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, str(folder))
    said = refusal("local")
    assert str(folder) in said and "set RAY_TMPDIR to a short path" in said and "\n" not in said
    assert not ray.is_initialized()


def test_full_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_LEAST_FREE_BYTES", 1 << 62)
    assert "the disk is full" in refusal("local")


# What Ray's C++ does while it ends, and what Kubernetes may send meanwhile.
_ENDING = """
import ctypes, os, signal, time
from actors import cluster

def shutdown():
    ctypes.CDLL(None).signal(signal.SIGTERM, None)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)

cluster.ray.shutdown = shutdown
seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
cluster._shut_down()
print(len(seen))
"""


def test_sigterm_while_ray_ends_is_ours_to_handle() -> None:
    ended = subprocess.run([sys.executable, "-c", _ENDING], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "1\n"), ended.stderr
