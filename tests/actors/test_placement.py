"""Placement: shares of GPUs by size and dtype, room machine by machine, errors before anything starts."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from actors.placement import Demand, Machine, Shape, check_room, has_room, lay_out, shapes_for
from forecast.config.schema import Config
from forecast.errors import CandidateError, ForecastError
from forecast.inputs.models.resolve import Candidate
from forecast.inputs.trajectories import Trajectory
from forecast.plan import Plan, Shard, Unit
from forecast.runs.events import Subscriber

GIB = 1 << 30


def config(engine: dict[str, Any] | None = None, **cluster: Any) -> Config:
    return Config.model_validate(
        {
            "name": "run",
            "output": "/nowhere",
            "engine": engine or {},
            "cluster": cluster,
            "candidates": [{"name": "a", "source": "/models/a"}],
            "trajectories": [{"task": "t", "path": "/t.jsonl"}],
        }
    )


def candidate(parameters: float | None, dtype: str = "bfloat16", engine: str = "torch") -> Candidate:
    settings = config().candidates[0]
    size = None if parameters is None else int(parameters)
    return Candidate("a", "id", settings, engine, dtype, "raw", "digest", size)


def gpus(shapes: tuple[Shape, ...]) -> dict[str | None, float]:
    return {shape.kind: shape.gpus for shape in shapes}


H100 = Machine(cpus=16, gpus=8, kind="H100", memory=900 * GIB)
L4 = Machine(cpus=8, gpus=4, kind="L4", memory=200 * GIB)
CPUS = Machine(cpus=32, memory=120 * GIB)


@pytest.mark.parametrize(
    ("parameters", "dtype", "share"),
    [
        (0.135e9, "bfloat16", 0.125),  # 0.25 GiB of weights: many fit, at most eight share a card
        (7e9, "bfloat16", 0.25),  # 13.0 * 1.1 + 3 = 17.3 of 80
        (7e9, "float32", 0.5),  # 26.1 * 1.1 + 3 = 31.7
        (30e9, "bfloat16", 1.0),  # 55.9 * 1.1 + 3 = 64.5
        (None, "bfloat16", 1.0),
    ],
)
def test_gpu_share_follows_size_and_dtype(parameters: float, dtype: str, share: float) -> None:
    (shape,) = shapes_for(candidate(parameters, dtype), config(), [H100, CPUS])
    assert shape.gpus == pytest.approx(share)
    assert shape.kind is None  # one kind only: any GPU will do
    assert "memory" not in shape.options()


def test_model_larger_than_every_gpu_is_refused_with_the_fix() -> None:
    with pytest.raises(
        CandidateError, match=r"130\.4 GiB in bfloat16, the largest GPU .* has 80 GiB.*tensor_parallel 2"
    ):
        shapes_for(candidate(70e9), config(), [H100, L4])
    with pytest.raises(CandidateError, match="set dtype bfloat16, or"):
        shapes_for(candidate(30e9, "float32"), config(), [H100])
    # A card that Ray has no name for, or one that was told.
    (shape,) = shapes_for(candidate(70e9), config(gpu_memory_gib=192), [H100])
    assert shape.gpus == 1
    (shape,) = shapes_for(candidate(70e9), config(), [Machine(cpus=8, gpus=8, kind="XPU-9")])
    assert shape.gpus == 1


def test_placement_on_two_kinds_of_gpus() -> None:
    both = [L4, H100]
    assert gpus(shapes_for(candidate(7e9), config(), both)) == {"L4": 1.0, "H100": 0.25}
    assert gpus(shapes_for(candidate(30e9), config(), both)) == {"H100": 1.0}
    told = config(gpu_memory_gib={"L4": 100})
    assert gpus(shapes_for(candidate(30e9), told, both)) == {"L4": 1.0, "H100": 1.0}
    (big,) = shapes_for(candidate(30e9), config(), both)
    assert big.options()["resources"] == {"accelerator_type:H100": 0.001}


def test_vllm_reserves_whole_gpus() -> None:
    vllm = config({"kind": "vllm", "vllm": {"tensor_parallel": 2}})
    (shape,) = shapes_for(candidate(70e9, engine="vllm"), vllm, [H100])
    assert shape.gpus == 2
    with pytest.raises(CandidateError, match="over 2 GPUs"):
        shapes_for(candidate(180e9, engine="vllm"), vllm, [H100])


def test_cpu_actors_reserve_memory_within_the_machine() -> None:
    (small,) = shapes_for(candidate(0.135e9, "float32"), config(), [CPUS])
    assert (small.gpus, small.memory) == (0, 4 * GIB)
    (large,) = shapes_for(candidate(70e9, "float32"), config(), [CPUS])
    assert large.memory == 120 * GIB
    assert large.serves(small) and not small.serves(large)
    for cpu_only in (config({"device": "cpu"}), config({"kind": "fake"})):
        (shape,) = shapes_for(candidate(1e9, engine=cpu_only.engine.kind), cpu_only, [H100])
        assert shape.gpus == 0


def test_configured_resources_override_the_estimate() -> None:
    told = config(gpus_per_actor=0.5, cpus_per_actor=2, resources={"fast_disk": 1})
    (shape,) = shapes_for(candidate(70e9), told, [L4])
    assert shape.options() == {"num_cpus": 2, "num_gpus": 0.5, "resources": {"fast_disk": 1}}
    assert not lay_out({shape: Demand(9, 1.0)}, [L4])
    with_disk = Machine(cpus=8, gpus=4, kind="L4", others=(("fast_disk", 3.0),))
    assert lay_out({shape: Demand(9, 1.0)}, [L4, with_disk])[shape] == 3


def test_capacity_is_counted_per_machine() -> None:
    shape = Shape(cpus=3)
    # Ten processors, of which no machine has three twice: two processes, not three.
    assert lay_out({shape: Demand(9, 1.0)}, [Machine(5), Machine(5)])[shape] == 2
    pair = Shape(cpus=1, gpus=2)
    assert lay_out({pair: Demand(9, 1.0)}, [Machine(8, 3), Machine(8, 1)])[pair] == 1
    third = Shape(cpus=1, gpus=0.3333)
    assert lay_out({third: Demand(9, 1.0)}, [Machine(8, 2)])[third] == 6
    # Two thirds lie on one card: half a card is left of the other, not of both.
    two_thirds = Shape(cpus=1, gpus=0.6)
    assert lay_out({two_thirds: Demand(9, 1.0)}, [Machine(8, 2)])[two_thirds] == 2


def test_each_shape_gets_one_actor_then_those_with_most_work() -> None:
    large, small = Shape(cpus=1, gpus=2), Shape(cpus=1, gpus=0.5)
    waiting = {small: Demand(100, 900.0), large: Demand(10, 100.0)}
    assert lay_out(waiting, [Machine(16, 4)]) == Counter({large: 1, small: 4})
    assert lay_out({large: Demand(1, 1.0)}, [Machine(16, 8)]) == Counter({large: 1})  # as many as groups
    assert lay_out(waiting, [Machine(16, 4)], limit=2) == Counter({large: 1, small: 1})
    # What runs keeps its place; where it holds all there is, the others wait.
    assert lay_out({large: Demand(10, 1.0)}, [Machine(16, 4)], running={small: 7}) == Counter()
    assert lay_out({large: Demand(10, 1.0)}, [Machine(16, 4)], running={small: 4}) == Counter({large: 1})
    # Work for processors leaves the GPU machine to those who need it.
    cpu = Shape(cpus=4)
    waiting = {cpu: Demand(1, 1e9), small: Demand(8, 1.0)}
    assert lay_out(waiting, [Machine(4, 2), Machine(4)]) == Counter({cpu: 1, small: 4})


def test_too_little_capacity_is_refused_before_the_start() -> None:
    pair = Shape(cpus=1, gpus=2)
    with pytest.raises(ForecastError, match=r"need 4 GPUs \(2 replicas x TP 2\), cluster has 3 GPUs"):
        check_room([pair], config(actors=2).cluster, [Machine(8, 3)])
    check_room([pair], config(actors=1).cluster, [Machine(8, 3)])
    check_room([pair], config(actors=2, autoscaling=True).cluster, [])
    with pytest.raises(
        ForecastError, match="need 1 scoring process of 4 CPUs, cluster has 0 GPUs and 2 CPUs"
    ):
        check_room([Shape(cpus=4)], config().cluster, [Machine(2)])


def test_shape_that_no_machine_has_is_refused() -> None:
    narrow = [Machine(4, 8, "L4"), Machine(64)]  # eight processors are nowhere near a GPU
    wanted = Shape(cpus=8, gpus=0.5)
    assert not has_room([wanted], config().cluster, narrow)
    assert has_room([wanted, Shape(cpus=4, gpus=0.5)], config().cluster, narrow)
    assert has_room([wanted], config(actors=1, autoscaling=True).cluster, narrow)


def test_candidate_that_fits_no_machine_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from actors import scheduler

    two_kinds = [Machine(8, 8, "L4", 200 * GIB), Machine(2, 8, "H100", 200 * GIB)]
    monkeypatch.setattr(scheduler, "machines", lambda: two_kinds)
    setup = config(cpus_per_actor=4)
    text = Trajectory("t", "1", "human", "", "text")
    small, large = (replace(candidate(n * 1e9), name=f"{n}B", candidate_id=f"{n}B") for n in (7, 30))
    units = tuple(Unit(c, Shard("trajectories", "t", (text,)), c.name) for c in (small, large))
    run = scheduler._Run(Plan(setup, (small, large), {}, {}, units, ()), units, Subscriber())
    assert run._units == [units[0]]
    (misfit,) = run._misfits
    assert misfit.name == "30B"
    assert misfit.error == ("candidate '30B': no machine of the cluster has 4 CPUs and 1 GPU (H100) to give")
    with pytest.raises(ForecastError, match="need 1 scoring process of 4 CPUs and 1 GPU"):
        scheduler._Run(Plan(setup, (large,), {}, {}, units[1:], ()), units[1:], Subscriber())


def test_subscribers_get_one_heartbeat_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from actors import scheduler

    beats: list[float] = []
    clock = iter((100.0, 100.01, 100.5, 101.0, 101.2, 101.99, 102.0))

    class Counting(Subscriber):
        def beat(self) -> None:
            beats.append(run._looked)

    monkeypatch.setattr(scheduler, "machines", lambda: [Machine(8)])
    text = Trajectory("t", "1", "human", "", "text")
    unit = Unit(candidate(1e9), Shard("trajectories", "t", (text,)), "address")
    run = scheduler._Run(Plan(config(), (unit.candidate,), {}, {}, (unit,), ()), (unit,), Counting())
    monkeypatch.setattr(scheduler.time, "monotonic", lambda: next(clock))
    for _ in range(7):
        run._look_at_the_clock()
    assert beats == [100.0, 101.0, 102.0]
