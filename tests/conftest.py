"""Fixtures that several parts of the tests share."""

import os
import re
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when the hub's client is imported

import pyarrow.fs
import pytest

_ON_RAY = ("actors", "soak", "browser")  # folders whose tests start Ray
_STARTS_RAY = re.compile(r"^\s*(?:from|import) (?:driving|machines)\b", re.MULTILINE)


@cache
def may_start_ray(path: Path) -> bool:
    """Whether tests of a file may start Ray: by folder, or as they drive the command line or machines."""
    return path.relative_to(Path(__file__).parent).parts[0] in _ON_RAY or bool(
        _STARTS_RAY.search(path.read_text())
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `-n 2 --dist loadgroup`: each file is one group, all files that may start Ray together another.

    By file names, since pytest-xdist 3.8 loses the groups of its own marker under pytest 9.2.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class FilesAndRay(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "ray" if may_start_ray(config.rootpath / path) else path

    return FilesAndRay(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither use nor fill the user's memory of file hashes; processes they start inherit this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def _object_store_server() -> Iterator[str]:
    """URL of an S3 server on a free loopback port, gone with the session."""
    moto = pytest.importorskip("moto.server", reason="needs moto[server], which makes the object store")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(_object_store_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket as `s3://NAME`, reachable the way users reach theirs: by `AWS_*` variables."""
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", _object_store_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    name = f"bucket-{uuid.uuid4().hex}"
    # The address is spelt out here: whether the variables lead to it is for the tests to show.
    creator = pyarrow.fs.S3FileSystem(
        endpoint_override=_object_store_server, region="us-east-1", allow_bucket_creation=True
    )
    creator.create_dir(name)
    return f"s3://{name}"
