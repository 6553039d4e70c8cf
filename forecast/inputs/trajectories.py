"""Expert trajectories: a prompt and an expert-written solution, loaded and checked."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from forecast.config.sources import TrajectorySource
from forecast.inputs.columns import columns_in, id_at, rendered, text_at
from forecast.inputs.files import Problems, SourceRow, read_rows


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

    Without an id column an instance is named by a hash of its prompt, so that solutions of several experts to
    one prompt meet under one id whatever the order of their files.

    Raises:
        InputError: unreadable lines, missing columns, empty solutions, duplicate instances; names each line.
    """
    return [trajectory for trajectory, _ in trajectory_rows(source)]


def trajectory_rows(source: TrajectorySource) -> list[tuple[Trajectory, SourceRow]]:
    """As `load_trajectories`, each with the row that it comes from."""
    problems = Problems()
    columns = source.columns
    found: list[tuple[Trajectory, SourceRow]] = []
    places: dict[tuple[str, str], str] = {}  # of each (expert, instance)
    for row in read_rows(source, _columns(source)):
        prompt = _text(row, source.prompt_template, columns.prompt, problems)
        solution = _text(row, source.solution_template, columns.solution, problems)
        expert = source.expert if columns.expert is None else text_at(row, columns.expert, problems)
        id_column = columns.instance_id
        instance = prompt_id(prompt or "") if id_column is None else id_at(row, id_column, problems)
        if prompt is None or solution is None or expert is None or instance is None:
            continue
        if not solution.strip():
            problems.add(row.where, "the solution is empty; remove the row or fill it")
            continue
        if (first := places.get((expert, instance))) is not None:
            what, also = f"id {instance!r}", ""
            if id_column is None:
                what, also = "the same prompt", ", or name an id column in columns.instance_id"
            fault = f"duplicate instance of expert {expert!r}: {what} stands at {first}; remove one{also}"
            problems.add(row.where, fault)
            continue
        places[expert, instance] = row.where
        found.append((Trajectory(source.task, instance, expert, prompt, solution), row))
    problems.raise_if_any()
    return found


def merge_sources(loaded: Iterable[tuple[str, list[Trajectory]]]) -> list[Trajectory]:
    """Trajectories of several sources of one task together.

    Args:
        loaded: each source's label, for messages, and its trajectories.

    Raises:
        InputError: the same instance of the same expert comes from two sources; names both and the prompt.
    """
    problems = Problems()
    merged: list[Trajectory] = []
    labels: dict[tuple[str, str, str], str] = {}
    for label, trajectories in loaded:
        for t in trajectories:
            key = (t.task, t.expert, t.instance_id)
            if key not in labels:
                labels[key] = label
                continue
            problems.add(
                label,
                f"duplicate instance {t.instance_id!r} of task {t.task!r} (prompt {t.prompt[:40]!r}): "
                f"expert {t.expert!r} has it in {labels[key]} too; remove one, or name the experts apart",
            )
        merged += trajectories
    problems.raise_if_any()
    return merged


def prompt_id(prompt: str) -> str:
    """Twelve hexadecimal digits that name a prompt."""
    return hashlib.blake2b(prompt.encode(), digest_size=6).hexdigest()


def _columns(source: TrajectorySource) -> list[str]:
    own = source.columns
    prompt = [own.prompt] if source.prompt_template is None else columns_in(source.prompt_template)
    solution = [own.solution] if source.solution_template is None else columns_in(source.solution_template)
    return [*prompt, *solution, *filter(None, (own.instance_id, own.expert, own.frontier_tokens))]


def _text(row: SourceRow, template: str | None, column: str, problems: Problems) -> str | None:
    return text_at(row, column, problems) if template is None else rendered(row, template, problems)
