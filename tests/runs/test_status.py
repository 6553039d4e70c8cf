"""The account of a run, against numbers worked out by hand with a clock that stands until it is moved."""

import json
import random
from pathlib import Path

import pytest
from watched import TOKENS_A_UNIT, Clock, plan_of, receipt, units_of

from forecast.plan import Failure
from forecast.runs.status import RunStatus, new_run_id
from forecast.runs.throughput import RecentRate


def by_name(status: RunStatus) -> dict[str, dict]:
    return {record["candidate"]: record for record in status.as_record()["candidates"]}


def test_numbers_of_a_run_with_a_small_and_a_large_model(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"small": 100, "large": 1000})  # 2,000 and 20,000 FLOPs a unit
    small, large = units_of(plan, "small"), units_of(plan, "large")
    clock = Clock(100.0)
    wall = Clock(1_800_000_000.0)
    status = RunStatus(plan, {small[0].address}, run="r", job="j", clock=clock, wall=wall)
    start = status.as_record()
    assert (start["units"], start["committed"], start["already_done"]) == (8, 1, 1)
    assert start["tokens_per_second"] is start["seconds_left"] is start["actors"] is None
    assert (start["state"], start["left_by"], start["run"], start["job"]) == ("running", "flops", "r", "j")
    assert start["started_at"] == start["updated_at"] == "2027-01-15T08:00:00.000+00:00"

    clock.now = 105.0
    status.started([*small[1:], *large], 2)
    clock.now = 110.0  # the actors are up; nothing before counts
    status.handed_out([small[1]], 0)
    status.handed_out([large[0]], 1)
    assert [r["state"] for r in status.as_record()["candidates"]] == ["scoring", "scoring"]
    clock.now = 114.0
    status.committed(small[1], receipt(12))
    # 12 tokens in 4 s; 2,000 FLOPs in 4 s, and 2 * 2,000 + 4 * 20,000 left.
    assert status.tokens_per_second() == pytest.approx(3.0)
    assert status.seconds_left() == pytest.approx(84_000 / 500)
    own = by_name(status)["small"]
    assert (own["state"], own["committed"], own["already_done"], own["units"]) == ("waiting", 2, 1, 4)
    assert (own["tokens_per_second"], own["seconds_left"]) == (3.0, None), "nobody is on it"
    assert by_name(status)["large"]["tokens_per_second"] is None

    clock.now = 115.0  # the clock of the run goes on with the large one
    assert status.seconds_left() == pytest.approx(84_000 / 400)
    clock.now = 120.0
    status.handed_out([small[2]], 0)
    clock.now = 122.0
    assert by_name(status)["small"]["seconds_left"] == pytest.approx(4_000 / (2_000 / 6))
    status.committed(small[2], receipt(8))
    own = by_name(status)["small"]
    assert own["tokens_per_second"] == round(20 / 6, 3), "the five seconds of waiting do not count"
    clock.now = 130.0
    status.committed(large[0], receipt(100))
    assert status.tokens_per_second() == pytest.approx(120 / 20)
    assert status.seconds_left() == pytest.approx(62_000 / (24_000 / 20))

    clock.now = 200.0  # no machine for more than a minute
    assert status.tokens_per_second() == pytest.approx(120 / 20)
    status.handed_out([small[3]], 0)
    clock.now, wall.now = 201.0, 1_800_000_101.0
    status.committed(small[3], receipt(10))
    record = status.as_record()
    done = by_name(status)["small"]
    assert (done["state"], done["committed"], done["seconds_left"]) == ("done", 4, 0.0)
    assert record["states"] == {"waiting": 1, "scoring": 0, "done": 1, "failed": 0}
    assert (record["committed"], record["tokens_read"], record["seconds"]) == (5, 130, 101.0)
    assert record["updated_at"] == "2027-01-15T08:01:41.000+00:00"
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_work_of_unknown_size_is_estimated_by_tokens(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"known": 1_000_000, "unknown": None}, units=2)
    clock = Clock()
    status = RunStatus(plan, (), clock=clock)
    first = units_of(plan, "known")[0]
    status.handed_out([first], 0)
    clock.now = 2.0
    status.committed(first, receipt(9))
    assert status.as_record()["left_by"] == "tokens"
    assert status.seconds_left() == pytest.approx(3 * TOKENS_A_UNIT / (TOKENS_A_UNIT / 2))

    # Only work that is still to be done must be of known size.
    done = {unit.address for unit in units_of(plan, "unknown")}
    assert RunStatus(plan, done).as_record()["left_by"] == "flops"


