"""A head of a cluster that answers what it is told to."""

from collections.abc import Iterator
from typing import Any

from actors.jobs.client import Job

# Results of a job, by their names.
FILES = {"ranking.json": b"{}", "reports/day.html": b"<html>" * 10, "empty.md": b""}


def job(status: str = "SUCCEEDED", code: int | None = None, **metadata: str) -> Job:
    return Job("forecast-x-1", status, code, "", None, 10.0, None, "node", dict(metadata))


class MadeUpHead:
    """Answers with one (status, log) after the other; an exception is raised instead."""

    url = "http://head:8265"

    def __init__(
        self, *scenes: tuple[str, str] | Exception, files: dict[str, bytes] | None = None, tail: str = ""
    ) -> None:
        self.scenes = list(scenes)
        self.tail = tail
        self.files = files or {}
        self.asked: list[str] = []

    def job(self, job_id: str) -> Job:
        if isinstance(self.scenes[0], Exception):
            error = self.scenes[0]
            if len(self.scenes) > 1:
                self.scenes.pop(0)
            raise error
        return job(self.scenes[0][0], 0)

    def log(self, job_id: str) -> str:
        scene = self.scenes[0]
        assert not isinstance(scene, Exception)
        if len(self.scenes) > 1:
            self.scenes.pop(0)
        return scene[1]

    def log_tail(self, job: Job, lines: int) -> str:
        return self.tail

    def served_file(self, node_id: str, name: str, lines: int = -1) -> Iterator[bytes]:
        self.asked.append(name)
        if name not in self.files:
            raise FileNotFoundError(name)
        data = self.files[name]
        yield from (data[i : i + 7] for i in range(0, len(data), 7))


def run_status(**fields: Any) -> dict[str, Any]:
    """A status with a candidate in each state."""
    one = {
        "also": [],
        "candidate_id": "1",
        "units": 4,
        "committed": 1,
        "already_done": 1,
        "tokens_read": 2000,
        "tokens_per_second": 1500.0,
        "seconds_left": 61.0,
        "retries": 2,
        "error": None,
    }
    unknown = {"tokens_per_second": None, "seconds_left": None}
    candidates = [
        {**one, "candidate": "third", "state": "done", "seconds_left": 0.0},
        {**one, **unknown, "candidate": "second", "state": "failed", "error": "no weights\nat all"},
        {**one, "candidate": "[b] \x1b[31mfirst", "also": ["or so"], "state": "scoring"},
    ]
    return {
        "schema": 1,
        "name": "n",
        "run": "r",
        "state": "running",
        "error": None,
        "updated_at": "2026-01-01T00:00:00.000+00:00",
        "units": 12,
        "committed": 7,
        "tokens_per_second": 30.0,
        "seconds_left": 3700.0,
        "retries": 2,
        "restarts": 1,
        "candidates": candidates,
        **fields,
    }
