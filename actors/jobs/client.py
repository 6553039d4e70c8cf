"""The head of a cluster, as seen from a laptop: HTTP with short timeouts, and errors that say what to do.

All goes over the port of the head's dashboard (8265). Who may do what is Ray's token authentication: the
token is taken from `RAY_AUTH_TOKEN`, from the file that `RAY_AUTH_TOKEN_PATH` names, or from
`~/.ray/auth_token`, and is sent where `RAY_AUTH_MODE=token`.
"""

import importlib.metadata
import logging
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

# Read by Ray when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import requests
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from actors.jobs.errors import ANSWER_SECONDS, CONNECT_SECONDS, UPLOAD_SECONDS, translated
from forecast.errors import ConfigError, ForecastError

DEFAULT_PORT = 8265
DIGEST_KEY = "forecast_digest"  # of our jobs' metadata, by which they are known among others

# Ray's client obeys these before its own argument; we were given an address.
_OVERRIDING = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")  # ours, which become names of folders
_ATTEMPT = re.compile(r"^(?P<base>.+?)(?:\.(?P<attempt>\d+))?$")


@dataclass(frozen=True)
class Versions:
    """What must agree between two machines; None where it is not known."""

    ray: str | None
    python: str | None  # major.minor

    def differences(self, there: "Versions") -> list[str]:
        """In words, each with its remedy."""
        found = []
        if there.ray is not None and there.ray != self.ray:
            found.append(
                f"Ray is {self.ray} here and {there.ray} on the cluster: install "
                f"'ray[default]=={there.ray}' here, "
                f"or an image with Ray {self.ray} there"
            )
        if there.python is not None and there.python != self.python:
            found.append(
                f"Python is {self.python} here and {there.python} on the cluster: use Python "
                f"{there.python} here, "
                f"or an image with Python {self.python} there"
            )
        return found


@dataclass(frozen=True)
class Job:
    """A job of ours as the head knows it; times are seconds since 1970."""

    job_id: str
    status: str
    exit_code: int | None
    message: str
    error_type: str | None
    started: float | None
    ended: float | None
    node_id: str | None
    metadata: dict[str, str]

    @property
    def running(self) -> bool:
        """Or about to run."""
        return not JobStatus(self.status).is_terminal()

    @property
    def done(self) -> bool:
        """Came to its end, whether or not some candidate failed or a nightly run raised an alert."""
        return self.status == "SUCCEEDED" or self.exit_code in (3, 5)

    @property
    def base(self) -> str:
        """The id without the number of the attempt."""
        return base_and_attempt(self.job_id)[0]


def base_and_attempt(job_id: str) -> tuple[str, int]:
    """`forecast-x-1a2b.3` is the third attempt at `forecast-x-1a2b`."""
    match = _ATTEMPT.match(job_id)
    assert match is not None
    return match["base"], int(match["attempt"] or 1)


def own_versions() -> Versions:
    """Of this machine."""
    return Versions(importlib.metadata.version("ray"), ".".join(platform.python_version_tuple()[:2]))


def head_url(address: str) -> str:
    """`http://HOST:PORT` from what a user may write.

    Raises:
        ConfigError: this is no address of a head's dashboard.
    """
    text = address.strip().rstrip("/")
    scheme = text.partition("://")[0] if "://" in text else "http"
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if scheme == "ray":
        raise ConfigError(
            f"--address {address}: that is the port of the Ray client; jobs go to the head's dashboard: "
            f"http://{host or 'HOST'}:{DEFAULT_PORT}"
        )
    if scheme not in ("http", "https") or not host:
        raise ConfigError(f"--address {address}: expected http://HOST:{DEFAULT_PORT}, the head's dashboard")
    netloc = f"[{host}]" if ":" in host else host
    if port is None and scheme == "http":
        port = DEFAULT_PORT
    return f"{scheme}://{netloc}{f':{port}' if port else ''}{parts.path}"