def test_retries_restarts_and_failures(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"good": 1, "bad": 1, "aside": 1})
    early = [
        Failure("candidate", "aside", "it is in quarantine"),
        Failure("candidate", "gone", "no model folder"),
        Failure("task", "u", "no such file"),
    ]
    clock = Clock()
    status = RunStatus(plan, (), early, clock=clock)
    records = by_name(status)
    assert list(records) == ["good", "bad", "aside", "gone"]
    assert (records["aside"]["state"], records["aside"]["error"]) == ("failed", "it is in quarantine")
    assert (records["gone"]["units"], records["gone"]["candidate_id"]) == (0, None)
    assert records["gone"]["tokens_per_second"] is records["gone"]["seconds_left"] is None

    good, bad = units_of(plan, "good"), units_of(plan, "bad")
    status.handed_out(bad[:2], 0)
    status.handed_out(good[:1], 1)
    clock.now = 3.0
    status.restarted(0, "it died")
    status.retried(bad[:2], "it died")
    clock.now = 10.0
    status.committed(good[0], receipt(50))
    # What is given up is no work any more; what is set aside never was.
    assert status.seconds_left() == pytest.approx((3 + 4) * 10)
    status.handed_out(bad[:2], 0)
    status.gave_up(Failure("candidate", "bad", "it died again"))
    records = by_name(status)
    assert (records["bad"]["state"], records["bad"]["retries"], records["bad"]["error"]) == (
        "failed",
        1,
        "it died again",
    )
    assert status.seconds_left() == pytest.approx(3 * 10)
    status.gave_up(Failure("candidate", "bad", "it died again"))  # said twice, it goes away once
    assert status.seconds_left() == pytest.approx(3 * 10)
    record = status.as_record()
    assert (record["retries"], record["restarts"]) == (1, 1)
    assert record["states"] == {"waiting": 1, "scoring": 0, "done": 0, "failed": 3}

    # Another actor was still at it: what it brings is kept in the account, and the candidate stays failed.
    status.committed(bad[3], receipt(50))
    assert (by_name(status)["bad"]["committed"], by_name(status)["bad"]["state"]) == (1, "failed")
    status.ended("done")
    clock.now = 100.0
    record = status.as_record()
    assert (record["state"], record["seconds_left"], record["tokens_per_second"]) == ("done", 0.0, 10.0)


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_an_end_before_the_end(tmp_path: Path, state: str) -> None:
    plan = plan_of(tmp_path, {"a": 1})
    clock = Clock()
    status = RunStatus(plan, (), clock=clock)
    status.handed_out(plan.units[:2], 0)
    clock.now = 2.0
    status.committed(plan.units[0], receipt(6))
    status.ended(state, "why")  # type: ignore[arg-type]
    clock.now = 60.0
    record = status.as_record()
    assert (record["state"], record["error"], record["seconds_left"]) == (state, "why", None)
    assert record["tokens_per_second"] == 3.0, "nobody works any more"
    assert record["states"]["waiting"] == 1


def test_one_model_under_two_names_is_one_candidate(tmp_path: Path) -> None:
    same = [{"name": name, "source": "fake://7"} for name in ("one", "two")]
    plan = plan_of(tmp_path, {}, candidates=same)
    status = RunStatus(plan, ())
    (record,) = status.as_record()["candidates"]
    assert (record["candidate"], record["also"], record["units"]) == ("one", ["two"], 4)
    status.gave_up(Failure("candidate", "two", "broken"))
    assert status.as_record()["states"]["failed"] == 1


def test_a_group_of_units_counts_its_time_once(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"a": 1})
    clock = Clock()
    status = RunStatus(plan, (), clock=clock)
    status.handed_out(plan.units[:2], 0)
    clock.now = 1.0
    status.handed_out(plan.units[2:], 1)
    clock.now = 4.0
    for unit in plan.units:
        status.committed(unit, receipt(10))
    clock.now = 9.0
    assert status.tokens_per_second() == pytest.approx(10.0)
    assert status.seconds_left() == 0.0


def reference_rate(commits: list[tuple[float, float]], now: float) -> float:
    """Of commits at least a second apart: the longer of five minutes and eight commits."""
    marks = [(0.0, 0.0), *commits]
    last = commits[-1][0]
    by_time = max((i for i, (at, _) in enumerate(marks) if at <= last - 300), default=0)
    begin = min(by_time, max(0, len(marks) - 9))
    return sum(cost for _, cost in marks[begin + 1 :]) / (now - marks[begin][0])


@pytest.mark.parametrize("gap", [1.0, 20.0, 200.0])
def test_the_pace_is_that_of_late(gap: float) -> None:
    dice = random.Random(5)
    pace, commits, at = RecentRate(), [], 0.0
    assert pace.rate(10.0) is None
    for _ in range(700):
        at += dice.uniform(1.0, 2.0) * gap
        commits.append((at, dice.uniform(1.0, 5.0)))
        pace.add(*commits[-1])
        now = at + dice.uniform(0.0, 2.0) * gap
        assert pace.rate(now) == pytest.approx(reference_rate(commits, now), rel=1e-9)


def test_the_pace_of_many_small_units_takes_little_memory() -> None:
    pace = RecentRate()
    for i in range(400_000):
        pace.add(i / 1000, 1.0)
    assert pace.rate(400.0) == pytest.approx(1000.0, rel=1e-3)
    assert len(pace._marks) < 1000
    for i in range(4000):  # ten times slower
        pace.add(400 + i / 10, 10.0)
    assert pace.rate(800.0) == pytest.approx(100.0, rel=0.01)


def test_start_up_is_no_part_of_the_rate(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"a": 1}, units=6)
    clock = Clock()
    status = RunStatus(plan, (), clock=clock)
    status.handed_out(plan.units[:2], 0)
    clock.now = 60.0  # imports and weights
    assert status.seconds_left() is None
    clock.now = 64.0
    for unit in plan.units[:2]:  # scored together, 2 seconds each
        status.committed(unit, receipt(10, seconds=2.0))
    assert status.seconds_left() == pytest.approx(4 * 2.0)
    status.handed_out(plan.units[2:3], 0)
    clock.now = 67.0
    status.committed(plan.units[2], receipt(10, seconds=3.0))
    assert status.seconds_left() == pytest.approx(3 * 7.0 / 3)


def test_run_ids_sort_by_time() -> None:
    first, second = new_run_id(1_800_000_000.0), new_run_id(1_800_000_001.0)
    assert first < second and first.startswith("20270115T080000Z-")
    assert new_run_id(0.0) != new_run_id(0.0)
