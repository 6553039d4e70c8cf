"""Jobs as records, in words and as a table; and the exit code that a job stands for."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from actors.jobs.client import Job
from actors.jobs.follow import plain
from forecast.runs.progress import duration


def exit_code(job: Job) -> int:
    """That of the command on the cluster; 0 while it runs, 1 where it was stopped or never came so far."""
    if job.running or job.status == "SUCCEEDED":
        return 0
    return job.exit_code if job.exit_code is not None and 0 < job.exit_code < 128 else 1


def state(job: Job) -> str:
    if job.running or job.status == "SUCCEEDED":
        return job.status.lower()
    if job.exit_code == 3:
        return "done, but something failed (all of it is listed in forecast logs)"
    if job.exit_code == 5:
        return "done, and an alert was raised (see the report)"
    if job.exit_code == 6:
        return "nothing done: another nightly run of this output is at work"
    if job.exit_code is not None:
        return f"failed with exit code {job.exit_code}; see forecast logs"
    if job.status == "STOPPED":
        return "stopped"
    return f"failed: {job.message.strip()[:2000]}"


def job_record(job: Job) -> dict[str, Any]:
    end = job.ended or time.time()
    return {
        "job": job.job_id,
        "name": job.metadata.get("forecast_name"),
        "status": job.status,
        "exit_code": job.exit_code,
        "state": state(job),
        "started": _moment(job.started),
        "ended": _moment(job.ended),
        "seconds": None if job.started is None else round(end - job.started, 1),
        "command": job.metadata.get("forecast_command"),
        "output": job.metadata.get("forecast_output"),
    }


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def jobs_table(records: Sequence[dict[str, Any]]) -> Table:
    """Of records with `progress`, the newest last."""
    table = Table(title=Text("Jobs submitted by forecast"))
    for column in ("job", "state", "units", "tokens/s", "left", "started (UTC)", "took", "output"):
        table.add_column(column, overflow="fold")
    for record in records:
        progress = record["progress"]
        left = progress and progress["seconds_left"]
        speed = progress and progress["tokens_per_second"]
        table.add_row(
            Text(record["job"]),
            Text(record["state"].splitlines()[0]),
            Text(f"{progress['done']}/{progress['units']}" if progress else "-"),
            Text("-" if speed is None else f"{speed:,.0f}"),
            Text("-" if left is None else duration(left)),
            Text((record["started"] or "-").removesuffix("+00:00").replace("T", " ")),
            Text("-" if record["seconds"] is None else duration(record["seconds"])),
            Text(record["output"] or "-"),
        )
    return table


def candidates_table(run: Mapping[str, Any]) -> Table:
    """The candidates of a run's status, those that are being scored first."""
    table = Table(title=Text(_headline(run)))
    for column in (
        "candidate",
        "state",
        "units",
        "done before",
        "tokens read",
        "tokens/s",
        "left",
        "retries",
    ):
        right = column not in ("candidate", "state")
        table.add_column(column, overflow="fold", justify="right" if right else "left")
    table.add_column("error", overflow="fold")
    order = ("scoring", "failed", "waiting", "done")
    for record in sorted(run["candidates"], key=lambda candidate: order.index(candidate["state"])):
        speed, left = record["tokens_per_second"], record["seconds_left"]
        table.add_row(
            Text(plain(", ".join([record["candidate"], *record["also"]]))),
            record["state"],
            f"{record['committed']}/{record['units']}",
            str(record["already_done"]),
            f"{record['tokens_read']:,}",
            "-" if speed is None else f"{speed:,.0f}",
            duration(left) if left else "-",
            str(record["retries"]),
            Text(plain(record["error"]).splitlines()[0] if record["error"] else ""),
        )
    return table


def _headline(run: Mapping[str, Any]) -> str:
    speed, left = run["tokens_per_second"], run["seconds_left"]
    parts = [f"{run['name']}: {run['state']}", f"{run['committed']} of {run['units']} units"]
    parts += [] if speed is None else [f"{speed:,.0f} tokens/s"]
    parts += [f"{duration(left)} left"] if left else []
    parts += [f"{run[what]} {what}" for what in ("retries", "restarts") if run[what]]
    return plain(", ".join(parts))
