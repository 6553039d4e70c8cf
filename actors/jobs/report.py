"""Jobs as records, in words and as tables; and the exit code that a job stands for."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from actors.jobs.client import Job
from actors.jobs.follow import plain
from forecast.report.document import Column, Table
from forecast.report.format import INTEGER, Format
from forecast.report.records import frame_with
from forecast.runs.progress import duration

_RATE = Format("{:,.0f}".format)
_DURATION = Format(duration)
_SHARE = Format("{}/{}".format)  # of units: done and all

_UNITS = Column("units", "units", _SHARE, also=("all_units",))
_SPEED = Column("speed", "tokens/s", _RATE)
_LEFT = Column("left", "left", _DURATION)
_JOBS = (
    Column("job", "job"),
    Column("state", "state"),
    _UNITS,
    _SPEED,
    _LEFT,
    Column("started", "started (UTC)"),
    Column("took", "took", _DURATION),
    Column("output", "output"),
)
_CANDIDATES = (
    Column("candidate", "candidate"),
    Column("state", "state"),
    _UNITS,
    Column("already_done", "done before", INTEGER),
    Column("tokens_read", "tokens read", INTEGER),
    _SPEED,
    _LEFT,
    Column("retries", "retries", INTEGER),
    Column("error", "error"),
)
_STATES = ("scoring", "failed", "waiting", "done")  # in the order of the table


def exit_code(job: Job) -> int:
    """That of the command on the cluster; 0 while it runs, 1 where it was stopped or did not start."""
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
    if job.exit_code in (130, 143):
        return "interrupted; submit it again to resume"
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
    rows = []
    for record in records:
        progress = record["progress"] or dict.fromkeys(("done", "units", "tokens_per_second", "seconds_left"))
        rows.append(
            (
                record["job"],
                record["state"].splitlines()[0],
                progress["done"],
                progress["units"],
                progress["tokens_per_second"],
                progress["seconds_left"],
                record["started"] and record["started"].removesuffix("+00:00").replace("T", " "),
                record["seconds"],
                record["output"],
            )
        )
    schema = "job:s state:s units:i all_units:i speed:f left:f started:s took:f output:s"
    return Table(frame_with(rows, schema), _JOBS, "Jobs submitted by forecast")


def candidates_table(run: Mapping[str, Any]) -> Table:
    """The candidates of a run's status, those that are being scored first."""
    rows = [
        (
            plain(", ".join([record["candidate"], *record["also"]])),
            record["state"],
            record["committed"],
            record["units"],
            record["already_done"],
            record["tokens_read"],
            record["tokens_per_second"],
            record["seconds_left"] or None,
            record["retries"],
            plain(record["error"]).splitlines()[0] if record["error"] else "",
        )
        for record in sorted(run["candidates"], key=lambda candidate: _STATES.index(candidate["state"]))
    ]
    schema = "candidate:s state:s units:i all_units:i already_done:i tokens_read:i speed:f left:f"
    frame = frame_with(rows, f"{schema} retries:i error:s")
    return Table(frame, _CANDIDATES, _headline(run))


def _headline(run: Mapping[str, Any]) -> str:
    speed, left = run["tokens_per_second"], run["seconds_left"]
    parts = [f"{run['name']}: {run['state']}", f"{run['committed']} of {run['units']} units"]
    parts += [] if speed is None else [f"{speed:,.0f} tokens/s"]
    parts += [f"{duration(left)} left"] if left else []
    parts += [f"{run[what]} {what}" for what in ("retries", "restarts") if run[what]]
    return plain(", ".join(parts))
