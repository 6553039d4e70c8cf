"""The supervisor: hands the units of a plan to scoring actors until all are done or given up."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.cluster import actor_count
from actors.scoring import Refusal, RemoteScoringActor
from forecast import storage
from forecast.errors import ForecastError
from forecast.inputs.candidates import Candidate
from forecast.plan import Failure, Plan, Unit, estimated_flops, estimated_tokens, joint_units
from forecast.store.lake import Receipt
from forecast.watching import Watcher

Group = tuple[Unit, ...]

# A group that took this many processes with it (out of memory, a crash in native code), or failed this often
# for reasons outside the candidate (a full disk, lost storage), is given up together with its candidate.
MAX_ATTEMPTS = 3
_LOOK_SECONDS = 1.0  # between looks at the clock while nobody answers


@dataclass
class Outcome:
    """What came of a run."""

    receipts: list[Receipt] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    restarts: int = 0


def score_plan(
    plan: Plan,
    units: Sequence[Unit],
    watcher: Watcher | None = None,
) -> Outcome:
    """Score `units` of a plan on the connected Ray cluster.

    One group of units that share prompts is in flight per actor, so that a death is charged to the group that
    caused it. An actor stays with its candidate while that has units; a free actor takes the candidate with
    the most work that nobody has, and joins another actor's candidate only when there is no such. Actors on a
    lost machine come back elsewhere or not at all; the others go on without them.

    Args:
        watcher: is told what happens, as it happens.

    Raises:
        ForecastError: no actor fits the cluster, or none has been left for `cluster.patience_minutes`.
    """
    return _Run(plan, units, watcher or Watcher()).outcome() if units else Outcome()


@dataclass
class _Call:
    """What an actor was last asked."""

    actor: int
    group: Group | None  # None: whether it is up
    since: float  # monotonic seconds
    overdue: bool = False


class _Run:
    """One call of `score_plan`."""

    def __init__(self, plan: Plan, units: Sequence[Unit], watcher: Watcher) -> None:
        groups = joint_units(units)
        self._plan, self._settings = plan, plan.config.cluster
        self._watcher = watcher
        self._queue = _Queue(groups)
        self._attempts: Counter[str] = Counter()
        self._outcome = Outcome()
        for kind in ("trajectories", "choices"):
            storage.sweep_temporaries(plan.folder(kind))
        resources = {"num_cpus": self._settings.cpus_per_actor, "num_gpus": self._settings.gpus_per_actor}
        self._actors = [
            RemoteScoringActor.options(**resources).remote(plan.config)
            for _ in range(actor_count(self._settings, len(groups)))
        ]
        self._calls: dict[Any, _Call] = {}
        self._idle: list[int] = []
        self._last_sign = time.monotonic()  # when an actor last showed that it is up

    def outcome(self) -> Outcome:
        """Run to the end."""
        for index, actor in enumerate(self._actors):
            self._calls[actor.ready.remote()] = _Call(index, None, time.monotonic())
        try:
            while self._queue or any(call.group is not None for call in self._calls.values()):
                answered, _ = ray.wait(list(self._calls), num_returns=1, timeout=_LOOK_SECONDS)
                for ref in answered:
                    self._take_answer(ref, self._calls.pop(ref))
                self._hand_out()
                self._look_at_the_clock()
        finally:
            for actor in self._actors:
                ray.kill(actor)
        return self._outcome

    def _take_answer(self, ref: Any, call: _Call) -> None:
        """An actor has done what it was asked, or failed at it, or died of it."""
        group, result = call.group, None
        try:
            result = ray.get(ref)
        except RayActorError:
            self._outcome.restarts += 1
            if group is not None:
                why = "the process that scored it died; it may have run out of memory"
                if call.overdue:
                    why = f"it was not done after {self._settings.deadline_minutes:g} minutes"
                self._retry(group, why)
            # Answers when Ray has restarted the actor, however often that takes.
            again = self._actors[call.actor].ready.options(max_task_retries=-1).remote()
            self._calls[again] = _Call(call.actor, None, time.monotonic())
            return
        except RayTaskError as error:
            if group is None:
                raise
            self._retry(group, f"{type(error.cause).__name__}: {error.cause}" if error.cause else str(error))
        self._last_sign = time.monotonic()
        self._idle.append(call.actor)
        if group is not None and isinstance(result, Refusal):
            self._give_up(group[0].candidate, result.error)
        elif group is not None and result is not None:
            for unit, receipt in zip(group, result, strict=True):
                self._outcome.receipts.append(receipt)
                self._watcher.committed(unit, receipt)

    def _hand_out(self) -> None:
        """Work for every actor that has none; also for those that waited when another's group came back."""
        while self._idle and self._queue:
            index = self._idle.pop()
            group = self._queue.take(index)
            paths = [self._plan.path(unit) for unit in group]
            asked = self._actors[index].score.remote(group, paths)
            self._calls[asked] = _Call(index, group, time.monotonic())

    def _look_at_the_clock(self) -> None:
        """End processes that are overdue; stop when no actor has been up for too long."""
        now, settings = time.monotonic(), self._settings
        for call in self._calls.values():
            late = now - call.since > 60 * settings.deadline_minutes
            if call.group is not None and late and not call.overdue:
                call.overdue = True
                ray.kill(self._actors[call.actor], no_restart=False)
        at_work = any(call.group is not None for call in self._calls.values())
        if not at_work and now - self._last_sign > 60 * settings.patience_minutes:
            raise ForecastError(
                f"no machine has had room for a scoring process for {settings.patience_minutes:g} minutes; "
                "what is done is kept: issue the command again when the cluster has its machines back"
            )

    def _retry(self, group: Group, error: str) -> None:
        candidate, first = group[0].candidate, group[0].address
        self._attempts[first] += 1
        if self._attempts[first] < MAX_ATTEMPTS:
            self._queue.put_back(group)
        else:
            self._give_up(
                candidate, f"candidate {candidate.name!r}: given up after {MAX_ATTEMPTS} attempts: {error}"
            )

    def _give_up(self, candidate: Candidate, error: str) -> None:
        self._queue.drop(candidate.candidate_id)
        failure = Failure("candidate", candidate.name, error)
        if all(known.name != failure.name for known in self._outcome.failures):
            self._outcome.failures.append(failure)
            self._watcher.gave_up(failure)


