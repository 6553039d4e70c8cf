"""What a job runs on the cluster: checks the ground, runs the command, and makes its results fetchable.

The package carries a copy of this file, which the cluster's Python runs as a script. Until the checks have
passed it uses the standard library alone, so that it can say what is missing.

Results are served by the cluster's head, over the same port and token as everything else: Ray's log service
hands out any file that is linked into the folder of its logs, byte by byte. Files on an object store are not
linked; everyone reads them there. The list of results with their SHA-256 lies in `OUTPUT/.jobs/JOB.json`.
While the command runs, the status of its run is served in the same way, wherever its output is.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

MANIFEST_PLACE = "job/manifest.json"  # in the package: the SHA-256 of every other file
SERVED_BELOW = "forecast-results"  # in Ray's log folder
STATUS_NAME = ".jobs/status.json"  # below the folder of a job there
LEAST_FREE_BYTES = 100_000_000
# Below OUTPUT; the lake stays where it is.
_RESULTS = ("*.json", "*.html", "*.md", "*.duckdb", "reports/**/*")
_FORECAST = (sys.executable, "-m", "forecast")
_NODE_SECONDS = 60.0
_NAMED = 5  # files of a package that did not arrive
# Exit codes of the command that leave nothing to publish beyond what was there.
_FAILED, _WRONG, _LOCKED = 1, 2, 6
_ENDED = (130, 143)  # by Ctrl-C, by SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command, or 1 when the ground is not fit for it."""
    given = _parse(arguments)
    _check_package(Path(), given.manifest)
    if not given.any_version:
        _check_versions(given.python, given.ray, given.installed)
    _check_imports()
    logs, others = _look_around(given.output)
    _check_output(given.output, others)
    print(f"job {given.job}: forecast {given.command}, output {given.output}", file=sys.stderr)
    command = [*_FORECAST, given.command, given.config]
    status = logs / SERVED_BELOW / given.job / STATUS_NAME
    environment = {"FORECAST_JOB": given.job, "FORECAST_STATUS_FILE": str(status)}
    code = _call(command, {**os.environ, **environment})
    if code in _ENDED:
        return code  # without a list of results: it did not come to its end
    if code in (_FAILED, _WRONG) or code < 0:
        _say_if_full(given.output)
    if given.command != "score" and code not in (_FAILED, _WRONG, _LOCKED) and code >= 0:
        _write_ranking(given.config, given.output, given.report)
    _publish(given.job, given.output, logs)
    return code if code >= 0 else 128 - code


