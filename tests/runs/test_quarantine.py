"""The quarantine beside the lake: kept between runs, bound to files and ground, left on request."""

import json
from pathlib import Path
from typing import Any

import pytest

from forecast.config.schema import Config
from forecast.errors import InputError
from forecast.plan import Plan, make_plan
from forecast.runs.quarantine import Quarantine


def plan(tmp_path: Path, name: str = "bad", source: str = "fake://1?fail=nan", **settings: Any) -> Plan:
    (tmp_path / "t.jsonl").write_text('{"prompt": "p", "solution": "s"}\n')
    return make_plan(
        Config.model_validate(
            {
                "name": "run",
                "output": str(tmp_path / "out"),
                "engine": {"kind": "fake"},
                "candidates": [{"name": name, "source": source}, {"name": "good", "source": "fake://2"}],
                "trajectories": [{"task": "t", "path": str(tmp_path / "t.jsonl")}],
                **settings,
            }
        )
    )


def test_it_holds_until_files_or_ground_change(tmp_path: Path) -> None:
    first = plan(tmp_path)
    bad = first.candidates[0]
    assert Quarantine(first.config).of(first) == {}
    Quarantine(first.config).put(bad, "candidate 'bad': NaN", 3)

    renamed = plan(tmp_path, name="renamed")
    held = Quarantine(renamed.config).of(renamed)
    assert held.keys() == {bad.candidate_id}
    failure = held[bad.candidate_id].failure()
    assert (failure.subject, failure.name) == ("candidate", "renamed")
    assert "NaN" in failure.error and "after 3 tries" in failure.error and "--retry" in failure.error

    repaired = plan(tmp_path, source="fake://1")
    assert Quarantine(repaired.config).of(repaired) == {}
    other_ground = plan(tmp_path, cluster={"cpus_per_actor": 2})
    assert Quarantine(other_ground.config).of(other_ground) == {}
    # How many processes there are has nothing to do with it.
    assert Quarantine(plan(tmp_path, cluster={"actors": 2}).config).of(first).keys() == held.keys()


def test_it_ends_on_request(tmp_path: Path) -> None:
    first = plan(tmp_path)
    Quarantine(first.config).put(first.candidates[0], "error", 1)
    assert Quarantine(first.config).release(first) == 1
    assert Quarantine(first.config).release(first) == 0
    assert Quarantine(first.config).of(first) == {}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    first = plan(tmp_path)
    Quarantine(first.config).put(first.candidates[0], "error", 1)
    (path,) = (tmp_path / "out" / "quarantine").iterdir()
    for content in ("{", json.dumps({"error": "x"})):
        path.write_text(content)
        with pytest.raises(InputError, match=f"{path.name} is damaged"):
            Quarantine(first.config).of(first)