class Head:
    """A cluster's head.

    Every method raises `HeadUnreachable` where the head does not answer and `ForecastError` where it refuses.
    """

    def __init__(self, address: str) -> None:
        """Connect; fails within seconds where there is nothing to connect to."""
        self.url = head_url(address)
        for name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
            logging.getLogger(name).setLevel(logging.WARNING)
        hidden = {name: os.environ.pop(name) for name in _OVERRIDING if name in os.environ}
        try:
            with translated(self.url):
                self._client = _Client(self.url)
        finally:
            os.environ.update(hidden)

    def versions(self) -> Versions:
        """Of Ray and Python on the cluster."""
        with translated(self.url):
            ray = self._client._do_request("GET", "/api/version").json().get("ray_version")
            answer = self._client._do_request("GET", "/api/v0/cluster_metadata")
            python = answer.json()["data"].get("pythonVersion") if answer.ok else None
        return Versions(ray, ".".join(python.split(".")[:2]) if python else None)

    def submit(
        self, job_id: str, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> None:
        """Upload the working directory and start a job.

        Raises:
            JobExistsError: this very job was submitted a moment ago.
        """
        with translated(self.url):
            try:
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env=runtime_env,
                    metadata=metadata,
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    raise JobExistsError(job_id) from None
                raise

    def jobs(self) -> list[Job]:
        """All jobs that were submitted by `forecast`, the oldest first."""
        with translated(self.url):
            details = self._client.list_jobs()
        ours = [
            _job(d)
            for d in details
            if _JOB_ID.fullmatch(d.submission_id or "") and DIGEST_KEY in (d.metadata or {})
        ]
        return sorted(ours, key=lambda job: (job.started or 0.0, job.job_id))

    def job(self, job_id: str) -> Job:
        """One job by its whole id."""
        with translated(self.url):
            return _job(self._client.get_job_info(job_id))

    def find(self, wanted: str) -> Job:
        """A job by its id, the id without attempt (the latest of these), or the beginning of an id."""
        jobs = self.jobs()
        exact = [job for job in jobs if job.job_id == wanted]
        latest = [job for job in jobs if job.base == wanted]
        begun = [job for job in jobs if job.job_id.startswith(wanted)]
        if len({job.base for job in begun}) > 1 and not (exact or latest):
            listed = ", ".join(dict.fromkeys(job.base for job in begun))
            raise ForecastError(f"{wanted!r} is the beginning of several jobs: {listed}")
        for found in (latest, exact, begun):
            if found:
                return max(found, key=lambda job: base_and_attempt(job.job_id)[1])
        known = ", ".join(job.job_id for job in jobs[-5:]) or "none"
        raise ForecastError(
            f"there is no job {wanted!r} on {self.url}; its latest: {known}\n"
            "a head that was started anew has forgotten its jobs, not their results: submit again, finished "
            "units are not done again"
        )

    def log(self, job_id: str) -> str:
        """What a job has printed so far."""
        with translated(self.url):
            return str(self._client.get_job_logs(job_id))

    def log_tail(self, job: Job, lines: int) -> str:
        """The last lines of it; empty where there is nothing yet."""
        if job.node_id is None:
            return ""
        try:
            parts = self.served_file(job.node_id, f"job-driver-{job.job_id}.log", lines)
            return b"".join(parts).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def stop(self, job_id: str) -> bool:
        """Ask a job to end; False where it was not running."""
        with translated(self.url):
            return bool(self._client.stop_job(job_id))

    def served_file(self, node_id: str, name: str, lines: int = -1) -> Iterator[bytes]:
        """A file below the log folder of a node, in chunks; `lines` takes its last ones only.

        Raises:
            FileNotFoundError: there is no such file, or it is empty. Ray says of one request in twenty for a
                missing file that it is empty (2.60), so the two cannot be told apart.
        """
        query = f"node_id={quote(node_id)}&filename={quote(name)}&lines={lines}&timeout=3600"
        with translated(self.url):
            answer = self._client._do_request("GET", f"/api/v0/logs/file?{query}", stream=True)
            with answer:
                if "not found" in (answer.text if not answer.ok else ""):
                    raise FileNotFoundError(name)
                if not answer.ok:
                    raise ForecastError(f"{self.url} does not serve {name}: {answer.text.strip()[:500]}")
                empty = True
                for chunk in answer.iter_content(1 << 20):
                    empty = False
                    yield chunk
                if empty:
                    raise FileNotFoundError(name)


class JobExistsError(ForecastError):
    """A job of this id already exists."""


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's own waits without end for an answer: a laptop that slept would hang."""

    def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> requests.Response:
        seconds = UPLOAD_SECONDS if method == "PUT" else ANSWER_SECONDS
        kwargs.setdefault("timeout", (CONNECT_SECONDS, seconds))
        answer: requests.Response = super()._do_request(method, endpoint, **kwargs)
        return answer


def _job(details: JobDetails) -> Job:
    return Job(
        job_id=details.submission_id or "",
        status=str(details.status.value),
        exit_code=details.driver_exit_code,
        message=details.message or "",
        error_type=details.error_type,
        started=None if details.start_time is None else details.start_time / 1000,
        ended=None if not details.end_time else details.end_time / 1000,
        node_id=details.driver_node_id,
        metadata=dict(details.metadata or {}),
    )
