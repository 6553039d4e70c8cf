"""Small runs without Ray and without models: plans of made-up candidates, and lakes to order."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from forecast.config.schema import Config
from forecast.engines import load_engine
from forecast.engines.base import EngineFacts
from forecast.engines.encode import Unscored
from forecast.inputs.trajectories import Trajectory
from forecast.lake.files import write_unit
from forecast.plan import Plan, Unit
from forecast.scoring import TOKEN_ROW, ScoredUnit, score_units

# What a candidate makes of a trajectory: values of its token rows, or why it cannot read it.
Told = Sequence[Mapping[str, float]] | str


def solutions(*instances: str, expert: str = "human", text: str = " It is {}.") -> list[dict[str, str]]:
    """Rows of a trajectory file."""
    return [
        {"id": i, "expert": expert, "prompt": f"What is {i}?", "solution": text.format(i)} for i in instances
    ]


def config_of(
    folder: Path,
    tasks: Mapping[str, Sequence[Mapping[str, str]]],
    candidates: Mapping[str, str],
    choices: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    **settings: Any,
) -> Config:
    """A configuration of made-up candidates (name -> source) with its input files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)

    def file(name: str, rows: Iterable[Mapping[str, Any]]) -> str:
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    columns = {"prompt": "prompt", "solution": "solution", "instance_id": "id", "expert": "expert"}
    return Config.model_validate(
        {
            "name": "test",
            "output": str(folder / "out"),
            "engine": {"kind": "fake"},
            "candidates": [{"name": name, "source": source} for name, source in candidates.items()],
            "trajectories": [
                {"task": task, "path": file(f"solutions-{task}", rows), "columns": columns}
                for task, rows in tasks.items()
            ],
            "direct_evaluation": [
                {
                    "task": task,
                    "path": file(f"choices-{task}", rows),
                    "prompt_template": "{prompt}",
                    "choices": "options",
                    "answer": "answer",
                    "instance_id": "id",
                }
                for task, rows in (choices or {}).items()
            ],
            **settings,
        }
    )


def fill(plan: Plan, *, only: Iterable[str] | None = None) -> None:
    """Score a plan with its made-up candidates (or some of them) in this process."""
    done = plan.done()
    for unit in plan.units:
        if unit.address not in done and (only is None or unit.candidate.name in only):
            engine = load_engine(unit.candidate, plan.config.engine)
            write_unit(plan.path(unit), unit, score_units([unit], engine, plan.config)[0], engine.facts)


def tell(
    plan: Plan, told: Callable[[Unit, Trajectory], Told], vocab_size: Mapping[str, int] | None = None
) -> None:
    """Write a plan's lake as if the candidates had said what `told` says.

    Args:
        told: values of the columns after `position`, one mapping per token; those not given are plain ones.
        vocab_size: by name of the candidate.
    """
    plain = {
        "token_id": 7,
        "n_bytes": 1,
        "logprob": -1.0,
        "entropy": 1.0,
        "rank": 2,
        "ties": 0,
        "top1_logprob": -0.5,
    }
    for unit in plan.units:
        rows, unscored = [], []
        for t in unit.shard.trajectories:
            answer = told(unit, t)
            if isinstance(answer, str):
                unscored.append(Unscored(t, answer))
                continue
            place = {
                "candidate_id": unit.candidate.candidate_id,
                "task": t.task,
                "expert": t.expert,
                "instance_id": t.instance_id,
            }
            told_rows = [{**place, "position": i, **plain, **values} for i, values in enumerate(answer)]
            rows += [{"top1_id": _first_choice(row), **row} for row in told_rows]
        scored = ScoredUnit(
            pl.DataFrame(rows, schema=TOKEN_ROW), tuple(unscored), tokens_read=10, seconds=0.5
        )
        size = (vocab_size or {}).get(unit.candidate.name, 1000)
        facts = EngineFacts(size, parameters=1_000, context_length=None, device="none", versions={})
        write_unit(plan.path(unit), unit, scored, facts)


def _first_choice(row: Mapping[str, Any]) -> int:
    """An id that goes with the row's rank."""
    return int(row["token_id"]) if row["rank"] == 1 else int(row["token_id"] == 0)
