"""Machines that die, processes that hang: the rest goes on, nothing is lost or doubled."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from driving import lake_rows, run_forecast, start_forecast, wait_for_files

Make = Callable[..., Path]

pytestmark = pytest.mark.slow  # machines come up, go down and are waited for


@pytest.fixture
def two_machines() -> Iterator[Any]:
    """A head with one core, and a second machine with another."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def test_loss_of_one_of_two_machines_keeps_all_rows(
    two_machines: Any, make_config: Make, tmp_path: Path
) -> None:
    candidates = {name: f"fake://{i}?delay=0.15" for i, name in enumerate(("a", "b", "c", "d"))}
    assert run_forecast("score", make_config(candidates, "one"))[0] == 0
    expected = lake_rows(tmp_path / "out-one" / "lake")

    config = make_config(candidates, "two", cluster={"actors": 2})
    lake = tmp_path / "out-two" / "lake"
    driver = start_forecast("score", config, "--json", "--address", two_machines.address)
    wait_for_files(lake, 3)
    two_machines.remove_node(two_machines.second, allow_graceful=False)
    out, err = driver.communicate(timeout=200)
    assert driver.returncode == 0, err
    assert json.loads(out)["done"] == 12
    assert lake_rows(lake).equals(expected)
    assert not list(lake.rglob(".*"))
    # The cluster belongs to others, and what is left of it must still be there.
    assert any(node["Alive"] for node in nodes(two_machines.address))


def nodes(address: str) -> list[dict[str, Any]]:
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        return list(ray.nodes())
    finally:
        ray.shutdown()


def test_hanging_actor_is_ended_at_its_deadline(make_config: Make, tmp_path: Path) -> None:
    config = make_config(
        {"quick": "fake://3", "stuck": "fake://1?delay=60"}, cluster={"actors": 2, "deadline_minutes": 0.1}
    )
    code, out, err = run_forecast("score", config, "--json")
    assert code == 3, err
    record = json.loads(out)
    done = {c["candidate"]: c["done"] for c in record["candidates"]}
    assert done == {"quick": 3, "stuck": 0}
    (failure,) = record["failed"]
    assert failure["candidate"] == "stuck"
    assert "not done after 0.1 minutes" in failure["error"] and "3 attempts" in failure["error"]
    assert not list((tmp_path / "out-run" / "lake").rglob(".*"))


def test_unit_that_needs_a_whole_machine_is_scheduled_first(make_config: Make, tmp_path: Path) -> None:
    """Sixteen GiB, all of which the large candidate reserves; the small ones wait for its end."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "memory": 16 << 30, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        sizes = {"small": 10_000_000, "other": 20_000_000, "large": 3_000_000_000}
        config = make_config(dict.fromkeys(sizes, "fake://1"))
        settings = yaml.safe_load(config.read_text())
        settings["candidates"] = [
            {"name": name, "source": f"fake://{i}?delay=0.1", "parameters": size}
            for i, (name, size) in enumerate(sizes.items())
        ]
        config.write_text(yaml.safe_dump(settings))
        code, out, err = run_forecast("score", config, "--json", "--address", cluster.address)
        assert code == 0, err
        assert json.loads(out)["done"] == 9
        ids = {c["candidate_id"]: c["candidate"] for c in json.loads(out)["candidates"]}
        files = sorted((tmp_path / "out-run" / "lake").rglob("*.parquet"), key=lambda p: p.stat().st_mtime_ns)
        assert [ids[path.parent.name] for path in files[:3]] == ["large"] * 3
    finally:
        cluster.shutdown()


def test_autoscaled_nodes_are_used(make_config: Make, tmp_path: Path) -> None:
    """Nobody has room at first; machines come because processes wait for them."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        refused = make_config({"a": "fake://1", "b": "fake://2"}, "refused")
        code, _, err = run_forecast("score", refused, "--address", cluster.address)
        assert code == 1 and "need 1 scoring process of 1 CPU" in err and "cluster.autoscaling" in err
        config = make_config({"a": "fake://1", "b": "fake://2"}, cluster={"actors": 2, "autoscaling": True})
        driver = start_forecast("score", config, "--json", "--address", cluster.address)
        wait_for_demand(cluster.address, 2)
        cluster.add_node(num_cpus=2)
        out, err = driver.communicate(timeout=200)
        assert driver.returncode == 0, err
        assert json.loads(out)["done"] == 6
    finally:
        cluster.shutdown()


def wait_for_demand(address: str, actors: int) -> None:
    """Until so many actors wait for room, which is what an autoscaler goes by."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        deadline = time.monotonic() + 60
        while (
            len([a for a in ray._private.state.actors().values() if a["State"] == "PENDING_CREATION"])
            < actors
        ):
            assert time.monotonic() < deadline, "no process asks for room"
            time.sleep(0.2)
    finally:
        ray.shutdown()
