"""The comparison of benchmarks: what counts as worse, and what the check answers with."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import check


def ranking_record(sparse: float = 20.0, svm: float = 60.0, cpu: str = "one", speed: float = 1.0) -> Any:
    """Peers that take so many times our time, on a machine of a speed."""
    peers = {"sparse-3": {"ratio": sparse}, "ranksvm-rbf": {"ratio": svm}}
    whole = {"1 workers": 100 / speed, "2 workers": 60 / speed}
    fold = {"permutations": 200, "peers": peers}
    return {"machine": {"cpu": cpu}, "one_fold": fold, "whole_seconds": whole}


def answer(folder: Path, committed: Any, fresh: Any) -> tuple[int, list[str]]:
    for place, record in (("committed", committed), ("fresh", fresh)):
        (folder / place).mkdir()
        (folder / place / "ranking.json").write_text(json.dumps(record))
    said: list[str] = []
    return check.check(folder / "fresh", folder / "committed", 0.25, said.append), said


def test_a_share_beyond_the_tolerance_is_named_and_fails(tmp_path: Path) -> None:
    code, said = answer(tmp_path, ranking_record(), ranking_record(sparse=10.0))
    assert code == 1
    (line,) = (line for line in said if "WORSE" in line)
    assert "sparse-3, 200 permutations: ours / one at a time: 0.1, committed 0.05, +100%" in line


def test_a_slower_machine_is_no_regression(tmp_path: Path) -> None:
    code, said = answer(tmp_path, ranking_record(), ranking_record(cpu="other", speed=0.1))
    assert code == 0 and not any("WORSE" in line for line in said)
    assert "  other conditions: cpu: other, committed one" in said


def test_the_tolerance_is_the_limit_of_growth() -> None:
    committed = {"a": 0.4, "b": 0.4, "c": 0.4, "gone": 1.0}
    fresh = {"a": 0.49, "b": 0.51, "c": 0.8, "new": 9.0}
    assert [line.partition(":")[0] for line in check.worse(committed, fresh, 0.25)] == ["c", "b"]


def test_what_is_not_measured_any_more_is_named(tmp_path: Path) -> None:
    fresh = ranking_record()
    del fresh["one_fold"]["peers"]["sparse-3"]
    code, said = answer(tmp_path, ranking_record(), fresh)
    assert code == 0 and "  not measured: sparse-3, 200 permutations: ours / one at a time" in said


def test_nothing_to_compare_is_no_success(tmp_path: Path) -> None:
    assert check.check(tmp_path, tmp_path, 0.25, lambda _: None) == 2


@pytest.mark.parametrize("name", ["statistics", "end_to_end", "ranking", "service"])
def test_shares_of_the_committed_records(name: str) -> None:
    shares = check.BENCHMARKS[name](json.loads((check.RESULTS / f"{name}.json").read_text()))
    assert len(shares) >= 2 and all(0 < share < 2 for share in shares.values())
