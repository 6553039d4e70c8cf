"""Submitting a run, or finding the job that an earlier, equal command submitted."""

import errno
import os
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from actors.jobs.client import DIGEST_KEY, Head, Job, JobExistsError, base_and_attempt, own_versions
from actors.jobs.package import CONFIG_PLACE, START_PLACE, Package
from forecast.config import NIGHT_VARIABLE
from forecast.config.loader import StrictLoader
from forecast.errors import ConfigError, ForecastError

Command = Literal["run", "score", "nightly"]
How = Literal["submitted", "reattached", "already done"]


@dataclass(frozen=True)
class Settings:
    """How a job is run on the cluster.

    Attributes:
        installed: the version of `proxy-forecast` that the cluster has and is to use; None where the code
            travels with the job.
        python: what starts Python on the cluster.
        report: also work out held-out figures and a report with plots.
        any_version: do not mind other versions of Ray and Python.
        runtime_env: Ray's runtime environment, without a working directory.
    """

    command: Command = "run"
    installed: str | None = None
    python: str = "python"
    report: bool = False
    any_version: bool = False
    runtime_env: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Submitted:
    """A job, and how this command came by it."""

    job: Job
    how: How
    note: str = ""


def read_runtime_env(
    path: str | None, variables: Sequence[str], environ: Mapping[str, str]
) -> dict[str, Any]:
    """A runtime environment from a YAML or JSON file and `NAME` or `NAME=VALUE` texts.

    Raises:
        ConfigError: no such file, a key that cannot travel with a job, or a variable that is not set here.
    """
    env: dict[str, Any] = {}
    if path is not None:
        try:
            env = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=StrictLoader) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"--runtime-env {path} cannot be read: {error}") from None
        if not isinstance(env, dict):
            raise ConfigError(f"--runtime-env {path}: expected keys such as pip, env_vars")
    for key, why in (
        ("working_dir", "the package of the run is the working directory"),
        (
            "image_uri",
            "Ray cannot send files to a job that brings its own image; the image belongs to the cluster "
            "(configs/deploy/raycluster.yaml), and --installed uses what is installed in it",
        ),
        ("excludes", "what --dry-run lists travels; take files out of the folder of the data instead"),
        ("container", "see image_uri, which replaced it: the image belongs to the cluster"),
    ):
        if key in env:
            raise ConfigError(f"--runtime-env {path}: {key} cannot be used: {why}")
    for module in env.get("py_modules") or ():
        if "://" not in str(module):
            raise ConfigError(
                f"--runtime-env {path}: py_modules: {module} is a path of this machine, which --dry-run "
                "would not list; name an archive at s3:// or https://, or use an image that has it"
            )
    given = dict(env.get("env_vars") or {})
    for text in variables:
        name, has_value, value = text.partition("=")
        if not has_value and name not in environ:
            raise ConfigError(f"--env {name}: it is not set here; write --env {name}=VALUE")
        given[name] = value if has_value else environ[name]
    return {**env, "env_vars": given} if given else env


def submit(head: Head, package: Package, settings: Settings, again: bool = False) -> Submitted:
    """Start the run, or find the job that runs or did it already.

    A job that failed or was stopped is started anew; one that came to its end only where `again` says so.
    Whatever its attempt did is in the lake and is not done again.

    Raises:
        ForecastError: versions differ, or the head refuses the job.
    """
    before = attempts(head.jobs(), package.job_id)
    latest = before[-1] if before else None
    if latest is not None and latest.running:
        return Submitted(latest, "reattached")
    if latest is not None and latest.done and not again:
        return Submitted(latest, "already done", "--again does it anew")
    if not settings.any_version:
        check_versions(head)
    number = base_and_attempt(latest.job_id)[1] + 1 if latest is not None else 1
    job_id = package.job_id if number == 1 else f"{package.job_id}.{number}"
    metadata = {
        DIGEST_KEY: package.digest,
        "forecast_name": package.name,
        "forecast_output": package.output,
        "forecast_command": settings.command,
    }
    try:
        with tempfile.TemporaryDirectory(prefix="forecast-job-") as folder:
            archive = Path(folder, "package.zip")
            manifest = package.write(archive, job_id)
            runtime_env = {**_with_night(settings.runtime_env, package.night), "working_dir": str(archive)}
            head.submit(job_id, entrypoint(job_id, package, settings, manifest), runtime_env, metadata)
    except JobExistsError:  # two of us at once: theirs is ours
        return Submitted(head.job(job_id), "reattached")
    except ValueError as error:
        raise ConfigError(f"--runtime-env: {error}") from None
    except OSError as error:
        full = "the disk of this machine is full" if error.errno == errno.ENOSPC else str(error)
        raise ForecastError(
            f"{full}: the run is packed in {os.environ.get('TMPDIR', '/tmp')} and needs up to "
            f"{package.n_bytes / 1e6:,.0f} MB there; make room, or set TMPDIR to another folder"
        ) from None
    note = ""
    if latest is not None and not latest.done:
        note = (
            f"attempt {number}: the one before is {latest.status.lower()}; finished units are not done again"
        )
    return Submitted(head.job(job_id), "submitted", note)


def _with_night(env: Mapping[str, Any], night: str | None) -> Mapping[str, Any]:
    """The night is that of the machine that submits, wherever the cluster's clock is."""
    if night is None:
        return env
    return {**env, "env_vars": {**env.get("env_vars", {}), NIGHT_VARIABLE: night}}


def attempts(jobs: Sequence[Job], base: str) -> list[Job]:
    """The jobs of one run, the first attempt first."""
    return sorted((job for job in jobs if job.base == base), key=lambda job: base_and_attempt(job.job_id)[1])


def check_versions(head: Head) -> None:
    """Compare this machine with the cluster.

    Raises:
        ForecastError: they differ; says how, and what to do.
    """
    if found := own_versions().differences(head.versions()):
        raise ForecastError(
            f"this machine and the cluster at {head.url} do not fit together:\n  "
            + "\n  ".join(found)
            + "\n--any-version submits all the same"
        )


def entrypoint(job_id: str, package: Package, settings: Settings, manifest: str) -> str:
    """The shell command of a job. Args: manifest: the SHA-256 of its package's manifest."""
    own = own_versions()
    words = [settings.python, START_PLACE, CONFIG_PLACE, "--job", job_id, "--output", package.output]
    words += [
        "--manifest",
        manifest,
        "--command",
        settings.command,
        "--python",
        own.python or "",
        "--ray",
        own.ray or "",
    ]
    if settings.installed is not None:
        words += ["--installed", settings.installed]
    words += ["--report"] * settings.report + ["--any-version"] * settings.any_version
    return shlex.join(words)
