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
from forecast.inputs.candidates import Candidate
from forecast.plan import Failure, Plan, Unit, estimated_flops, estimated_tokens, joint_units
from forecast.store.lake import Receipt

Group = tuple[Unit, ...]

# A group that took this many processes with it (out of memory, a crash in native code), or failed this often
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

    One group of units that share prompts is in flight per actor, so that a death is charged to the group that
    caused it. An actor stays with its candidate while that has units; a free actor takes the candidate with
    the most work that nobody has, and joins another actor's candidate only when there is no such.

    Args:
        on_receipt: called for every finished unit, in order of completion.
        on_failure: called for every candidate that is given up.
    """
    outcome = Outcome()
    if not units:
        return outcome
    groups = joint_units(units)
    queue = _Queue(groups)
    attempts: Counter[str] = Counter()
    for kind in ("trajectories", "choices"):
        storage.sweep_temporaries(plan.folder(kind))
    settings = plan.config.cluster
    actors = [
        RemoteScoringActor.options(num_cpus=settings.cpus_per_actor, num_gpus=settings.gpus_per_actor).remote(
            plan.config
        )
        for _ in range(actor_count(settings, len(groups)))
    ]
    working: dict[Any, tuple[int, Group | None]] = {a.ready.remote(): (i, None) for i, a in enumerate(actors)}

    def give_up(candidate: Candidate, error: str) -> None:
        queue.drop(candidate.candidate_id)
        failure = Failure("candidate", candidate.name, error)
        if all(known.name != failure.name for known in outcome.failures):
            outcome.failures.append(failure)
            on_failure(failure)

    def retry(group: Group, error: str) -> None:
        candidate, first = group[0].candidate, group[0].address
        attempts[first] += 1
        if attempts[first] < MAX_ATTEMPTS:
            queue.put_back(group)
        else:
            give_up(
                candidate, f"candidate {candidate.name!r}: given up after {MAX_ATTEMPTS} attempts: {error}"
            )

    while working:
        (ref,), _ = ray.wait(list(working), num_returns=1)
        index, group = working.pop(ref)
        try:
            result = ray.get(ref)
        except RayActorError:
            outcome.restarts += 1
            if group is not None:
                retry(group, "the process that scored it died; it may have run out of memory")
            # Answers when Ray has restarted the actor, however often that takes.
            working[actors[index].ready.options(max_task_retries=-1).remote()] = (index, None)
            continue
        except RayTaskError as error:
            if group is None:
                raise
            retry(group, f"{type(error.cause).__name__}: {error.cause}" if error.cause else str(error))
            result = None
        if group is not None and isinstance(result, Refusal):
            give_up(group[0].candidate, result.error)
        elif group is not None and result is not None:
            for unit, receipt in zip(group, result, strict=True):
                outcome.receipts.append(receipt)
                on_receipt(unit, receipt)
        following = queue.take(index)
        if following is not None:
            paths = [plan.path(unit) for unit in following]
            working[actors[index].score.remote(following, paths)] = (index, following)
    for actor in actors:
        ray.kill(actor)
    return outcome


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

    def take(self, actor: int) -> Group | None:
        """The next group for an actor, the longest of its candidate first; None when nothing is left."""
        chosen = self._holder.get(actor)
        if chosen is None or not self._waiting[chosen]:
            self._holder.pop(actor, None)
            held = Counter(self._holder.values())
            last = self._files.get(actor)
            waiting = [candidate_id for candidate_id, groups in self._waiting.items() if groups]
            if not waiting:
                return None
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
