"""The supervisor: hands the units of a plan to scoring actors until all are done or given up."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.cluster import actor_count
from actors.scoring import Refusal, RemoteScoringActor
from forecast import storage
from forecast.plan import Failure, Plan, Unit, estimated_flops, estimated_tokens
from forecast.store.lake import Receipt

# A unit that took this many processes with it (out of memory, a crash in native code), or failed this often
# for reasons outside the candidate (a full disk, lost storage), is given up together with its candidate.
MAX_ATTEMPTS = 3


@dataclass
class Outcome:
    """What came of a run."""

    receipts: list[Receipt] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    restarts: int = 0


def score_plan(
    plan: Plan,
    units: Sequence[Unit],
    on_receipt: Callable[[Unit, Receipt], None] = lambda unit, receipt: None,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> Outcome:
    """Score `units` of a plan on the connected Ray cluster.

    One unit is in flight per actor, so that a death is charged to the unit that caused it. An actor stays
    with its candidate while that has units; a free actor takes the candidate with the most work that nobody
    has, and joins another actor's candidate only when there is no such.

    Args:
        on_receipt: called for every finished unit, in order of completion.
        on_failure: called for every candidate that is given up.
    """
    outcome = Outcome()
    if not units:
        return outcome
    queue = _Queue(units)
    attempts: Counter[str] = Counter()
    for kind in ("trajectories", "choices"):
        storage.sweep_temporaries(plan.folder(kind))
    settings = plan.config.cluster
    actors = [
        RemoteScoringActor.options(num_cpus=settings.cpus_per_actor, num_gpus=settings.gpus_per_actor).remote(
            plan.config
        )
        for _ in range(actor_count(settings, len(units)))
    ]
    working: dict[Any, tuple[int, Unit | None]] = {a.ready.remote(): (i, None) for i, a in enumerate(actors)}

    def give_up(unit: Unit, error: str) -> None:
        queue.drop(unit.candidate.candidate_id)
        failure = Failure("candidate", unit.candidate.name, error)
        if all(known.name != failure.name for known in outcome.failures):
            outcome.failures.append(failure)
            on_failure(failure)

    def retry(unit: Unit, error: str) -> None:
        attempts[unit.address] += 1
        if attempts[unit.address] < MAX_ATTEMPTS:
            queue.put_back(unit)
        else:
            give_up(
                unit, f"candidate {unit.candidate.name!r}: given up after {MAX_ATTEMPTS} attempts: {error}"
            )

    while working:
        (ref,), _ = ray.wait(list(working), num_returns=1)
        index, unit = working.pop(ref)
        try:
            result = ray.get(ref)
        except RayActorError:
            outcome.restarts += 1
            if unit is not None:
                retry(unit, "the process that scored it died; it may have run out of memory")
            # Answers when Ray has restarted the actor, however often that takes.
            working[actors[index].ready.options(max_task_retries=-1).remote()] = (index, None)
            continue
        except RayTaskError as error:
            if unit is None:
                raise
            retry(unit, f"{type(error.cause).__name__}: {error.cause}" if error.cause else str(error))
            result = None
        if isinstance(result, Refusal) and unit is not None:
            give_up(unit, result.error)
        elif isinstance(result, Receipt) and unit is not None:
            outcome.receipts.append(result)
            on_receipt(unit, result)
        following = queue.take(index)
        if following is not None:
            working[actors[index].score.remote(following, plan.path(following))] = (index, following)
    for actor in actors:
        ray.kill(actor)
    return outcome


class _Queue:
    """Units by candidate, with a memory of which actor holds which candidate."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._waiting: dict[str, list[Unit]] = {}
        self._cost: Counter[str] = Counter()  # of what waits
        for unit in sorted(units, key=_cost):
            self._waiting.setdefault(unit.candidate.candidate_id, []).append(unit)
            self._cost[unit.candidate.candidate_id] += _cost(unit)
        self._holder: dict[int, str] = {}
        self._files: dict[int, str | None] = {}  # of the candidate that an actor was given last
        self._dropped: set[str] = set()

    def take(self, actor: int) -> Unit | None:
        """The next unit for an actor, the longest of its candidate first; None when nothing is left."""
        chosen = self._holder.get(actor)
        if chosen is None or not self._waiting[chosen]:
            self._holder.pop(actor, None)
            held = Counter(self._holder.values())
            last = self._files.get(actor)
            waiting = [candidate_id for candidate_id, units in self._waiting.items() if units]
            if not waiting:
                return None
            # A further variant of the files that the actor read last is loaded in no time.
            chosen = min(
                waiting,
                key=lambda cid: (
                    held[cid],
                    self._waiting[cid][0].candidate.files_digest != last,
                    -self._cost[cid],
                ),
            )
            self._holder[actor] = chosen
            self._files[actor] = self._waiting[chosen][0].candidate.files_digest
        unit = self._waiting[chosen].pop()
        self._cost[chosen] -= _cost(unit)
        return unit

    def put_back(self, unit: Unit) -> None:
        """Queue a unit again, unless its candidate has been given up."""
        if unit.candidate.candidate_id not in self._dropped:
            self._waiting[unit.candidate.candidate_id].append(unit)
            self._cost[unit.candidate.candidate_id] += _cost(unit)

    def drop(self, candidate_id: str) -> None:
        """Forget what waits for a candidate."""
        self._dropped.add(candidate_id)
        self._waiting[candidate_id] = []


def _cost(unit: Unit) -> int:
    return estimated_flops(unit) or estimated_tokens(unit.shard)
