"""Candidates in quarantine after their own errors, which later runs skip.

One JSON file per candidate in `OUTPUT/quarantine`. A candidate is known by what its files hold, so repaired
files make another candidate; another version of the engines, other settings of them, or `--retry` let a
quarantined one try again. Deaths of processes and machines put none there: they may be the cluster's fault.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import forecast
from forecast import storage
from forecast.config.schema import Config
from forecast.engines.base import ENGINE_VERSION
from forecast.errors import InputError
from forecast.inputs.models.fingerprint import digest_of
from forecast.inputs.models.resolve import Candidate
from forecast.plan import Failure, Plan
from forecast.storage.records import Count, UnixTime, checked, parsed_json


@dataclass(frozen=True)
class Quarantined:
    """Why a candidate is in quarantine."""

    candidate_id: str
    candidate: str
    error: str
    tries: Count
    since: UnixTime
    ground: str  # what, besides its files, may have been the cause

    def failure(self) -> Failure:
        """For the final list of a run."""
        day, tries = datetime.fromtimestamp(self.since, UTC).date(), "try" if self.tries == 1 else "tries"
        why = f"in quarantine since {day}, after {self.tries} {tries}"
        error = f"{self.error}\n  {why}; to try again: the same command with --retry"
        return Failure("candidate", self.candidate, error)


class Quarantine:
    """The quarantine of one output folder."""

    def __init__(self, config: Config) -> None:
        self._folder = storage.join(config.output, "quarantine")
        engine = config.engine.model_dump(mode="json")
        # Memory and machines may be why a candidate could not be loaded.
        reserved = {"cpus_per_actor", "gpus_per_actor", "resources"}
        room = config.cluster.model_dump(mode="json", include=reserved)
        self._ground = digest_of(forecast.__version__, ENGINE_VERSION, engine, room)

    def put(self, candidate: Candidate, error: str, tries: int) -> None:
        """Put a candidate into quarantine."""
        record = Quarantined(candidate.candidate_id, candidate.name, error, tries, time.time(), self._ground)
        storage.write_bytes(self._path(candidate.candidate_id), json.dumps(asdict(record), indent=2).encode())

    def of(self, plan: Plan) -> dict[str, Quarantined]:
        """The plan's candidates in quarantine, by candidate_id, under their present names.

        Raises:
            InputError: a file of the quarantine is damaged.
        """
        found = {}
        for path, candidate in self._present(plan).items():
            try:
                kept = checked(Quarantined, parsed_json(storage.read_bytes(path)))
            except ValueError as error:
                raise InputError(f"{path} is damaged: {error}; delete it and score again") from None
            if kept.ground == self._ground:
                found[candidate.candidate_id] = replace(kept, candidate=candidate.name)
        return found

    def release(self, plan: Plan) -> int:
        """Let a plan's candidates try again; returns how many were in quarantine."""
        paths = self._present(plan)
        for path in paths:
            storage.remove(path)
        return len(paths)

    def _present(self, plan: Plan) -> dict[str, Candidate]:
        """The plan's candidates that have a file, by its path."""
        known = storage.list_files(self._folder, ".json")
        paths = {self._path(candidate.candidate_id): candidate for candidate in plan.candidates}
        return {path: candidate for path, candidate in paths.items() if path in known}

    def _path(self, candidate_id: str) -> str:
        return storage.join(self._folder, f"{candidate_id}.json")
