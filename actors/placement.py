"""What a scoring process reserves for a candidate, and how many of them a cluster has room for.

Pure: it knows machines and candidates, not Ray. With `gpus_per_actor: auto` a candidate's share of a GPU
follows from its size and dtype: a small model gets a half, a third, ... of a card, vLLM as many cards as
`tensor_parallel` says. Estimates of main memory limit the processes on a machine; they refuse no candidate,
because a wrong guess would be worse than a try.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from forecast.config.schema import ClusterConfig, Config
from forecast.errors import CandidateError, ForecastError
from forecast.inputs.models.resolve import Candidate

_GIB = 1 << 30
# Nominal memory of a card, GiB, by Ray's name of its kind, from the makers' data sheets; of a name that
# stands for two sizes the smaller. `cluster.gpu_memory_gib` has the last word.
_CARDS: dict[str, float] = {
    "T4": 16, "V100": 16, "P100": 16, "A10G": 24, "L4": 24, "L40S": 48, "A100": 40, "A100-40G": 40,
    "A100-80G": 80, "H100": 80, "H20": 96, "RTX-PRO-6000": 96, "H200": 141, "B200": 180, "B300": 270,
}  # fmt: skip
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Beside the weights: activations of a batch, tiles of logits, the libraries' own; the helper that encodes.
_WORKSPACE_GPU, _WORKSPACE_CPU = 3.0, 1.7  # GiB
_OVERHEAD = 1.1
_MOST_ON_ONE_CARD = 8


@dataclass(frozen=True)
class Machine:
    """A node of the cluster as Ray describes it; memory in bytes."""

    cpus: float
    gpus: float = 0
    kind: str | None = None  # of its GPUs, by Ray's name
    memory: float = math.inf
    others: tuple[tuple[str, float], ...] = ()  # custom resources


@dataclass(frozen=True)
class Shape:
    """What one scoring process reserves, of one machine."""

    cpus: float
    gpus: float = 0
    kind: str | None = None  # None: any
    memory: int = 0  # bytes of main memory; 0: not reserved
    others: tuple[tuple[str, float], ...] = ()

    def serves(self, needed: "Shape") -> bool:
        """Whether a candidate that needs this much can be scored by a process that has that much."""
        return self.memory >= needed.memory and replace(self, memory=needed.memory) == needed

    def options(self) -> dict[str, object]:
        """As Ray's actors take it."""
        resources = dict(self.others)
        if self.kind is not None:
            resources[f"accelerator_type:{self.kind}"] = 0.001
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            **({"memory": self.memory} if self.memory else {}),
            **({"resources": resources} if resources else {}),
        }

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} {_plural('CPU', self.cpus)}"]
        if self.gpus:
            parts.append(f"{self.gpus:.3g} {_plural('GPU', max(1, self.gpus))}")
        if self.kind:
            parts[-1] += f" ({self.kind})"
        if self.memory:
            parts.append(f"{self.memory / _GIB:.3g} GiB of memory")
        parts += [f"{amount:g} {name}" for name, amount in self.others]
        return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def shapes_for(candidate: Candidate, config: Config, machines: Sequence[Machine]) -> tuple[Shape, ...]:
    """What a process needs to score a candidate: one shape for each kind of GPU that has room for it.

    Raises:
        CandidateError: no GPU of the cluster is large enough.
    """
    settings = config.cluster
    others = tuple(sorted(settings.resources.items()))
    if settings.gpus_per_actor != "auto":
        return (Shape(settings.cpus_per_actor, settings.gpus_per_actor, others=others),)
    weights = _weights_gib(candidate)
    cards = _cards(machines, settings)
    if not cards or candidate.engine == "fake" or config.engine.device == "cpu":
        return (Shape(settings.cpus_per_actor, memory=_main_memory(weights, machines), others=others),)
    parts = config.engine.vllm.tensor_parallel if candidate.engine == "vllm" else 1
    shapes = []
    for kind, size in cards.items():
        if weights is None or size is None:
            share: float | None = float(parts)
        elif candidate.engine == "vllm":
            share = float(parts) if weights * _OVERHEAD / parts < 0.9 * size else None
        else:
            share = _share(weights * _OVERHEAD + _WORKSPACE_GPU, size)
        if share is not None:
            shapes.append(Shape(settings.cpus_per_actor, share, kind, others=others))
    if not shapes:
        largest = max(size for size in cards.values() if size)
        raise CandidateError(_too_large(candidate, weights or 0.0, largest, parts))
    if len(cards) == 1:  # naming the kind would only keep out cards that Ray does not know by name
        return (Shape(settings.cpus_per_actor, shapes[0].gpus, others=others),)
    return tuple(shapes)


