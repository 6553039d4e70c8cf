"""Two machines as two `ray start` processes on loopback: a run over both gives the tables of a run on one."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from driving import lake_rows, run_forecast, start_forecast, title
from machines import Machines

Make = Callable[..., Path]

pytestmark = pytest.mark.slow  # a cluster comes up: a minute

# All that is computed; `run` and `units` say when and where.
TABLES = ("candidates", "instance_proxies", "task_proxies", "byte_task_proxies", "measured", "unscored")


def tables_of(output: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of a warehouse's tables."""
    (file,) = output.glob("*.duckdb")
    with duckdb.connect(str(file), read_only=True) as db:
        return {name: db.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in TABLES}


def test_run_on_two_machines_equals_one(make_config: Make, tmp_path: Path) -> None:
    candidates = {name: f"fake://{i}?delay=0.3" for i, name in enumerate(("a", "b", "c", "d"))}
    scores = tmp_path / "scores.csv"
    scores.write_text("candidate,task,metric,value\na,sums,acc,0.2\nb,sums,acc,0.4\nc,sums,acc,0.5\n")
    measured = [{"format": "csv", "path": str(scores)}]
    code, out, err = run_forecast("run", make_config(candidates, "one", measured_scores=measured), "--json")
    assert code == 0, err
    expected = json.loads(out)["rank"]

    config = make_config(candidates, "two", measured_scores=measured)
    with Machines() as machines:
        machines.start_head()
        machines.start_worker()
        arguments = ("run", config, "--json", "--address", machines.address)
        driver = start_forecast(*arguments, **machines.environment)
        at_work: set[int] = set()
        deadline = time.monotonic() + 120
        while len(at_work) < 2 and driver.poll() is None and time.monotonic() < deadline:
            for machine, actors in enumerate(machines.actors_by_machine()):
                # Ray puts the method that runs into the process's title.
                if any("ScoringActor.score" in title(actor) for actor in actors):
                    at_work.add(machine)
            time.sleep(0.02)
        assert at_work == {0, 1}, "both machines score"
        assert not machines.listeners_beyond_loopback()
        out, err = driver.communicate(timeout=120)
        assert driver.returncode == 0, err
        assert len(machines.node_ids()) == 2, "the cluster belongs to others and must still be there"

    assert lake_rows(tmp_path / "out-two" / "lake").equals(lake_rows(tmp_path / "out-one" / "lake"))
    two, one = tables_of(tmp_path / "out-two"), tables_of(tmp_path / "out-one")
    assert two == one and one["task_proxies"]
    assert json.loads(out)["rank"] == expected
