"""The supervisor: hands the units of a plan to scoring actors until all are done or given up."""

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.cluster import machines, own_node_is_up
from actors.death import cause_of
from actors.placement import Machine, Shape, check_room, has_room, lay_out, shapes_for
from actors.scoring_actor import Refusal, RemoteScoringActor
from actors.work_queue import Group, Queue
from forecast import storage
from forecast.errors import CandidateError, ForecastError
from forecast.inputs.models.resolve import Candidate
from forecast.plan import Failure, Plan, Unit, joint_units
from forecast.runs.events import Subscriber
from forecast.runs.quarantine import Quarantine

_LOOK_SECONDS = 1.0  # between looks at the clock while no actor answers
_LAYOUT_SECONDS = 10.0  # between looks for room that machines, others or ourselves have made
_MOST_LAYOUT_SECONDS = 300.0  # the same where processes have died as they started, twice as long each time
_RESUME = "what is done is kept: issue the command again when the cluster has its machines back"


@dataclass
class ScoringResult:
    """Result of a run, beside the files: receipts go to the subscriber and are not gathered."""

    failures: list[Failure] = field(default_factory=list)
    restarts: int = 0


def score_plan(plan: Plan, units: Sequence[Unit], subscriber: Subscriber | None = None) -> ScoringResult:
    """Score `units` of a plan on the connected Ray cluster.

    One group of units that share prompts is in flight per actor, so that a death is charged to the group that
    caused it. An actor stays with its candidate while that has units; a free actor takes the candidate with
    the most work that nobody has, and joins another actor's candidate only when there is no such. Actors for
    which nothing waits are ended, and their room goes to those that need another share of a machine. Actors
    on a lost machine come back elsewhere or not at all; the others go on without them. Where actors die as
    they start, more are started later each time; the run ends with their reason where that has happened
    `cluster.attempts` times and nothing else is at work.

    A group that took `cluster.attempts` processes with it, or failed that often for reasons outside the
    candidate (a full disk, lost storage), is given up together with its candidate, until the next run. A
    candidate's own error puts it into quarantine: at once, or when it came back that often where another try
    may succeed (memory, time, a machine's copy of the files).

    Args:
        subscriber: receives each event when it happens.

    Raises:
        ForecastError: no actor fits the cluster, none has been left for `cluster.patience_minutes`, all die
            as they start, or Ray has ended on this machine.
    """
    return _Run(plan, units, subscriber or Subscriber()).run() if units else ScoringResult()


@dataclass
class _Call:
    """What an actor was last asked."""

    actor: int
    group: Group | None  # None: whether it is up
    since: float  # monotonic seconds
    overdue: bool = False


@dataclass
class _Actor:
    handle: Any
    shape: Shape
    was_up: bool = False


