"""What of a run travels to the cluster: the code, the configuration, and every local file that it names.

A path in a configuration is a path of the machine on which it was written. Data files travel with the job,
and the configuration that travels names the copies. Models do not: they are large, and the cluster reads them
from a hub, an object store or its own disks. Places that exist on the cluster are said to do so
(`on_cluster`).

It travels as one archive of our own: of a folder, Ray would leave out what ignore files in it name. A
manifest in the archive, whose SHA-256 the job receives, says what has to arrive (see `entrypoint`).
"""

import hashlib
import importlib.util
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from actors.jobs.entrypoint import MANIFEST_PLACE
from forecast import storage
from forecast.config.schema import Config
from forecast.errors import ConfigError

# A head keeps what it is sent in memory, and every node unpacks a copy.
MOST_BYTES = 100_000_000
CONFIG_PLACE = "job/config.yaml"
START_PLACE = "entrypoint.py"
_PACKAGES = ("forecast", "actors")
_NAMED_WHEN_TOO_LARGE = 5


@dataclass(frozen=True)
class Package:
    """A run, ready to travel.

    `files` and `code` map a place in the package to a local file, `contents` a place of `files` to its
    SHA-256. `digest` covers the command, the configuration without its output, and the content of all data;
    not the code, and not where any of it lies on this machine. `night` (YYYY-MM-DD) is that of a nightly run,
    each of which is a job of its own.
    """

    name: str
    config: Mapping[str, Any]
    files: Mapping[str, Path]
    contents: Mapping[str, str]
    code: Mapping[str, Path]
    output: str
    digest: str
    night: str | None = None

    @property
    def job_id(self) -> str:
        """The same for the same run (and night) with the same output, from whatever machine and folder."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:40] or "run"
        base = f"forecast-{slug}-{_sha256(f'{self.digest} {self.output}'.encode())[:12]}"
        return base if self.night is None else f"{base}-{self.night}"

    @property
    def n_bytes(self) -> int:
        """Size of everything that travels, before it is compressed."""
        return _size_of([*self.files.values(), *self.code.values()])

    @property
    def config_text(self) -> str:
        """The configuration as the cluster reads it."""
        return yaml.safe_dump({**self.config, "output": self.output}, allow_unicode=True, sort_keys=False)

    def write(self, archive: Path, job_id: str) -> str:
        """Write the archive that is to become the working directory of a job; returns its manifest's SHA-256.

        Args:
            job_id: makes archives of two attempts differ, so that none gets what another left behind damaged.

        Raises:
            ConfigError: a data file is no longer what it was when it was packed.
        """
        config = self.config_text.encode()
        arriving = {CONFIG_PLACE: _sha256(config)}
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.comment = job_id.encode()
            zipped.writestr(zipfile.ZipInfo(CONFIG_PLACE), config)
            for place, path in {**self.code, **self.files}.items():
                content = path.read_bytes()
                arriving[place] = _sha256(content)
                if arriving[place] != self.contents.get(place, arriving[place]):
                    raise ConfigError(f"{path} has changed while it was being packed; submit again")
                zipped.writestr(zipfile.ZipInfo(place), content, zipfile.ZIP_DEFLATED)
            manifest = json.dumps(arriving).encode()
            zipped.writestr(zipfile.ZipInfo(MANIFEST_PLACE), manifest)
        return _sha256(manifest)


def pack(
    config: Config,
    output: str | None = None,
    on_cluster: Sequence[str] = (),
    command: str = "run",
    with_code: bool = True,
    night: str | None = None,
) -> Package:
    """Choose what travels.

    Args:
        output: where the cluster writes results, instead of the configuration's `output`.
        on_cluster: paths that are the cluster's: what lies at or below them stays as it is written.
        command: what is to be done with the configuration, as it goes into the digest.
        with_code: False where the cluster has `proxy-forecast` installed.
        night: of a nightly run.

    Raises:
        ConfigError: something is on this machine that does not travel, is missing, or is too large; names all
            of it.
    """
    cluster_paths = [PurePath(storage.resolve(path, Path.cwd())) for path in on_cluster]
    shipped = _Shipped(cluster_paths)
    data = config.model_dump(mode="json", exclude_defaults=True)
    data.get("cluster", {}).pop("address", None)  # a job runs on the cluster that it was sent to
    data.pop("output")
    shipped.problems += _webhooks_problems(config, data, command)
    for section in ("trajectories", "direct_evaluation", "measured_scores"):
        for i, source in enumerate(data.get(section, ())):
            for key in ("path", "dataset"):
                if source.get(key) is not None:
                    source[key] = shipped.place_of(source[key], f"{section}.{i}.{key}")
    for candidate in config.candidates:
        shipped.check_model(f"candidate {candidate.name!r}", candidate.source)
    for watch in config.nightly.watch if config.nightly is not None else ():
        if watch.folder is not None:
            shipped.check_model(f"watched run {watch.run!r}", watch.folder)
    place = _checked_output(output or config.output, output is not None, shipped)
    if shipped.problems:
        raise ConfigError("this run cannot be sent to a cluster:\n" + "\n".join(shipped.problems))
    code = _code() if with_code else _start_alone()
    _check_size(shipped.files, code)
    contents = {place: file_sha256(path) for place, path in sorted(shipped.files.items())}
    digest = _sha256(json.dumps([command, data, contents], sort_keys=True).encode())
    return Package(config.name, data, dict(shipped.files), contents, code, place, digest, night)


class _Shipped:
    """Local files, each with its place in the package, and what stands in the way of shipping."""

    def __init__(self, cluster_paths: Sequence[PurePath]) -> None:
        self.files: dict[str, Path] = {}
        self.problems: list[str] = []
        self._cluster_paths = cluster_paths
        self._places: dict[str, str] = {}

    def on_cluster(self, path: str) -> bool:
        return any(PurePath(path).is_relative_to(known) for known in self._cluster_paths)

    def place_of(self, path: str, key: str) -> str:
        """The path as the configuration in the package spells it, relative to that configuration."""
        # After loading, a local path is absolute; a hub id or URI is not.
        if not path.startswith("/") or self.on_cluster(path):
            return path
        if path in self._places:
            return self._places[path]
        source = Path(path)
        inside = f"data/{len(self._places)}/{source.name}"
        if source.is_dir():
            found = [self._checked(key, file, source) for file in _entries(source)]
            files = {f"job/{inside}/{file.relative_to(source).as_posix()}": file for file in found if file}
            if not found:
                self.problems.append(f"{key}: there is no file in {path}")
        elif source.is_file():
            files = {f"job/{inside}": file for file in [self._checked(key, source)] if file}
        else:
            files = {}
            self.problems.append(
                f"{key}: there is no {path} on this machine; if the cluster has it, pass --on-cluster "
                f"{source.parent}"
            )
        self.files |= files
        self._places[path] = inside
        return inside

    def _checked(self, key: str, file: Path, folder: Path | None = None) -> Path | None:
        """A file that arrives as it is read here; None, and a problem, where it would not."""
        try:
            mode, place = file.stat().st_mode, file.resolve()
            str(file).encode()
            if folder is not None and not place.is_relative_to(folder.resolve()):
                problem = f"is a link out of its folder, to {place}; put a copy in its place, or take it out"
            elif stat.S_ISDIR(mode):
                what = "a link to a folder" if file.is_symlink() else "a folder that cannot be read"
                problem = f"is {what}; put a copy in its place, or take it out"
            elif not stat.S_ISREG(mode):
                problem = "is no ordinary file; take it out"
            elif "\\" in str(file):
                problem = "has a backslash in its name, which Ray leaves behind; rename it"
            elif not os.access(file, os.R_OK):
                problem = "cannot be read; change its permissions, or take it out"
            else:
                return file
        except UnicodeEncodeError:
            problem = "has a name that is not UTF-8; rename it"
        except OSError as error:
            problem = f"cannot be read ({error.strerror}); mend it, or take it out"
        name = str(file) if str(file).isprintable() else ascii(str(file))
        self.problems.append(f"{key}: {name} {problem}")
        return None

    def check_model(self, what: str, source: str) -> None:
        if source.startswith("/") and not self.on_cluster(source):
            self.problems.append(
                f"{what}: {source} is a path of this machine, and model files do not travel; name a hub id, "
                "or put the model where every node of the cluster reads it and pass "
                f"--on-cluster {Path(source).parent}"
            )


def _entries(folder: Path) -> Iterator[Path]:
    """What lies below a folder, without its folders but for links and those that cannot be read."""
    unreadable: list[str] = []
    for root, folders, files in os.walk(folder, onerror=lambda error: unreadable.append(error.filename)):
        folders.sort()
        yield from (Path(root, name) for name in sorted(files))
        yield from (Path(root, name) for name in folders if Path(root, name).is_symlink())
    yield from map(Path, unreadable)


def _webhooks_problems(config: Config, data: dict[str, Any], command: str) -> list[str]:
    """Only a night delivers alerts; whoever reads the job's files on the cluster reads a URL that travels."""
    if config.nightly is None:
        return []
    if command != "nightly":
        data["nightly"].pop("deliver", None)
        return []
    return [
        f"nightly.deliver.{place}.webhook: a URL is a secret and does not travel; give the name of a "
        "variable that the cluster sets, as webhook_env"
        for place, target in enumerate(config.nightly.deliver)
        if target.webhook is not None
    ]


