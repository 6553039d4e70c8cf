"""The plan as a document: the record's numbers, a dash for what is unknown, names as they are."""

import io
from typing import Any

from rich.console import Console

from forecast.report.document import Table
from forecast.report.format import MISSING
from forecast.report.terminal import render
from forecast.runs.records import plan_document

A = {
    "candidate": "a",
    "dtype": "float32",
    "parameters": None,
    "units": 6,
    "done": 3,
    "estimated_tokens": 12345,
    "estimated_flops": None,
}
B = {
    "candidate": "b",
    "dtype": "bfloat16",
    "parameters": 134_515_008,
    "units": 6,
    "done": 0,
    "estimated_tokens": 7,
    "estimated_flops": 1.25e12,
}
PLAN = {
    "name": "run",
    "output": "/out",
    "window": "last-1000-tokens",
    "units": 12,
    "done": 3,
    "tasks": {"t": 40},
    "direct_evaluation": {},
    "candidates": [A, B],
    "notes": [],
}


def printed(**changes: Any) -> str:
    console = Console(file=io.StringIO(), width=250)
    console.print(render(plan_document({**PLAN, **changes})))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_unknown_numbers_are_dashes() -> None:
    (table,) = (p for p in plan_document(PLAN).sections[0].parts if isinstance(p, Table))
    assert table.cells() == [
        ["a", "float32", MISSING, "6", "3", "12,345", MISSING],
        ["b", "bfloat16", "135M", "6", "0", "7", "1.2e+12"],
    ]


def test_totals_tasks_and_output_are_printed() -> None:
    text = printed()
    assert "Plan of run: 3 of 12 units done" in text
    assert "tasks: t (40 trajectories); window: last-1000-tokens" in text
    assert "direct evaluation" not in text
    assert "direct evaluation: q (5 items)" in printed(direct_evaluation={"q": 5})
    assert "tasks: none" in printed(tasks={}, candidates=[])


def test_names_in_square_brackets_are_printed_as_they_are() -> None:
    text = printed(
        name="[/run]", candidates=[{**A, "candidate": "[bold]"}], tasks={"[t]": 1}, output="/[out]"
    )
    assert all(name in text for name in ("[bold]", "Plan of [/run]", "[t] (1", "/[out]"))