class _Run:
    """One call of `score_plan`."""

    def __init__(self, plan: Plan, units: Sequence[Unit], subscriber: Subscriber) -> None:
        self._plan, self._settings, self._subscriber = plan, plan.config.cluster, subscriber
        self._result = ScoringResult()
        for kind in ("trajectories", "choices"):
            storage.sweep_temporaries(plan.folder(kind))
        self._quarantine = Quarantine(plan.config)
        self._machines: Sequence[Machine] = machines()
        shapes, self._misfits = self._shapes(units)
        placed = [unit for unit in units if unit.candidate.candidate_id in shapes]
        self._queue = Queue(joint_units(placed), shapes)
        self._attempts: Counter[str] = Counter()
        self._actors: dict[int, _Actor] = {}
        self._calls: dict[Any, _Call] = {}
        self._idle: list[int] = []
        self._failed_starts = 0  # rounds of starts in a row, of which an actor died and none came up
        self._round_failed, self._last_death = False, ""
        self._last_sign = time.monotonic()  # when an actor last showed that it is up
        self._laid_out, self._looked = -_LAYOUT_SECONDS, -_LOOK_SECONDS
        self._units = placed

    def _shapes(self, units: Sequence[Unit]) -> tuple[dict[str, tuple[Shape, ...]], list[Failure]]:
        """By candidate_id; and the candidates that no machine of the cluster can hold."""
        found: dict[str, tuple[Shape, ...]] = {}
        refused: list[Failure] = []
        for candidate in {unit.candidate.candidate_id: unit.candidate for unit in units}.values():
            try:
                found[candidate.candidate_id] = shapes_for(candidate, self._plan.config, self._machines)
            except CandidateError as error:
                refused.append(Failure("candidate", candidate.name, str(error)))
        if refused and not found:
            raise ForecastError("\n".join(failure.error for failure in refused))
        check_room((shape for shapes in found.values() for shape in shapes), self._settings, self._machines)
        names = {unit.candidate.candidate_id: unit.candidate.name for unit in units}
        for candidate_id, shapes in list(found.items()):
            if not has_room(shapes, self._settings, self._machines):
                name = names[candidate_id]
                why = f"candidate {name!r}: no machine of the cluster has {shapes[0]} to give"
                refused.append(Failure("candidate", name, why))
                del found[candidate_id]
        return found, refused

    def run(self) -> ScoringResult:
        """Run to the end."""
        try:
            self._lay_out()
            self._subscriber.started(self._units, len(self._actors))
            for misfit in self._misfits:
                self._fail(misfit)
            while self._queue or any(call.group is not None for call in self._calls.values()):
                if self._calls:
                    answered, _ = ray.wait(list(self._calls), num_returns=1, timeout=_LOOK_SECONDS)
                else:  # every process was ended, and what waits has no room yet
                    answered = []
                    time.sleep(_LOOK_SECONDS)
                for ref in answered:
                    self._take_answer(ref, self._calls.pop(ref))
                self._hand_out()
                self._lay_out()
                self._look_at_the_clock()
        finally:
            for actor in self._actors.values():
                with contextlib.suppress(RayError):  # Ray may be gone; why is said already
                    ray.kill(actor.handle)
        return self._result

    def _lay_out(self) -> None:
        """Start actors where there is room and work for more."""
        now = time.monotonic()
        if now - self._laid_out < _LAYOUT_SECONDS:
            return
        self._laid_out = now
        if not own_node_is_up():
            raise ForecastError(f"Ray has ended on this machine; {_RESUME}")
        self._machines, self._round_failed = machines(), False
        demand = self._queue.demand()
        running = Counter(actor.shape for actor in self._actors.values())
        wanted = self._settings.actors
        for shape, count in lay_out(demand, self._machines, running, wanted).items():
            for _ in range(count):
                self._start(shape)
        if self._settings.autoscaling and wanted and demand:
            # The cluster grows for processes that have no room yet.
            largest = max(demand, key=lambda shape: demand[shape].cost)
            missing = min(wanted - len(self._actors), demand[largest].groups)
            for _ in range(missing):
                self._start(largest)

    def _start(self, shape: Shape) -> None:
        index = 1 + max(self._actors, default=-1)
        actor = RemoteScoringActor.options(**shape.options()).remote(self._plan.config)
        self._actors[index] = _Actor(actor, shape)
        self._ask_whether_up(index)

    def _ask_whether_up(self, index: int) -> None:
        """Answers when the actor is up, however often Ray has to restart it, or when Ray gives it up."""
        asked = self._actors[index].handle.ready.options(max_task_retries=-1).remote()
        self._calls[asked] = _Call(index, None, time.monotonic())

    def _take_answer(self, ref: Any, call: _Call) -> None:
        """An actor has done what it was asked, or failed at it, or died of it."""
        group, result = call.group, None
        try:
            result = ray.get(ref)
        except RayTaskError as error:
            why = f"{type(error.cause).__name__}: {error.cause}" if error.cause else str(error)
            if group is None:
                self._died(call.actor, why)
                return
            self._retry(call.actor, group, why)
        except RayError as error:
            if group is None:
                self._died(call.actor, cause_of(error))
            else:
                self._restarted(call, group, cause_of(error))
            return
        if not self._actors[call.actor].was_up:
            self._actors[call.actor].was_up, self._failed_starts = True, 0
        self._last_sign = time.monotonic()
        self._idle.append(call.actor)
        if group is not None and isinstance(result, Refusal):
            self._refused(call.actor, group, result)
        elif group is not None and result is not None:
            for unit, receipt in zip(group, result, strict=True):
                self._subscriber.committed(unit, receipt)

    def _restarted(self, call: _Call, group: Group, cause: str) -> None:
        self._result.restarts += 1
        why = f"the process that scored it died, for want of memory or in native code: {cause}"
        if call.overdue:
            why = f"it was not done after {self._settings.deadline_minutes:g} minutes"
        self._subscriber.restarted(call.actor, why)
        self._retry(call.actor, group, why)
        self._ask_whether_up(call.actor)

    def _died(self, index: int, cause: str) -> None:
        """Ray has given an actor up; another is started, after a pause where this one never came up."""
        self._result.restarts += 1
        self._subscriber.restarted(index, cause)
        actor, self._last_death = self._actors.pop(index), cause
        self._queue.leave(index)
        with contextlib.suppress(RayError):
            ray.kill(actor.handle)
        if actor.was_up:
            self._laid_out = -_LAYOUT_SECONDS
        elif not self._round_failed:
            self._round_failed = True
            self._failed_starts += 1
            wait = min(_MOST_LAYOUT_SECONDS, _LAYOUT_SECONDS * 2 ** (self._failed_starts - 1))
            self._laid_out = time.monotonic() + wait - _LAYOUT_SECONDS
        if self._failed_starts >= self._settings.attempts and not self._calls and not self._idle:
            raise ForecastError(f"scoring processes die as they start: {cause}; {_RESUME}")

    def _hand_out(self) -> None:
        """Work for every actor that has none; one for which nothing waits is ended, and its room is free."""
        idle, self._idle = self._idle, []
        for index in idle:
            actor = self._actors[index]
            alone = not any(a.shape == actor.shape for i, a in self._actors.items() if i != index)
            group = self._queue.take(index, actor.shape, alone)
            if group is None:
                self._end(index)
                continue
            paths = [self._plan.path(unit) for unit in group]
            asked = actor.handle.score.remote(group, paths, self._queue.after(index, actor.shape))
            self._calls[asked] = _Call(index, group, time.monotonic())
            self._subscriber.handed_out(group, index)

    def _end(self, index: int) -> None:
        ray.kill(self._actors.pop(index).handle)
        self._queue.leave(index)
        if self._queue:
            self._laid_out = -_LAYOUT_SECONDS  # others may have waited for this room

    def _look_at_the_clock(self) -> None:
        """Once a second: end processes that are overdue; stop when no actor has been up for too long."""
        now, settings = time.monotonic(), self._settings
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        self._subscriber.beat()
        for call in self._calls.values():
            late = now - call.since > 60 * settings.deadline_minutes
            if call.group is not None and late and not call.overdue:
                call.overdue = True
                ray.kill(self._actors[call.actor].handle, no_restart=False)
        at_work = any(call.group is not None for call in self._calls.values())
        if not at_work and now - self._last_sign > 60 * settings.patience_minutes:
            waited = (
                f"no machine has had room for a scoring process for {settings.patience_minutes:g} minutes"
            )
            died = f", and the last one to die: {self._last_death}" if self._last_death else ""
            raise ForecastError(f"{waited}{died}; {_RESUME}")

    def _retry(self, actor: int, group: Group, error: str) -> None:
        """Nothing is known against the candidate; another process tries if there is one."""
        first, most = group[0].address, self._settings.attempts
        self._attempts[first] += 1
        if self._attempts[first] < most:
            self._queue.put_back(group, actor)
            self._laid_out = -_LAYOUT_SECONDS  # those who could take it may have been ended
            self._subscriber.retried(group, error)
        else:
            name = group[0].candidate.name
            self._give_up(group[0].candidate, f"candidate {name!r}: given up after {most} attempts: {error}")

    def _refused(self, actor: int, group: Group, refusal: Refusal) -> None:
        """The candidate's own error: it is quarantined, on the last try where another may succeed."""
        candidate = group[0].candidate
        self._attempts[candidate.candidate_id] += 1
        tries = self._attempts[candidate.candidate_id]
        if refusal.passes and tries < self._settings.attempts:
            self._queue.put_back(group, actor)
            self._subscriber.retried(group, refusal.error)
        else:
            self._quarantine.put(candidate, refusal.error, tries)
            self._give_up(candidate, refusal.error)

    def _give_up(self, candidate: Candidate, error: str) -> None:
        self._queue.drop(candidate.candidate_id)
        self._fail(Failure("candidate", candidate.name, error))

    def _fail(self, failure: Failure) -> None:
        if all(known.name != failure.name for known in self._result.failures):
            self._result.failures.append(failure)
            self._subscriber.gave_up(failure)