def _weights_gib(candidate: Candidate) -> float | None:
    if candidate.parameters is None:
        return None
    return candidate.parameters * _BYTES[candidate.dtype] / _GIB


def _cards(machines: Iterable[Machine], settings: ClusterConfig) -> dict[str | None, float | None]:
    """Kinds of GPUs in the cluster with their memory in GiB, None where it is not known."""
    kinds = dict.fromkeys(m.kind for m in machines if m.gpus)
    configured = settings.gpu_memory_gib
    if isinstance(configured, Mapping):
        return {kind: configured.get(kind or "", _CARDS.get(kind or "")) for kind in kinds}
    return {kind: configured or _CARDS.get(kind or "") for kind in kinds}


def _share(needed: float, size: float) -> float | None:
    """1, 1/2, 1/3, ... of a card: the smallest that holds it; None where a card is too small."""
    if needed > size:
        return None
    # Rounded down, so that as many shares as were counted fit on a card.
    return math.floor(1e4 / min(_MOST_ON_ONE_CARD, int(size // needed))) / 1e4


def _main_memory(weights: float | None, machines: Sequence[Machine]) -> int:
    """Bytes: the next power of two in GiB, so that there are few sizes; at most the largest machine."""
    if weights is None:
        return 0
    needed = 2.0 ** math.ceil(math.log2(weights * _OVERHEAD + _WORKSPACE_CPU))
    most = max((m.memory for m in machines), default=math.inf)
    return int(min(needed * _GIB, most))


def _too_large(candidate: Candidate, weights: float, largest: float, parts: int) -> str:
    enough = 2 ** math.ceil(math.log2(max(weights * _OVERHEAD / (0.9 * largest), 1)))
    fix = f"score it by engine kind vllm with engine.vllm.tensor_parallel {max(2, enough)}"
    if candidate.dtype == "float32":
        fix = "set dtype bfloat16, or " + fix
    over = f" over {parts} GPUs" if parts > 1 else ""
    return (
        f"candidate {candidate.name!r}: its weights take {weights:.1f} GiB in {candidate.dtype}{over}, the "
        f"largest GPU of the cluster has {largest:g} GiB; {fix}, or set cluster.gpu_memory_gib or "
        "cluster.gpus_per_actor if this is wrong"
    )


@dataclass(frozen=True)
class Demand:
    """What waits for processes of one shape: groups of units, and their cost in any unit."""

    groups: int
    cost: float


def lay_out(
    waiting: Mapping[Shape, Demand],
    machines: Sequence[Machine],
    running: Mapping[Shape, int] | None = None,
    limit: int | None = None,
) -> Counter[Shape]:
    """How many processes of each shape to start beside those that run.

    Every shape gets one first, the largest before the others, as long as there is room; then whichever has
    the most work for each of its processes gets another, never more than it has groups.

    Args:
        limit: on all processes together, running ones included.
    """
    running = running or {}
    free = [_Free(machine) for machine in machines]
    for shape in sorted(running, key=_size, reverse=True):
        for _ in range(running[shape]):
            _place(shape, free)
    counts = Counter(dict(running))
    started: Counter[Shape] = Counter()
    open_ = [s for s in sorted(waiting, key=_size, reverse=True) if waiting[s].groups > 0]

    def start(shape: Shape) -> bool:
        if (limit is not None and counts.total() >= limit) or not _place(shape, free):
            return False
        counts[shape] += 1
        started[shape] += 1
        return True

    for shape in open_:
        if not counts[shape]:
            start(shape)
    while open_:
        shape = max(open_, key=lambda s: waiting[s].cost / (counts[s] + 1))
        if counts[shape] >= waiting[shape].groups or not start(shape):
            open_.remove(shape)
    return +started


def _size(shape: Shape) -> tuple[float, float, float]:
    return (shape.gpus, shape.memory, shape.cpus)


class _Free:
    """What is left of a machine."""

    def __init__(self, machine: Machine) -> None:
        self.kind, self.cpus, self.memory = machine.kind, machine.cpus, machine.memory
        self.cards = [1.0] * int(machine.gpus)  # a share of a GPU never lies on two cards
        self.others = dict(machine.others)

    def take(self, shape: Shape) -> bool:
        """Reserve a shape here; False, and nothing changed, where it does not fit."""
        if shape.kind is not None and shape.kind != self.kind:
            return False
        if self.cpus < shape.cpus or self.memory < shape.memory:
            return False
        lacking = any(self.others.get(name, 0.0) < amount for name, amount in shape.others)
        if lacking or not self._take_cards(shape.gpus):
            return False
        self.cpus -= shape.cpus
        self.memory -= shape.memory
        for name, amount in shape.others:
            self.others[name] -= amount
        return True

    def _take_cards(self, gpus: float) -> bool:
        if gpus >= 1:
            whole = [i for i, left in enumerate(self.cards) if left == 1.0]
            if len(whole) < gpus:
                return False
            for i in whole[: math.ceil(gpus)]:
                self.cards[i] = 0.0
        elif gpus > 0:
            # The fullest card that still has room, so that whole ones stay whole.
            room = [i for i, left in enumerate(self.cards) if left >= gpus - 1e-9]
            if not room:
                return False
            self.cards[min(room, key=lambda i: self.cards[i])] -= gpus
        return True


def _place(shape: Shape, free: Sequence[_Free]) -> bool:
    """On the machine with the fewest GPUs that has room: work for processors leaves GPU machines alone."""
    ordered = sorted(free, key=lambda m: (len(m.cards), -m.cpus))
    return any(machine.take(shape) for machine in ordered)


def has_room(shapes: Iterable[Shape], settings: ClusterConfig, machines: Sequence[Machine]) -> bool:
    """Whether a process of one of these shapes fits on some machine, were it empty."""
    return settings.autoscaling or any(lay_out({s: Demand(1, 1.0)}, machines, limit=1) for s in shapes)


def check_room(shapes: Iterable[Shape], settings: ClusterConfig, machines: Sequence[Machine]) -> None:
    """Refuse to start where not even one process fits, or fewer than were asked for.

    Raises:
        ForecastError: with what is needed and what the cluster has.
    """
    if settings.autoscaling:  # machines come when they are asked for
        return
    wanted = settings.actors or 1
    plenty = {shape: Demand(wanted, 1.0) for shape in dict.fromkeys(shapes)}
    if (fit := lay_out(plenty, machines, limit=wanted).total()) >= wanted:
        return
    shape = max(plenty, key=_size)
    need = f"{wanted} scoring {_plural('process', wanted, 'processes')} of {shape}"
    settings_to_lower = "cluster.actors, cluster.cpus_per_actor or cluster.gpus_per_actor"
    if shape.gpus > 1:
        replicas = f"{wanted} {_plural('replica', wanted)} x TP {shape.gpus:g}"
        need = f"{wanted * shape.gpus:g} GPUs ({replicas})"
        settings_to_lower += ", or engine.vllm.tensor_parallel"
    gpus, cpus = sum(m.gpus for m in machines), sum(m.cpus for m in machines)
    raise ForecastError(
        f"need {need}, cluster has {gpus:g} GPUs and {cpus:g} CPUs on {len(machines)} "
        f"{_plural('machine', len(machines))}, room for {fit}; lower {settings_to_lower}; "
        "on a cluster that grows by itself set cluster.autoscaling"
    )


def _plural(noun: str, count: float, plural: str | None = None) -> str:
    return noun if count == 1 else plural or f"{noun}s"
