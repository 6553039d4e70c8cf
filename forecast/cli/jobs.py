"""`forecast submit`, `jobs`, `logs`, `stop` and `pull`: runs on a Ray cluster from a machine that may leave.

Ray is imported by the commands, not here. They talk to the cluster's head alone, over HTTP.
"""

import importlib.metadata
import os
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from forecast.cli.options import load_config
from forecast.errors import ConfigError, ForecastError, InterruptedRun
from forecast.report.console import err, out, print_json
from forecast.runs.progress import WorkProgress

if TYPE_CHECKING:
    from actors.jobs.client import Head, Job
    from actors.jobs.package import Package
    from actors.jobs.submit import Command

_COMMANDS = ("run", "score", "nightly")

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A run's configuration.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, or how it begins; see forecast jobs.")]
Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS",
        metavar="URL",
        help="The head's dashboard, e.g. http://HEAD:8265. A cluster with tokens: RAY_AUTH_MODE=token and "
        "RAY_AUTH_TOKEN_PATH=FILE.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        envvar="FORECAST_CLUSTER_OUTPUT",
        metavar="PATH",
        help="Where the cluster writes results: s3://BUCKET/PREFIX, or a folder that all nodes share. Needed "
        "where the configuration's output is a path of this machine.",
    ),
]
OnCluster = Annotated[
    list[str] | None,
    typer.Option(
        "--on-cluster",
        metavar="PATH",
        help="What lies at or below this path is on the cluster (models, large data) and is named as it is; "
        "may be repeated.",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Follow the job to its end. Ctrl-C leaves it running.")
]
Json = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]


def submit(
    config: ConfigPath,
    address: Address,
    output: Output = None,
    on_cluster: OnCluster = None,
    wait: Wait = True,
    again: Annotated[
        bool,
        typer.Option("--again", help="Run it once more although it is done. Never a second one at a time."),
    ] = False,
    command: Annotated[
        str, typer.Option(metavar="NAME", help="What the cluster is to do: run, score or nightly.")
    ] = "run",
    report: Annotated[
        bool, typer.Option("--report", help="Also held-out figures and report.html; see forecast rank.")
    ] = False,
    installed: Annotated[
        bool,
        typer.Option("--installed", help="Use the proxy-forecast that the cluster has; send no code."),
    ] = False,
    runtime_env: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Ray's runtime environment as YAML or JSON: pip, conda, env_vars, ..."
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="An environment variable of the job, which the dashboard shows; may be repeated.",
        ),
    ] = None,
    python: Annotated[str, typer.Option(metavar="PATH", help="Python on the cluster.")] = "python",
    any_version: Annotated[
        bool, typer.Option("--any-version", help="Submit even if Ray's or Python's version differs there.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent; send nothing.")
    ] = False,
    json_: Json = False,
) -> None:
    """Send a run to a Ray cluster and follow it; the same command again finds the same job.

    Code, configuration and data files travel; models do not. This machine may sleep or go away meanwhile.
    """
    from actors.jobs.package import pack
    from actors.jobs.report import exit_code, job_record, state
    from actors.jobs.submit import Settings, read_runtime_env
    from actors.jobs.submit import submit as submit_package

    job_env = read_runtime_env(runtime_env, env or (), os.environ)
    night = date.today().isoformat() if command == "nightly" else None
    package = pack(load_config(config), output, on_cluster or (), _checked(command), not installed, night)
    if dry_run:
        _print_package(package, json_)
        return
    settings = Settings(
        command=_checked(command),
        installed=importlib.metadata.version("proxy-forecast") if installed else None,
        python=python,
        report=report,
        any_version=any_version,
        runtime_env=job_env,
    )
    try:
        with err.status("connecting"):
            head = _head(address)
        with err.status("sending the run"):
            submitted = submit_package(head, package, settings, again)
    except KeyboardInterrupt:
        raise InterruptedRun(
            "interrupted while submitting; the same command finds the job if it was submitted"
        ) from None
    job = submitted.job
    note = f" ({submitted.note})" if submitted.note else ""
    err.print(f"{submitted.how}: {job.job_id}{note}", soft_wrap=True)
    if wait and submitted.how != "already done":
        job = _follow(head, job, "the same command")
    if json_:
        print_json({**job_record(job), "how": submitted.how, "address": head.url})
    elif not job.running:
        out.print(f"{job.job_id}: {state(job)}", soft_wrap=True)
        if job.done:
            out.print(f"fetch the results: forecast pull {job.job_id}", soft_wrap=True)
    else:
        out.print(job.job_id, soft_wrap=True)
    raise typer.Exit(exit_code(job))


