"""Who gets what: longest work first, weights kept, sharing only among those who would idle."""

from actors.placement import Shape
from actors.work_queue import Group, Queue
from forecast.config.schema import CandidateConfig
from forecast.inputs.models.resolve import Candidate
from forecast.inputs.trajectories import Trajectory
from forecast.plan import Shard, Unit

CPU = Shape(cpus=1)


def candidate(name: str, parameters: int = 1000, files: str | None = None) -> Candidate:
    settings = CandidateConfig(name=name, source=f"fake://{name}")
    return Candidate(name, name, settings, "fake", "float32", "raw", files or f"files of {name}", parameters)


def groups(of: Candidate, *lengths: int) -> list[Group]:
    made = []
    for i, length in enumerate(lengths):
        text = Trajectory("t", f"{i}", "human", "", "x" * 4 * length)
        made.append((Unit(of, Shard("trajectories", "t", (text,), i), f"{of.name}{i}"),))
    return made


def queue(*parts: list[Group], shapes: dict[str, list[Shape]] | None = None) -> Queue:
    everything = [group for part in parts for group in part]
    ids = {group[0].candidate.candidate_id for group in everything}
    return Queue(everything, {cid: (shapes or {}).get(cid, [CPU]) for cid in ids})


def address(group: Group | None) -> str | None:
    return None if group is None else group[0].address


def test_queue_gives_longest_work_first_and_keeps_loaded_weights() -> None:
    q = queue(groups(candidate("a"), 1, 5, 3), groups(candidate("b", 10_000), 2, 1))
    assert [address(q.take(0, CPU)) for _ in range(2)] == ["b0", "b1"]  # more parameters, more work
    assert [address(q.take(0, CPU)) for _ in range(3)] == ["a1", "a2", "a0"]
    assert q.take(0, CPU) is None and not q


def test_queue_shares_a_candidate_only_as_last_resort() -> None:
    q = queue(groups(candidate("a"), 9, 9, 9), groups(candidate("b"), 1, 1))
    assert address(q.take(0, CPU)) == "a2"
    assert address(q.take(1, CPU)) == "b1"  # less work, but nobody has it
    assert address(q.take(1, CPU)) == "b0"
    assert address(q.take(1, CPU)) == "a1"
    assert address(q.take(0, CPU)) == "a0"


def test_queue_orders_variants_of_one_file_together() -> None:
    parts = [
        groups(candidate(n, p, f), 1) for n, p, f in (("a", 9000, "x"), ("b", 8000, "y"), ("c", 10, "x"))
    ]
    q = queue(*parts)
    assert [address(q.take(0, CPU)) for _ in range(3)] == ["a0", "c0", "b0"]


def test_queue_gives_only_work_of_the_same_shape() -> None:
    large, small = Shape(1, 1, "H100"), Shape(1, 0.25, "H100")
    q = queue(
        groups(candidate("big"), 1),
        groups(candidate("little"), 9, 9),
        groups(candidate("both"), 5),
        shapes={"big": [large], "little": [small], "both": [small, Shape(1, 1, "L4")]},
    )
    assert address(q.take(0, large)) == "big0"
    assert q.take(0, large) is None and q
    assert address(q.take(1, small)) == "little1"  # fewer processes can take it than the other
    assert {shape.gpus: d.groups for shape, d in q.demand().items()} == {0.25: 2, 1: 1}
    assert address(q.take(2, Shape(1, 1, "L4"))) == "both0"


def test_queue_peeks_at_the_next_candidate() -> None:
    q = queue(groups(candidate("a", 9000), 1, 1, 1), groups(candidate("b"), 1))
    q.take(0, CPU)
    assert q.after(0, CPU) is None  # two more of its own
    q.take(0, CPU)
    next_one = q.after(0, CPU)
    assert next_one is not None and next_one.name == "b"
    assert address(q.take(0, CPU)) == "a0"  # asking has changed nothing
    assert address(q.take(0, CPU)) == "b0"
    assert q.after(0, CPU) is None


def test_queue_returns_and_drops_work() -> None:
    q = queue(groups(candidate("a"), 1, 1), groups(candidate("b"), 1))
    taken = q.take(0, CPU)
    assert taken is not None
    q.put_back(taken, 0)
    # Whoever failed at it leaves it to others, and takes it again if there are none.
    assert address(q.take(0, CPU, alone=False)) == "a0"
    assert address(q.take(0, CPU, alone=False)) == "b0"
    assert q.take(0, CPU, alone=False) is None
    assert address(q.take(1, CPU, alone=False)) == address(taken)
    q.put_back(taken, 1)
    assert address(q.take(0, CPU, alone=True)) == address(taken)

    q = queue(groups(candidate("a"), 1, 1), groups(candidate("b"), 1))
    taken = q.take(0, CPU)
    assert taken is not None
    q.drop("a")
    q.put_back(taken, 0)
    assert address(q.take(0, CPU)) == "b0"
    assert not q and q.demand() == {}
