"""Expert trajectories: a prompt and an expert-written solution, loaded and checked."""

import hashlib
import string
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from forecast.config import TrajectorySource
from forecast.inputs.rows import Problems, Row, read_rows


@dataclass(frozen=True)
class Trajectory:
    """One prompt and one text that continues it; the unit that a candidate reads."""

    task: str
    instance_id: str
    expert: str
    prompt: str
    solution: str


def load_trajectories(source: TrajectorySource) -> list[Trajectory]:
    """All trajectories of one source, in file order.

    Without an id column an instance is named by a hash of its prompt, so that solutions of several experts to one
    prompt meet under one id whatever the order of their files.

    Raises:
        InputError: unreadable lines, missing columns, empty solutions, duplicate instances; names each line.
    """
    rows = read_rows(source)
    problems = Problems()
    columns = source.columns
    found: list[Trajectory] = []
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        prompt = text_of(row, source.prompt_template, columns.prompt, problems)
        solution = text_of(row, source.solution_template, columns.solution, problems)
        expert = source.expert if columns.expert is None else text_of(row, None, columns.expert, problems)
        instance = prompt_id(prompt or "") if columns.instance_id is None else id_of(row, columns.instance_id, problems)
        if prompt is None or solution is None or expert is None or instance is None:
            continue
        if not solution.strip():
            problems.add(row.where, f"the solution (column {columns.solution!r}) is empty; remove the row or fill it")
            continue
        if (first := seen.setdefault((expert, instance), row.where)) != row.where:
            what = f"id {instance!r}" if columns.instance_id else "the same prompt"
            problems.add(
                row.where,
                f"duplicate instance of expert {expert!r}: {what} stands at {first}; remove one"
                + ("" if columns.instance_id else ", or name an id column in columns.instance_id"),
            )
            continue
        found.append(Trajectory(source.task, instance, expert, prompt, solution))
    problems.raise_if_any()
    return found


def merge_sources(loaded: Iterable[tuple[str, list[Trajectory]]]) -> list[Trajectory]:
    """Trajectories of several sources of one task together.

    Raises:
        InputError: the same instance of the same expert comes from two sources.
    """
    problems = Problems()
    seen: dict[tuple[str, str, str], str] = {}
    merged = []
    for label, trajectories in loaded:
        for t in trajectories:
            if (first := seen.setdefault((t.task, t.expert, t.instance_id), label)) != label:
                problems.add(label, f"instance {t.instance_id!r} of task {t.task!r}, expert {t.expert!r}, is also in {first}")
            merged.append(t)
    problems.raise_if_any()
    return merged


def prompt_id(prompt: str) -> str:
    """Twelve hexadecimal digits that name a prompt."""
    return hashlib.blake2b(prompt.encode(), digest_size=6).hexdigest()


def value_at(row: Row, column: str, problems: Problems) -> Any:
    """The value of a column; dots reach into records. Notes a problem and returns None where it is missing."""
    if column in row.data:
        value = row.data[column]
    else:
        value = row.data
        for part in column.split("."):
            if not isinstance(value, dict) or part not in value:
                problems.add(row.where, f"column {column!r} is missing; the row has: {', '.join(map(str, row.data))}")
                return None
            value = value[part]
    if value is None:
        problems.add(row.where, f"column {column!r} is null")
    return value


def text_of(row: Row, template: str | None, column: str, problems: Problems) -> str | None:
    """The text of a column, or of a template over any columns."""
    if template is not None:
        values = {}
        for name in dict.fromkeys(field for _, field, _, _ in string.Formatter().parse(template) if field):
            values[name] = value_at(row, name, problems)
            if values[name] is None:
                return None
        parts = string.Formatter().parse(template)
        return "".join(text + (str(values[field]) if field else "") for text, field, _, _ in parts)
    value = value_at(row, column, problems)
    if value is not None and not isinstance(value, str):
        problems.add(row.where, f"column {column!r} holds {type(value).__name__}, expected text")
        return None
    return value


def id_of(row: Row, column: str, problems: Problems) -> str | None:
    """The value of an id column as text."""
    value = value_at(row, column, problems)
    return None if value is None else str(value)
