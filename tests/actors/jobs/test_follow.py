"""Following a job: its log, its progress and its state, from a made-up head."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from made_up_head import MadeUpHead, job, run_status
from rich.console import Console
from typer.testing import CliRunner

from actors.jobs import follow as follow_module
from actors.jobs.client import Job
from actors.jobs.errors import HeadUnreachable
from actors.jobs.follow import (
    LiveLog,
    follow,
    last_progress,
    plain,
    progress_now,
    progress_of,
    run_of,
)
from actors.jobs.report import candidates_table, exit_code, job_record, jobs_table
from forecast.cli import jobs, main
from forecast.errors import ForecastError
from forecast.report.terminal import table


def followed(head: Any) -> tuple[Job, list[str], list[str], list[float]]:
    texts: list[str] = []
    troubles: list[str] = []
    sleeps: list[float] = []
    end = follow(head, "x", texts.append, troubles.append, sleeps.append)
    return end, texts, troubles, sleeps


def test_log_prints_each_whole_line_once() -> None:
    end, texts, troubles, _ = followed(
        MadeUpHead(
            ("PENDING", ""),
            ("RUNNING", "one\ntw"),
            ("RUNNING", "one\ntw"),
            ("RUNNING", "one\ntwo\n"),
            ("SUCCEEDED", "one\ntwo\nthree, without an end"),
        )
    )
    assert end.status == "SUCCEEDED" and not troubles
    assert texts == ["one\n", "two\n", "three, without an end"]


def test_follow_resumes_after_a_lost_connection() -> None:
    away = HeadUnreachable("away")
    scenes = [("RUNNING", "one\n"), away, away, away, ("RUNNING", "one\ntwo\n"), ("FAILED", "one\ntwo\nx")]
    end, texts, troubles, sleeps = followed(MadeUpHead(*scenes))
    assert end.status == "FAILED"
    assert texts == ["one\n", "two\n", "x"]
    assert len(troubles) == 2 and "the job continues" in troubles[0] and troubles[1] == "connected again"
    assert sleeps[1:4] == [1.0, 2.0, 4.0], "asks less and less often"


def test_follow_gives_up_after_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 400))
    monkeypatch.setattr(follow_module.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(HeadUnreachable):
        followed(MadeUpHead(HeadUnreachable("away")))


def test_follow_does_not_retry_a_refusal() -> None:
    with pytest.raises(ForecastError, match="token"):
        followed(MadeUpHead(ForecastError("the token is refused")))


def test_progress_is_parsed_from_log_lines() -> None:
    read = progress_of("3/40 units, 1,234 tokens/s, 1:02:03 left (base @ 4000)")
    assert read is not None
    assert (read.tokens_per_second, read.seconds_left, read.candidate) == (1234.0, 3723.0, "base @ 4000")
    bare = progress_of("40/40 units, 9 tokens/s")
    assert bare is not None and (bare.seconds_left, bare.candidate) == (None, None)
    unknown = progress_of("0/40 units")
    assert unknown is not None and (unknown.units, unknown.tokens_per_second) == (40, None)
    assert progress_of("candidate 'x': 3/40 units, 1 tokens/s") is None
    newest = last_progress("1/4 units, 1 tokens/s\n2/4 units, 1 tokens/s\nother\n")
    assert newest is not None and newest.done == 2
    assert last_progress("nothing") is None


STATUS = "forecast-results/forecast-x-1/.jobs/status.json"


def test_progress_is_read_from_the_status_of_the_job() -> None:
    head: Any = MadeUpHead(files={STATUS: json.dumps(run_status()).encode()})
    progress, run = progress_now(head, job("RUNNING"))
    assert progress is not None and run == run_status(), "the clock of this machine is not asked"
    assert progress.as_record() == {
        "done": 7,
        "units": 12,
        "tokens_per_second": 30.0,
        "seconds_left": 3700.0,
        "candidate": "[b] \x1b[31mfirst",
    }
    # A job that has ended cannot still be at it.
    _, run = progress_now(head, job("STOPPED"))
    assert run is not None and run["state"] == "lost" and run["seconds_left"] is None
    assert "forecast logs forecast-x-1" in run["error"]
    assert run_of(head, job("SUCCEEDED"))["state"] == "lost"  # type: ignore[index]
    ended: Any = MadeUpHead(files={STATUS: json.dumps(run_status(state="done")).encode()})
    assert run_of(ended, job()) == run_status(state="done")


def test_progress_without_a_status_is_parsed_from_the_log() -> None:
    older: Any = MadeUpHead(tail="5/6 units, 7 tokens/s, 0:10 left (a)\n")
    progress, run = progress_now(older, job("RUNNING"))
    assert progress is not None and (progress.done, run) == (5, None)
    damaged: Any = MadeUpHead(tail="5/6 units, 7 tokens/s\n", files={STATUS: b'{"schema'})
    progress, run = progress_now(damaged, job("RUNNING"))
    assert progress is not None and run is not None and (progress.done, run["state"]) == (5, "unreadable")
    pending = Job("x", "PENDING", None, "", None, None, None, None, {})
    assert progress_now(older, pending)[1] is None


def test_jobs_table_without_the_machine_of_one_job() -> None:
    class Gone(MadeUpHead):
        def served_file(self, node_id: str, name: str, lines: int = -1) -> Iterator[bytes]:
            raise ForecastError("no agent on that node")

    class Away(MadeUpHead):
        def served_file(self, node_id: str, name: str, lines: int = -1) -> Iterator[bytes]:
            raise HeadUnreachable("away")

    gone: Any = Gone()
    assert progress_now(gone, job("RUNNING")) == (None, None)
    away: Any = Away()
    with pytest.raises(HeadUnreachable):
        progress_now(away, job("RUNNING"))


def test_status_table_has_a_row_per_candidate() -> None:
    screen = io.StringIO()
    Console(file=screen, width=160).print(table(candidates_table(run_status())))
    text = screen.getvalue()
    assert "n: running, 7 of 12 units, 30 tokens/s, 1:01:40 left, 2 retries, 1 restarts" in text
    assert text.index("[b] first, or so") < text.index("second") < text.index("third")
    assert "1/4" in text and "1:01" in text and "1,500" in text and "no weights" in text
    assert "at all" not in text and "\x1b" not in text


def test_jobs_command_shows_running_and_ended_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Job("forecast-y-2", "FAILED", 3, "", None, 10.0, 20.0, "node", {})

    class Two(MadeUpHead):
        def jobs(self) -> list[Job]:
            return [job("RUNNING"), ended]

        def find(self, wanted: str) -> Job:
            return next(one for one in self.jobs() if one.job_id.startswith(wanted))

    other = STATUS.replace("x-1", "y-2")
    statuses = {STATUS: run_status(), other: run_status(state="done", committed=11, seconds_left=0.0)}
    head = Two(files={name: json.dumps(record).encode() for name, record in statuses.items()})
    monkeypatch.setattr(jobs, "_head", lambda address: head)

    def answer(*arguments: str) -> str:
        said = CliRunner().invoke(main.app, ["jobs", *arguments, "--address", "http://head:8265"])
        assert said.exit_code == 0, said.output
        return said.stdout

    first, second = json.loads(answer("--json"))["jobs"]
    assert first["run"] == run_status() and first["progress"]["done"] == 7
    assert second["run"] is second["progress"] is None, "of those that have ended nothing is fetched"
    assert head.asked == [STATUS]
    (one,) = json.loads(answer("forecast-y", "--json"))["jobs"]
    assert (one["job"], one["run"]["committed"]) == ("forecast-y-2", 11)
    assert "no weights" in answer("forecast-y") and "no weights" not in answer()
    head.files.clear()
    head.tail = "5/6 units, 7 tokens/s\n"
    assert "it has left no status of its candidates" in answer("forecast-x")


def test_follow_on_a_terminal_shows_a_progress_bar() -> None:
    lines = "hello [b]\n1/4 units, 1,000 tokens/s, 2:00 left (a)\n"
    for terminal in (True, False):
        screen = io.StringIO()
        with LiveLog(Console(file=screen, force_terminal=terminal, width=120)) as live:
            live.show(lines)
            live.say("connection lost")
        text = plain(screen.getvalue())
        assert "hello [b]" in text and "connection lost" in text
        assert ("tokens/s, 2:00 left (a)" in text) == (not terminal)


def test_logs_are_printed_without_control_characters() -> None:
    assert plain("\x1b[31mred\x1b[0m\x1b]0;title\x07\x07 tab\there\r\n\x1b(Bü") == "red tab\there\nBü"


def test_exit_code_and_record_of_an_ended_job() -> None:
    codes = [("SUCCEEDED", 0), ("FAILED", 3), ("FAILED", 2), ("FAILED", 137), ("FAILED", None)]
    assert [exit_code(job(status, code)) for status, code in codes] == [0, 3, 2, 1, 1]
    assert exit_code(job("STOPPED")) == 1 and exit_code(job("RUNNING")) == 0
    record = job_record(job("STOPPED", forecast_output="/o", forecast_name="n"))
    assert record["started"] == "1970-01-01T00:00:10+00:00" and record["ended"] is None
    progress = {"done": 1, "units": 4, "tokens_per_second": 10.0, "seconds_left": 61.0, "candidate": "a"}
    screen = io.StringIO()
    unknown = {**progress, "done": 2, "tokens_per_second": None, "seconds_left": None}
    Console(file=screen, width=160).print(
        table(jobs_table([{**record, "progress": shown} for shown in (progress, unknown, None)]))
    )
    text = screen.getvalue()
    assert "1/4" in text and "2/4" in text and "1:01" in text and "stopped" in text
