"""What the supervisor does about actors that die, with a made-up Ray and a made-up clock."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from driving import run_forecast
from ray.exceptions import (
    ActorUnavailableError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RuntimeEnvSetupError,
)

from actors import scheduler
from actors.death import cause_of
from actors.placement import Machine
from actors.scheduler import ScoringResult, score_plan
from actors.scoring_actor import Refusal
from forecast.config.loader import load_config
from forecast.errors import ForecastError
from forecast.plan import make_plan
from forecast.runs.events import Subscriber
from forecast.runs.status_file import read_runs

Make = Callable[..., Path]
Answer = Callable[
    [int, str], Any
]  # of an actor, by the order of starts, and a method; an exception is raised


@dataclass(frozen=True, eq=False)
class Ref:
    """What an actor was asked."""

    number: int
    name: str
    arguments: tuple[Any, ...]


class MadeUpRay:
    """Actors answer at once; a group takes a hundred seconds."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.now, self.starts, self.killed = answer, 0.0, list[float](), list[int]()

    def options(self, **_: Any) -> Any:
        return SimpleNamespace(remote=self.start)

    def start(self, config: Any) -> Any:
        number = len(self.starts)
        self.starts.append(self.now)

        def method(name: str) -> Any:
            def remote(*arguments: Any) -> Any:
                return Ref(number, name, arguments)

            return SimpleNamespace(remote=remote, options=lambda **_: SimpleNamespace(remote=remote))

        return SimpleNamespace(number=number, ready=method("ready"), score=method("score"))

    def wait(self, refs: Sequence[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        first = min(refs, key=lambda ref: ref.name != "ready")
        self.now += 100 if first.name == "score" else 1
        return [first], [ref for ref in refs if ref is not first]

    def get(self, ref: Any) -> Any:
        answer = self.answer(ref.number, ref.name)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Refusal):
            return answer
        return [SimpleNamespace(tokens_read=1)] * len(ref.arguments[0]) if ref.name == "score" else True

    def kill(self, handle: Any, no_restart: bool = True) -> None:
        self.killed.append(handle.number)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def score(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[MadeUpRay, ScoringResult | str, int]]:
    def run(answer: Answer, cores: int = 1, up: bool = True, **cluster: Any) -> Any:
        made_up, committed = MadeUpRay(answer), []
        monkeypatch.setattr(scheduler, "ray", made_up)
        monkeypatch.setattr(scheduler, "time", made_up)
        monkeypatch.setattr(scheduler, "RemoteScoringActor", made_up)
        monkeypatch.setattr(scheduler, "machines", lambda: [Machine(cpus=cores)])
        monkeypatch.setattr(scheduler, "own_node_is_up", lambda: up)
        candidates = {name: f"fake://{i}" for i, name in enumerate("abcd")}
        plan = make_plan(load_config(make_config(candidates, cluster=cluster)))
        subscriber = Subscriber()
        subscriber.committed = lambda unit, receipt: committed.append(unit.address)  # type: ignore[method-assign]
        try:
            result: Any = score_plan(plan, plan.units, subscriber)
        except ForecastError as error:
            result = str(error)
        assert len(committed) == len(set(committed))
        return made_up, result, len(committed)

    return run


def died(cause: str) -> RayError:
    """As Ray tells of an error in the creation of an actor."""
    frame = "\x1b[36mray::ScoringActor.__init__()\x1b[39m (pid=850, ip=10.0.0.7, actor_id=27)"
    text = f"The actor died because of an error raised in its creation task, {frame}\n  File\n{cause}"
    return RayActorError("27", text)


@pytest.mark.parametrize(("passes", "tries"), [(False, 1), (True, 3)])
def test_error_that_cannot_change_is_tried_once_and_another_three_times(
    score: Any, tmp_path: Path, passes: bool, tries: int
) -> None:
    asked: list[str] = []

    def answer(_: int, method: str) -> Any:
        asked.append(method)
        return Refusal("it has no chat template", passes) if method == "score" else None

    _, result, committed = score(answer)
    assert committed == 0 and len(result.failures) == 4
    assert asked.count("score") == 4 * tries
    held = [json.loads(path.read_text())["tries"] for path in (tmp_path / "out-run" / "quarantine").iterdir()]
    assert held == [tries] * 4


def test_actors_that_all_die_at_start_end_the_run_with_the_reason(score: Any) -> None:
    cause = "ModuleNotFoundError: No module named 'actors'"
    for cores in (1, 8):
        made_up, said, committed = score(lambda number, name: died(cause), cores)
        assert f"scoring processes die as they start: {cause} (on 10.0.0.7)" in said
        assert committed == 0 and len(made_up.starts) <= 3 * cores
        assert 30 <= made_up.now < 120


@pytest.mark.parametrize(
    "error",
    [RuntimeEnvSetupError("no pip"), OutOfMemoryError("no memory"), ActorUnavailableError("gone", None)],
)
def test_other_start_errors_are_reported_as_the_reason(score: Any, error: RayError) -> None:
    _, said, _ = score(lambda number, name: error)
    assert "scoring processes die as they start" in said and cause_of(error) in said


def test_machine_where_actors_die_backs_off_while_others_score(score: Any) -> None:
    def answer(number: int, name: str) -> Any:
        return died("no package") if number > 0 else True

    made_up, result, committed = score(answer, cores=2, attempts=1)
    assert (committed, result.failures) == (12, [])
    assert made_up.now > 1200 and len(made_up.starts) < 12
    assert made_up.starts[-1] - made_up.starts[-2] >= 100


def test_actor_lost_between_groups_is_replaced_at_once(score: Any) -> None:
    asked = {"ready": 0}

    def answer(number: int, name: str) -> Any:
        if number == 0 and name == "score":
            return died("killed")
        asked["ready"] += number == 0
        return died("killed") if number == 0 and asked["ready"] > 1 else True

    made_up, result, committed = score(answer)
    assert committed == 12 and not result.failures and len(made_up.starts) == 2


def test_end_of_local_ray_is_reported_as_the_reason(score: Any) -> None:
    _, said, committed = score(lambda number, name: True, up=False)
    assert "Ray has ended on this machine" in said and "issue the command again" in said and committed == 0


def test_cause_of_an_actor_death_is_one_line() -> None:
    system = RayActorError(
        "27",
        "The actor died unexpectedly before finishing this task.\n\tip: 10.0.0.8\nThe actor is dead because "
        "its worker process has died. Worker exit type: SYSTEM_ERROR. Some common causes include: (1)\nmore",
    )
    assert cause_of(system) == (
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR (on 10.0.0.8)"
    )
    assert cause_of(died("\x1b[31mImportError: x\x1b[0m")) == "ImportError: x (on 10.0.0.7)"
    assert cause_of(RayError()) == "RayError"


WITHOUT_PACKAGE = """
import sys
class WithoutPackage:
    def find_spec(self, name, path=None, target=None):
        if name == "actors":
            raise ModuleNotFoundError("No module named 'actors'")
if any("default_worker" in part for part in sys.orig_argv):
    sys.meta_path.insert(0, WithoutPackage())
"""


@pytest.mark.slow
def test_machines_without_the_package_end_the_run_and_name_it(make_config: Make, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_PACKAGE)
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    code, _, err = run_forecast("score", make_config({"a": "fake://1"}), PYTHONPATH=path)
    assert code == 1
    assert "scoring processes die as they start: ModuleNotFoundError: No module named 'actors' (on" in err
    (status,) = read_runs(str(tmp_path / "out-run"))
    assert status["state"] == "failed" and status["restarts"] <= 3 * (os.cpu_count() or 1)
