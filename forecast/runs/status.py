"""How far a run is: one account of its numbers, from which bars, files, metrics and the app take theirs.

Units that were in the lake before are counted apart, so that units are always out of the whole plan.

Speed is tokens read in this run by the seconds in which they were being read: the clock of a candidate runs
while at least one of its units is with an actor (loading of weights included, waiting for a machine not), the
clock of the run while that is so for any candidate.

Time left is the estimated work left over the recent rate (`RecentRate`), so it follows a cluster that grows
or shrinks; the start-up before the first work is left out, and there is none before something is done. Work
is estimated FLOPs where all parameter counts are known, because a run may mix small and large models, else
estimated tokens. What is not known is None, never 0.
"""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from forecast.plan import Failure, Plan, Unit, estimated_flops, estimated_tokens
from forecast.runs.events import Subscriber
from forecast.runs.throughput import Account, CandidateAccount, rounded

if TYPE_CHECKING:
    from forecast.lake.files import Receipt

SCHEMA = 1  # of `RunStatus.as_record`; a change that breaks a reader counts it up
RunState = Literal["running", "done", "failed", "interrupted"]


def new_run_id(now: float) -> str:
    """UTC start time (of a Unix time) and a few random characters; ids sort by time."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"


class RunStatus(Subscriber):
    """State of a run, kept up to date from its events."""

    def __init__(
        self,
        plan: Plan,
        done: Collection[str],
        failures: Sequence[Failure] = (),
        run: str | None = None,
        job: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        done: addresses of the units that are in the lake already.
        failures: known before anything is scored: candidates without a plan, or in quarantine.
        run: the run's id; by default a new one.
        job: the id of the Ray job that this run is, if it is one.
        clock: seconds that never go back; speeds are by it.
        wall: Unix time, for records.
        """
        self._clock, self._wall = clock, wall
        self._begun, self._started_at = clock(), wall()
        self.run, self.job = run or new_run_id(self._started_at), job
        self.name, self.output = plan.config.name, plan.config.output
        self.state: RunState = "running"
        self.error: str | None = None
        self.actors: int | None = None
        self.restarts = 0
        self.latest: str | None = None  # the candidate that a unit was committed of last
        self.total = Account()
        self._accounts: dict[str, CandidateAccount] = {}  # by candidate_id
        for candidate in plan.candidates:
            self._accounts.setdefault(candidate.candidate_id, CandidateAccount()).names += (candidate.name,)
        known = {name for own in self._accounts.values() for name in own.names}
        early = [f for f in failures if f.subject == "candidate"]
        self._unplanned = [
            CandidateAccount(names=(f.name,), error=f.error) for f in early if f.name not in known
        ]
        self._flying: dict[str, str] = {}  # address -> candidate_id
        samples = {unit.candidate.candidate_id: unit for unit in plan.units if unit.address not in done}
        self._by_flops = all(estimated_flops(unit) is not None for unit in samples.values())
        for unit in plan.units:
            cost = self._cost(unit)
            for account in self._accounts_of(unit.candidate.candidate_id):
                account.plan(cost, unit.address in done)
        for failure in early:
            self.gave_up(failure)

    # Events

    def started(self, units: Sequence[Unit], actors: int) -> None:
        self.actors = actors

    def handed_out(self, units: Sequence[Unit], actor: int) -> None:
        now = self._clock()
        for unit in units:
            if unit.address not in self._flying:
                self._flying[unit.address] = unit.candidate.candidate_id
                for account in self._accounts_of(unit.candidate.candidate_id):
                    account.begin(now)

    def committed(self, unit: Unit, receipt: "Receipt") -> None:
        now, cost = self._clock(), self._cost(unit)
        for account in self._accounts_of(unit.candidate.candidate_id):
            account.commit(receipt.tokens_read, cost, receipt.seconds, now)
        self.latest = unit.candidate.name
        self._return([unit.address])

    def retried(self, units: Sequence[Unit], why: str) -> None:
        self._return([unit.address for unit in units])
        for account in self._accounts_of(units[0].candidate.candidate_id):
            account.retries += 1

    def restarted(self, actor: int, why: str) -> None:
        self.restarts += 1

    def gave_up(self, failure: Failure) -> None:
        for candidate_id, account in self._accounts.items():
            if failure.subject == "candidate" and failure.name in account.names:
                account.error = failure.error
                self.total.cost_left -= account.cost_left
                account.cost_left = 0.0
                self._return([address for address, own in self._flying.items() if own == candidate_id])

    def ended(self, state: RunState, error: str | None = None) -> None:
        """The run is over."""
        self._return(list(self._flying))
        self.state, self.error = state, error

    # What subscribers read

    def tokens_per_second(self) -> float | None:
        """Of the whole run."""
        return self.total.tokens_per_second(self._clock())

    def seconds_left(self) -> float | None:
        """Of the whole run."""
        if self.state == "done":  # also where candidates were given up: nothing is left to do
            return 0.0
        return self.total.seconds_left(self._clock(), self.state == "running")

    def progress(self) -> dict[str, Any]:
        """How far the whole run is, in the keys of `as_record`, unrounded."""
        return {
            "units": self.total.units,
            "committed": self.total.committed,
            "tokens_per_second": self.tokens_per_second(),
            "seconds_left": self.seconds_left(),
        }

    def candidates(self) -> list[dict[str, Any]]:
        """The `candidates` of `as_record`."""
        now = self._clock()
        planned = [account.candidate_record(cid, now) for cid, account in self._accounts.items()]
        unplanned = [account.candidate_record(None, now) for account in self._unplanned]
        return planned + [{**record, "seconds_left": None} for record in unplanned]

    def as_record(self) -> dict[str, Any]:
        """Plain data, the same for files, jobs and the app.

        Keys: `schema`; `run` (id), `name` and `output` of the configuration, `job` (id or null); `state`,
        `error`; `started_at`, `updated_at` (ISO, UTC), `seconds` since the start; `actors` (at most, null
        before any was asked for), `restarts`, `retries` (groups of units that came back); `units` of the
        plan, `committed` of these, `already_done` before this run; `tokens_read`, `tokens_per_second` and
        `seconds_left` (null where unknown), `left_by` (`flops` or `tokens`); `states` (candidates by state);
        `candidates`: the like of each, with `candidate` (name), `also` (further names of the same model) and
        `candidate_id` (null for one that could not be planned). A candidate's `seconds_left` supposes that
        as many actors stay with it, and is null while none is.
        """
        now, candidates = self._clock(), self.candidates()
        states: Counter[str] = Counter(record["state"] for record in candidates)
        return {
            "schema": SCHEMA,
            "run": self.run,
            "name": self.name,
            "output": self.output,
            "job": self.job,
            "state": self.state,
            "error": self.error,
            "started_at": _moment(self._started_at),
            "updated_at": _moment(self._wall()),
            "seconds": round(now - self._begun, 3),
            "actors": self.actors,
            "restarts": self.restarts,
            **self.total.record(now, self.state == "running"),
            "seconds_left": rounded(self.seconds_left()),
            "left_by": "flops" if self._by_flops else "tokens",
            "states": {state: states[state] for state in ("waiting", "scoring", "done", "failed")},
            "candidates": candidates,
        }

    def _accounts_of(self, candidate_id: str) -> tuple[Account, Account]:
        """A candidate's and the run's."""
        return self._accounts[candidate_id], self.total

    def _return(self, addresses: Sequence[str]) -> None:
        """These units are with no actor any more; those that were with none are left out."""
        now = self._clock()
        for address in addresses:
            if (candidate_id := self._flying.pop(address, None)) is not None:
                for account in self._accounts_of(candidate_id):
                    account.end(now)

    def _cost(self, unit: Unit) -> float:
        return (self._by_flops and estimated_flops(unit)) or estimated_tokens(unit.shard)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