def _call(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command, which ends where this process is to end, and says itself what it leaves."""
    child = subprocess.Popen(command, env=environment)
    signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
    try:
        return child.wait()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--job", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--manifest", required=True, help="the SHA-256 of the package's manifest")
    parser.add_argument("--command", default="run")
    parser.add_argument("--python", required=True, help="major.minor of the machine that submits")
    parser.add_argument("--ray", required=True)
    parser.add_argument("--installed", help="the version of proxy-forecast that is to be installed here")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--any-version", action="store_true")
    return parser.parse_args(arguments)


def _check_package(folder: Path, manifest: str) -> None:
    """What arrived against what was sent; byte code beside the code does not count."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.glob("job/**/*") if p.is_file()}
    path = found.pop(MANIFEST_PLACE, None)
    if path is None or _sha256(path) != manifest:
        _fail(f"the package of this job arrived without the {MANIFEST_PLACE} that was sent; submit it again")
    sent = json.loads(path.read_bytes())
    wrong = [
        f"{place} is missing or differs"
        for place, sha256 in sent.items()
        if _sha256(folder / place) != sha256
    ]
    wrong += [f"{place} was not sent" for place in found if place not in sent]
    if wrong:
        _fail(
            f"the package of this job did not arrive as it was sent, {len(wrong)} of {len(sent)} files:\n  "
            + "\n  ".join(wrong[:_NAMED])
            + "\nsubmit it again; if that does not help, look at the disk of this node"
        )


def _sha256(path: Path) -> str | None:
    try:
        return str(_entry("", _chunks(path))["sha256"])
    except OSError:
        return None


def _check_versions(python: str, ray: str, forecast: str | None) -> None:
    """The head answered for its own versions; this is the interpreter that the job really got."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    problems = [] if here == python else [f"Python is {python} there and {here} here"]
    for package, wanted in (("ray", ray), ("proxy-forecast", forecast)):
        found = _version(package)
        if found is None and wanted is not None:
            problems.append(f"{package} {wanted} is expected and not installed here ({sys.executable})")
        elif wanted is not None and found != wanted:
            problems.append(f"{package} is {wanted} there and {found} here")
    if problems:
        _fail(
            "the versions of the machine that submitted and of the cluster differ:\n  "
            + "\n  ".join(problems)
            + "\ninstall the same on both sides, or submit with --any-version; a missing package may also "
            "mean that the job got another Python than Ray's: submit with --python /PATH/TO/python"
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_imports() -> None:
    done = subprocess.run([*_FORECAST, "--help"], capture_output=True, text=True, check=False)
    if done.returncode or importlib.util.find_spec("ray") is None:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "No module named 'ray'"
        _fail(
            f"the cluster's Python ({sys.executable}) lacks something that forecast needs: {reason}\n"
            "use an image in which proxy-forecast is installed, or name the packages in --runtime-env FILE "
            "(pip: [...])"
        )


def _look_around(output: str) -> tuple[Path, list[str]]:
    """Ray's log folder on this node, and the addresses of the nodes that do not see the folder `output`."""
    import ray
    from ray._private import worker

    ray.init(log_to_driver=False, logging_level="ERROR")
    try:
        logs = Path(worker._global_node.get_logs_dir_path())
        nodes = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}
        if "://" in output or len(nodes) < 2:
            return logs, []
        return logs, nodes_without(output, nodes, _see)
    finally:
        ray.shutdown()


def nodes_without(
    output: str, nodes: dict[str, str], see: Callable[[Sequence[str], str], Sequence[bool]]
) -> list[str]:
    """Addresses of the nodes (id -> address) on which a file just written below `output` is not seen."""
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        probe = Path(output) / f".seen-{uuid.uuid4().hex}"
        probe.touch()
    except OSError as error:
        _fail(f"{output} cannot be written on the cluster: {error}; submit with another --output")
    try:
        seen = see(list(nodes), str(probe))
    finally:
        probe.unlink(missing_ok=True)
    return [address for address, there in zip(nodes.values(), seen, strict=True) if not there]


