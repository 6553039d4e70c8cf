"""Runs that are only told of: plans of made-up candidates, and a clock that stands until it is moved."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lakes import config_of, solutions

from forecast.config.schema import Config
from forecast.plan import Plan, Unit, make_plan

TOKENS_A_UNIT = 10  # as estimated: forty bytes


class Clock:
    """Seconds; `clock.now = 3.0` moves it."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def plan_of(folder: Path, parameters: Mapping[str, int | None], units: int = 4, **settings: Any) -> Plan:
    """Candidates by name, with their parameter counts; of each so many units of forty bytes of text."""
    rows = solutions(*"abcdefghijklmnopqrstuvwxyz"[:units], text=30 * "x")
    candidates = [
        {"name": name, "source": f"fake://{i}"} | ({} if count is None else {"parameters": count})
        for i, (name, count) in enumerate(parameters.items())
    ]
    config = config_of(folder, {"t": rows}, {"any": "fake://1"}, shard_trajectories=1)
    return make_plan(Config.model_validate({**config.model_dump(), "candidates": candidates, **settings}))


def units_of(plan: Plan, name: str) -> list[Unit]:
    """Of a candidate, in the order of the plan."""
    return [unit for unit in plan.units if unit.candidate.name == name]


def receipt(tokens: int, **more: Any) -> Any:
    """What a subscriber looks at of a receipt; by default no time before was start-up."""
    known = {"rows": 2, "tokens_read": tokens, "seconds": 3600.0, "unscored": (), "device": "none"}
    return SimpleNamespace(**{**known, **more})
