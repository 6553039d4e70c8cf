"""What waits to be scored: groups of units by candidate, and which actor holds which candidate."""

from collections import Counter
from collections.abc import Mapping, Sequence

from actors.placement import Demand, Shape
from forecast.inputs.models.resolve import Candidate
from forecast.plan import Unit, estimated_flops, estimated_tokens

Group = tuple[Unit, ...]

_UNKNOWN = 2 * 10**9  # operations per token of a candidate of unknown size: as if it had a billion parameters


class Queue:
    """Longest work first; an actor stays with its candidate; candidates are shared only by those who idle."""

    def __init__(self, groups: Sequence[Group], shapes: Mapping[str, Sequence[Shape]]) -> None:
        """Args: shapes: of processes that can score a candidate, by candidate_id."""
        self._shapes = shapes
        self._waiting: dict[str, list[Group]] = {}
        self._cost: Counter[str] = Counter()  # of what waits
        for group in sorted(groups, key=_cost):
            self._waiting.setdefault(group[0].candidate.candidate_id, []).append(group)
            self._cost[group[0].candidate.candidate_id] += _cost(group)
        self._holder: dict[int, str] = {}
        self._files: dict[int, str | None] = {}  # of the candidate that an actor was given last
        self._dropped: set[str] = set()
        self._failed_at: dict[str, set[int]] = {}  # address of a group's first unit -> actors

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return any(self._waiting.values())

    def take(self, actor: int, shape: Shape, alone: bool = True) -> Group | None:
        """The next group for an actor, the longest of its candidate first; None where it can do nothing.

        Args:
            alone: whether it retries even units that it failed itself; others of its shape would do better.
        """
        chosen = self._next(actor, shape, alone)
        if chosen is None:
            self._holder.pop(actor, None)
            return None
        self._holder[actor] = chosen
        group = self._longest(chosen, actor, alone)
        assert group is not None  # or it would not have been chosen
        self._files[actor] = group[0].candidate.files_digest
        waiting = self._waiting[chosen]
        waiting.pop(next(i for i in reversed(range(len(waiting))) if waiting[i] is group))
        self._cost[chosen] -= _cost(group)
        return group

    def _longest(self, candidate_id: str, actor: int, alone: bool) -> Group | None:
        for group in reversed(self._waiting[candidate_id]):
            if alone or actor not in self._failed_at.get(group[0].address, ()):
                return group
        return None

    def after(self, actor: int, shape: Shape) -> Candidate | None:
        """The candidate that an actor will be given when what it holds now is done, as things stand."""
        held = self._holder.get(actor)
        if held is not None and len(self._waiting[held]) > 1:
            return None  # not soon
        chosen = self._next(actor, shape, alone=False, besides=held)
        return None if chosen is None else self._waiting[chosen][0][0].candidate

    def _next(self, actor: int, shape: Shape, alone: bool, besides: str | None = None) -> str | None:
        own = self._holder.get(actor)
        if own is not None and own != besides and self._longest(own, actor, alone):
            return own
        held = Counter(cid for index, cid in self._holder.items() if index != actor)
        last = self._files.get(actor)
        waiting = [cid for cid, groups in self._waiting.items() if groups and cid != besides]
        waiting = [cid for cid in waiting if self._fits(cid, shape) and self._longest(cid, actor, alone)]
        # What few processes can do comes before what all can; then a further variant of the files that the
        # actor read last, which is loaded in no time; then the most work.
        return min(
            waiting,
            key=lambda cid: (
                held[cid],
                len(self._shapes[cid]),
                -max(s.memory for s in self._shapes[cid]),
                self._waiting[cid][0][0].candidate.files_digest != last,
                -self._cost[cid],
            ),
            default=None,
        )

    def _fits(self, candidate_id: str, shape: Shape) -> bool:
        return any(shape.serves(needed) for needed in self._shapes[candidate_id])

    def demand(self) -> dict[Shape, Demand]:
        """What waits for processes of each shape; work that several shapes can do is counted for each."""
        groups: Counter[Shape] = Counter()
        cost: dict[Shape, float] = {}
        for candidate_id, waiting in self._waiting.items():
            for shape in self._shapes[candidate_id] if waiting else ():
                groups[shape] += len(waiting)
                cost[shape] = cost.get(shape, 0.0) + self._cost[candidate_id]
        return {shape: Demand(count, cost[shape]) for shape, count in groups.items()}

    def leave(self, actor: int) -> None:
        """An actor is gone for good."""
        self._holder.pop(actor, None)
        self._files.pop(actor, None)

    def put_back(self, group: Group, actor: int) -> None:
        """Queue a group again that failed at an actor, unless its candidate has been given up."""
        candidate_id = group[0].candidate.candidate_id
        self._failed_at.setdefault(group[0].address, set()).add(actor)
        if candidate_id not in self._dropped:
            self._waiting[candidate_id].append(group)
            self._cost[candidate_id] += _cost(group)

    def drop(self, candidate_id: str) -> None:
        """Forget what waits for a candidate."""
        self._dropped.add(candidate_id)
        self._waiting[candidate_id] = []
        self._cost[candidate_id] = 0


def _cost(group: Group) -> int:
    return sum(estimated_flops(unit) or _UNKNOWN * estimated_tokens(unit.shard) for unit in group)