class _Queue:
    """Groups of units by candidate, with a memory of which actor holds which candidate."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._waiting: dict[str, list[Group]] = {}
        self._cost: Counter[str] = Counter()  # of what waits
        for group in sorted(groups, key=_cost):
            self._waiting.setdefault(group[0].candidate.candidate_id, []).append(group)
            self._cost[group[0].candidate.candidate_id] += _cost(group)
        self._holder: dict[int, str] = {}
        self._files: dict[int, str | None] = {}  # of the candidate that an actor was given last
        self._dropped: set[str] = set()

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return any(self._waiting.values())

    def take(self, actor: int) -> Group:
        """The next group for an actor, the longest of its candidate first; there must be one."""
        chosen = self._holder.get(actor)
        if chosen is None or not self._waiting[chosen]:
            self._holder.pop(actor, None)
            held = Counter(self._holder.values())
            last = self._files.get(actor)
            waiting = [candidate_id for candidate_id, groups in self._waiting.items() if groups]
            # A further variant of the files that the actor read last is loaded in no time.
            chosen = min(
                waiting,
                key=lambda cid: (
                    held[cid],
                    self._waiting[cid][0][0].candidate.files_digest != last,
                    -self._cost[cid],
                ),
            )
            self._holder[actor] = chosen
            self._files[actor] = self._waiting[chosen][0][0].candidate.files_digest
        group = self._waiting[chosen].pop()
        self._cost[chosen] -= _cost(group)
        return group

    def put_back(self, group: Group) -> None:
        """Queue a group again, unless its candidate has been given up."""
        candidate_id = group[0].candidate.candidate_id
        if candidate_id not in self._dropped:
            self._waiting[candidate_id].append(group)
            self._cost[candidate_id] += _cost(group)

    def drop(self, candidate_id: str) -> None:
        """Forget what waits for a candidate."""
        self._dropped.add(candidate_id)
        self._waiting[candidate_id] = []


def _cost(group: Group) -> int:
    return sum(estimated_flops(unit) or estimated_tokens(unit.shard) for unit in group)