def _checked_output(output: str, said: bool, shipped: _Shipped) -> str:
    if storage.is_remote(output):
        if (problem := storage.bucket_problem(output)) is not None:
            shipped.problems.append(f"--output {problem}")
        return output.rstrip("/")
    if not output.startswith("/"):
        shipped.problems.append(
            f"--output {output}: expected s3://BUCKET/PREFIX or an absolute path on the cluster"
        )
    elif not said and not shipped.on_cluster(output):
        shipped.problems.append(
            f"output: {output} is a path of this machine; name the place of the results on the cluster, by "
            "--output s3://BUCKET/PREFIX or --output /FOLDER that all of its nodes share"
        )
    return output


def _check_size(files: Mapping[str, Path], code: Mapping[str, Path]) -> None:
    n_bytes = _size_of([*files.values(), *code.values()])
    if n_bytes <= MOST_BYTES:
        return
    sizes = {path: path.stat().st_size for path in files.values()}
    largest = sorted(sizes, key=lambda path: -sizes[path])[:_NAMED_WHEN_TOO_LARGE]
    listed = "\n".join(f"  {sizes[path] / 1e6:,.1f} MB  {path}" for path in largest)
    raise ConfigError(
        f"this run would send {n_bytes / 1e6:,.0f} MB to the cluster; at most "
        f"{MOST_BYTES / 1e6:,.0f} MB travel with a job. The largest files:\n{listed}\n"
        "put them on s3://, or on a disk that the cluster reads, and name that disk by --on-cluster"
    )


def _size_of(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _code() -> dict[str, Path]:
    """The source of our packages, and what starts them."""
    found: dict[str, Path] = {}
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations, f"{package} is no package"
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(root.rglob("*")):
            if path.is_file() and not _is_hidden(path.relative_to(root).parts):
                found[f"{package}/{path.relative_to(root).as_posix()}"] = path
    return {**_start_alone(), **found}


def _start_alone() -> dict[str, Path]:
    return {START_PLACE: Path(__file__).with_name("entrypoint.py")}


def _is_hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in parts)


def file_sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
