"""A warehouse is built again exactly where something that it follows from has changed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from lakes import config_of, solutions, tell

from forecast.plan import Failure, Plan, make_plan
from forecast.warehouse import current
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse, warehouse_path
from forecast.warehouse.current import build_unless_current

FAILURE = Failure("candidate", "c", "broken")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    made = make_plan(config_of(tmp_path, {"t": solutions("1", "2")}, {"a": "fake://1", "b": "fake://2"}))
    tell(made, lambda unit, t: [{"logprob": -1.0, "n_bytes": 1}])
    return made


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    found: list[Plan] = []

    def build(plan: Plan, failures: tuple[Failure, ...] = ()) -> list[Failure]:
        found.append(plan)
        return build_warehouse(plan, failures)

    monkeypatch.setattr(current, "build_warehouse", build)
    return found


def test_nothing_changed_leaves_the_file_and_remembers_what_failed(plan: Plan, builds: list[Plan]) -> None:
    first = build_unless_current(plan, [FAILURE])
    assert build_unless_current(plan, [FAILURE]) == first and FAILURE in first
    assert len(builds) == 1
    with open_warehouse(plan.config.output) as db:
        assert db.execute("SELECT count(*) FROM candidates").fetchall() == [(2,)]


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: Path(warehouse_path(plan.config.output)).unlink(),
        lambda plan: os.utime(warehouse_path(plan.config.output), ns=(1, 1)),
        lambda plan: os.utime(plan.path(plan.units[0]), ns=(1, 1)),
    ],
    ids=["no warehouse", "another warehouse", "another file of the lake"],
)
def test_a_change_builds_again(plan: Plan, builds: list[Plan], change: Callable[[Plan], object]) -> None:
    build_unless_current(plan)
    change(plan)
    build_unless_current(plan)
    assert len(builds) == 2


def test_other_failures_and_settings_build_again(plan: Plan, builds: list[Plan], tmp_path: Path) -> None:
    build_unless_current(plan)
    build_unless_current(plan, [FAILURE])
    assert len(builds) == 2
    ranking = plan.config.ranking.model_copy(update={"seed": 7})
    build_unless_current(make_plan(plan.config.model_copy(update={"ranking": ranking})))
    assert len(builds) == 3