def jobs(
    address: Address,
    job_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="One job, with each of its candidates; running or ended."),
    ] = None,
    json_: Json = False,
) -> None:
    """The jobs of a cluster that were submitted by forecast, with the progress of those that run."""
    from actors.jobs.follow import progress_now
    from actors.jobs.report import candidates_table, job_record, jobs_table
    from forecast.report.terminal import table

    head = _head(address)
    records = []
    for job in head.jobs() if job_id is None else [head.find(job_id)]:
        asked = job.running or job_id is not None
        progress, status = progress_now(head, job) if asked else (None, None)
        shown = progress.as_record() if progress else None
        records.append({**job_record(job), "progress": shown, "run": status})
    if json_:
        print_json({"address": head.url, "jobs": records})
        return
    out.print(table(jobs_table(records)))
    if job_id is not None:
        (record,) = records
        if (run := record["run"]) is None:
            out.print("it has left no status of its candidates; see forecast logs")
        elif run["state"] == "unreadable":
            out.print(run["error"], soft_wrap=True)
        else:
            out.print(table(candidates_table(run)))


def logs(
    job_id: JobId,
    address: Address,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """Print a job's log."""
    from actors.jobs.follow import follow as follow_job
    from actors.jobs.follow import plain
    from actors.jobs.report import exit_code

    head = _head(address)
    job = head.find(job_id)
    if not follow:
        _print_log(plain(head.log(job.job_id)))
        return
    try:
        job = follow_job(head, job.job_id, _print_log, _trouble)
    except KeyboardInterrupt:
        raise InterruptedRun(f"interrupted; {job.job_id} goes on") from None
    raise typer.Exit(exit_code(job))


def stop(job_id: JobId, address: Address, json_: Json = False) -> None:
    """End a job. What it has scored is kept; submitting it again resumes."""
    from actors.jobs.follow import stop as stop_job
    from actors.jobs.report import job_record, state

    head = _head(address)
    job = head.find(job_id)
    was_running = job.running
    if was_running:
        with err.status(Text(f"stopping {job.job_id}")):
            job = stop_job(head, job)
    if json_:
        print_json({**job_record(job), "was_running": was_running})
    else:
        said = "stopped" if was_running else f"did not run: {state(job)}"
        out.print(f"{job.job_id}: {said}", soft_wrap=True)


def pull(
    job: Annotated[
        str, typer.Argument(metavar="ID|CONFIG", help="A job's id, or the configuration of its run.")
    ],
    address: Address,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Default: the configuration's output if that is a folder of this machine, else results/ID.",
        ),
    ] = None,
    through_head: Annotated[
        bool,
        typer.Option(
            "--through-head", help="Fetch from the head even where this machine shares the folder of results."
        ),
    ] = False,
    on_cluster: OnCluster = None,
    command: Annotated[
        str, typer.Option(metavar="NAME", help="With CONFIG: what the job was to do: run, score or nightly.")
    ] = "run",
    json_: Json = False,
) -> None:
    """Fetch rankings, reports and the warehouse of a finished job; forecast app then works here.

    From s3:// directly, else through the head. The lake stays on the cluster.
    """
    from actors.jobs.pull import pull as pull_job

    path = Path(job)
    is_config = path.suffix in (".yaml", ".yml") or path.is_file()
    head = _head(address)
    if is_config:
        found, folder = _job_of(head, path, on_cluster or [], _checked(command))
        folder = to or folder or Path("results") / found.base
    else:
        found = head.find(job)
        folder = to or Path("results") / found.base
    if to is None and (folder / "lake").is_dir() and str(folder) != found.metadata.get("forecast_output"):
        raise ForecastError(
            f"{folder} holds results of runs on this machine, which these would replace; say where they "
            "go by --to"
        )
    with WorkProgress(err, "fetching results") as progress:
        pulled = pull_job(head, found, folder, progress.advance, through_head)
    if json_:
        files = [{"name": r.name, "bytes": r.bytes, "sha256": r.sha256} for r in pulled.results]
        print_json(
            {
                "job": found.job_id,
                "source": pulled.source,
                "folder": str(pulled.folder),
                "files": files,
                "fetched": list(pulled.fetched),
            }
        )
        return
    for result in pulled.results:
        mark = "" if result.name in pulled.fetched else "  (was here)"
        line = f"{folder / result.name}  {result.bytes / 1e6:,.2f} MB{mark}"
        out.print(line, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    at = "--address http://HEAD:8265"
    app.command(
        rich_help_panel="Jobs on a cluster",
        epilog=f"Example: forecast submit configs/demo.yaml {at} --output s3://bucket/demo",
    )(submit)
    app.command(
        rich_help_panel="Jobs on a cluster",
        epilog=f"Examples: forecast jobs {at} --json; forecast jobs forecast-demo-1a2b {at}",
    )(jobs)
    app.command(
        rich_help_panel="Jobs on a cluster", epilog=f"Example: forecast logs forecast-demo-1a2b {at} --follow"
    )(logs)
    app.command(
        rich_help_panel="Jobs on a cluster", epilog=f"Example: forecast stop forecast-demo-1a2b {at}"
    )(stop)
    app.command(rich_help_panel="Jobs on a cluster", epilog=f"Example: forecast pull configs/demo.yaml {at}")(
        pull
    )


def _head(address: str) -> "Head":
    from actors.jobs.client import Head

    return Head(address)


def _checked(command: str) -> "Command":
    for known in _COMMANDS:
        if command == known:
            return known  # type: ignore[return-value]
    raise ConfigError(f"--command {command}: expected one of {', '.join(_COMMANDS)}")


def _job_of(head: "Head", path: Path, on_cluster: list[str], command: "Command") -> tuple["Job", Path | None]:
    """The latest job of a configuration, whatever its output there, and the folder of its results here."""
    from actors.jobs.client import DIGEST_KEY
    from actors.jobs.package import pack
    from forecast import storage

    config = load_config(path)
    remote = storage.is_remote(config.output)
    digest = pack(config, config.output, on_cluster, command, with_code=False).digest
    same = [job for job in head.jobs() if job.metadata[DIGEST_KEY] == digest]
    if not same:
        known = ", ".join(job.job_id for job in head.jobs()[-5:]) or "none"
        raise ForecastError(
            f"no job on {head.url} has run {path} with the data as they are now; its latest: {known}\n"
            "give the id of a job, or submit it; finished units are not done again"
        )
    return same[-1], None if remote else Path(config.output)


def _follow(head: "Head", job: "Job", how: str) -> "Job":
    from actors.jobs.errors import HeadUnreachable
    from actors.jobs.follow import LiveLog, follow

    try:
        with LiveLog(err) as live:
            return follow(head, job.job_id, live.show, live.say)
    except KeyboardInterrupt:
        raise InterruptedRun(
            f"interrupted; {job.job_id} goes on. {how} follows it again, forecast stop {job.job_id} ends it"
        ) from None
    except HeadUnreachable as error:
        raise ForecastError(f"{error}\n{job.job_id} may go on; {how} follows it again") from None


def _print_log(text: str) -> None:
    out.print(text, soft_wrap=True, end="")


def _trouble(text: str) -> None:
    err.print(text, style="yellow", soft_wrap=True)


def _print_package(package: "Package", as_json: bool) -> None:
    files = {place: path.stat().st_size for place, path in package.files.items()}
    record = {
        "job": package.job_id,
        "output": package.output,
        "bytes": package.n_bytes,
        "files": [{"path": str(package.files[p]), "place": p, "bytes": n} for p, n in files.items()],
        "code_files": len(package.code),
        "config": dict(package.config),
    }
    if as_json:
        print_json(record)
        return
    out.print(f"{package.job_id}: {package.n_bytes / 1e6:,.2f} MB, output {package.output}")
    for place, size in files.items():
        line = f"{size / 1e6:10,.2f} MB  {package.files[place]} -> {place}"
        out.print(line, soft_wrap=True)
    out.print(f"and {len(package.code)} files of code; the configuration as it travels:")
    out.print(package.config_text, soft_wrap=True, end="")