def _see(nodes: Sequence[str], path: str) -> list[bool]:
    """Ask each node whether it sees a file; one that does not answer is not charged with anything."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(os.path.exists)
    refs = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(path)
        for node in nodes
    ]
    done, _ = ray.wait(refs, num_returns=len(refs), timeout=_NODE_SECONDS)
    return [ray.get(ref) if ref in done else True for ref in refs]


def _check_output(output: str, unseen: Sequence[str]) -> None:
    if unseen:
        _fail(
            f"{output} is not shared by all nodes of the cluster: {', '.join(unseen)} do not see what the "
            "node of this job writes there; submit with --output s3://BUCKET/PREFIX, or a folder on a shared "
            "disk"
        )
    if "://" in output:
        return
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _fail(f"{output} cannot be written on the cluster: {error}; submit with another --output")
    free = shutil.disk_usage(output).free
    if free < LEAST_FREE_BYTES:
        _fail(full_disk_message(output, free))


def full_disk_message(output: str, free: int) -> str:
    """What to say when there is no room for results."""
    return (
        f"the cluster's disk is full: {free / 1e6:,.0f} MB are free for {output}, at least "
        f"{LEAST_FREE_BYTES / 1e6:,.0f} MB are needed; make room or submit with another --output (what is "
        "done already is kept)"
    )


def _say_if_full(output: str) -> None:
    if "://" not in output and (free := shutil.disk_usage(output).free) < LEAST_FREE_BYTES:
        print("error: " + full_disk_message(output, free), file=sys.stderr)


def _write_ranking(config: str, output: str, report: bool) -> None:
    """`OUTPUT/ranking.json`, with held-out figures and `OUTPUT/report.html` where a report is asked for."""
    from forecast import storage
    from forecast.errors import ForecastError

    wanted = ["--html", storage.join(output, "report.html")] if report else ["--no-held-out"]
    command = [*_FORECAST, "rank", config, "--json", *wanted]
    text = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout
    try:
        if text:
            storage.write_bytes(storage.join(output, "ranking.json"), text)
    except (ForecastError, OSError) as error:
        print(f"no ranking.json: {error}", file=sys.stderr)


def _publish(job: str, output: str, logs: Path) -> None:
    """List the results beside them; those on a disk are linked into the folder that the head serves."""
    from forecast import storage

    files = _local_results(output) if "://" not in output else _remote_results(output)
    files += _own_runs(job, output)
    manifest = {"job": job, "output": output, "published": time.time(), "files": files}
    text = json.dumps(manifest, indent=2).encode()
    try:
        storage.write_bytes(storage.join(output, ".jobs", f"{job}.json"), text)
        if "://" not in output:
            served = logs / SERVED_BELOW / job
            served.mkdir(parents=True, exist_ok=True)
            for file in files:
                link = served / file["name"]
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(Path(output, file["name"]))
            (served / ".jobs").mkdir(exist_ok=True)
            storage.write_bytes(str(served / ".jobs" / f"{job}.json"), text)
    except OSError as error:
        print(
            f"the results in {output} could not be made ready for `forecast pull`: {error}", file=sys.stderr
        )
        return
    print(f"results: {output}", file=sys.stderr)


def _local_results(output: str) -> list[dict[str, Any]]:
    root = Path(output)
    found = {p for pattern in _RESULTS for p in root.glob(pattern) if p.is_file() and p.name[0] != "."}
    return [_entry(p.relative_to(root).as_posix(), _chunks(p)) for p in sorted(found)]


def _chunks(path: Path) -> Iterable[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            yield chunk


def _remote_results(output: str) -> list[dict[str, Any]]:
    """As `_local_results`; the top level and `reports/` are listed, never the lake."""
    import pyarrow.fs as pafs

    from forecast import storage

    fs, root = storage.filesystem(output)
    names: list[str] = []
    for folder, recursive in ((root, False), (f"{root}/reports", True)):
        selector = pafs.FileSelector(folder, recursive=recursive, allow_not_found=True)
        entries = [e for e in fs.get_file_info(selector) if e.type == pafs.FileType.File]
        names += [e.path.removeprefix(f"{root}/") for e in entries if e.base_name[0] != "."]
    wanted = [n for n in names if "/" in n or any(Path(n).match(pattern) for pattern in _RESULTS)]
    return [_entry(name, [storage.read_bytes(storage.join(output, name))]) for name in sorted(wanted)]


def _own_runs(job: str, output: str) -> list[dict[str, Any]]:
    """The status files of this job's runs; those of others may still change."""
    from forecast import storage
    from forecast.runs.status_file import read_runs

    try:
        ended = [
            r for r in read_runs(output) if r.get("job") == job and r["state"] not in ("running", "lost")
        ]
        names = [f"runs/{record['run']}.json" for record in ended]
        return [_entry(name, [storage.read_bytes(storage.join(output, name))]) for name in names]
    except OSError as error:
        print(f"the runs in {output} cannot be read: {error}", file=sys.stderr)
        return []


def _entry(name: str, chunks: Iterable[bytes]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return {"name": name, "bytes": size, "sha256": digest.hexdigest()}


def _fail(message: str) -> NoReturn:
    print("error: " + message, file=sys.stderr)
    raise SystemExit(_FAILED)


if __name__ == "__main__":
    sys.exit(main())
