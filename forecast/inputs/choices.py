"""Multiple-choice items for direct evaluation: every option is read as a continuation of the prompt."""

import re
import string
from dataclasses import dataclass
from typing import Any

from forecast.config import ChoiceSource
from forecast.inputs.rows import Problems, Row, read_rows
from forecast.inputs.trajectories import Trajectory, id_of, prompt_id, text_of, value_at


@dataclass(frozen=True)
class ChoiceItem:
    """One question: the options as they follow the prompt, and the index of the right one."""

    task: str
    instance_id: str
    prompt: str
    options: tuple[str, ...]
    prefix: str
    answer: int

    def trajectories(self) -> list[Trajectory]:
        """One trajectory per option; the option's index stands where a trajectory has its expert."""
        return [
            Trajectory(self.task, self.instance_id, str(i), self.prompt, self.prefix + option)
            for i, option in enumerate(self.options)
        ]

    def lengths(self) -> list[int]:
        """Characters of each option without the separating prefix: the divisor of the per-character score."""
        return [len(option) for option in self.options]


def load_choices(source: ChoiceSource) -> list[ChoiceItem]:
    """All items of one source, in file order.

    Raises:
        InputError: unreadable lines, missing columns, an answer that is none of the options, empty or equal options,
            duplicate instances; names each line.
    """
    problems = Problems()
    items: list[ChoiceItem] = []
    seen: dict[str, str] = {}
    for row in read_rows(source):
        prompt = text_of(row, source.prompt_template, "", problems)
        options = _options(row, source, problems)
        if prompt is None or options is None:
            continue
        if len(options) < 2 or not all(options) or len(set(options)) < len(options):
            problems.add(row.where, f"expected two or more different, non-empty options, got {options!r}")
            continue
        answer = _answer(row, source, options, problems)
        default_id = prompt_id("\x1f".join([prompt, *options]))
        instance = default_id if source.instance_id is None else id_of(row, source.instance_id, problems)
        if answer is None or instance is None:
            continue
        if (first := seen.setdefault(instance, row.where)) != row.where:
            problems.add(row.where, f"duplicate instance: {instance!r} stands at {first}; remove one")
            continue
        items.append(ChoiceItem(source.task, instance, prompt, tuple(options), source.choice_prefix, answer))
    problems.raise_if_any()
    return items


def _options(row: Row, source: ChoiceSource, problems: Problems) -> list[str] | None:
    if isinstance(source.choices, str):
        values = value_at(row, source.choices, problems)
        if values is None:
            return None
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            problems.add(row.where, f"column {source.choices!r} holds {values!r}, expected a list of texts")
            return None
    else:
        values = [value_at(row, column, problems) for column in source.choices]
        if any(v is None for v in values):
            return None
    texts = [str(v) for v in values]
    if source.choice_pattern is None:
        return texts
    # The first group of the pattern is the option's text, e.g. "[A-E]\\)(.*)" turns "A)21 km" into "21 km".
    matches = [re.fullmatch(source.choice_pattern, text, flags=re.DOTALL) for text in texts]
    if not all(matches):
        bad = next(t for t, m in zip(texts, matches, strict=True) if m is None)
        problems.add(row.where, f"option {bad!r} does not match choice_pattern {source.choice_pattern!r}")
        return None
    return [m.group(1).strip() for m in matches if m]


def _answer(row: Row, source: ChoiceSource, options: list[str], problems: Problems) -> int | None:
    if not isinstance(source.choices, str) and source.answer in source.choices:
        return source.choices.index(source.answer)
    value: Any = value_at(row, source.answer, problems)
    if value is None:
        return None
    if isinstance(value, int) and 0 <= value < len(options):
        return value
    labels = value_at(row, source.labels, problems) if source.labels else list(string.ascii_uppercase)[: len(options)]
    if labels is None:
        return None
    names = [str(label) for label in labels]
    if str(value) in names[: len(options)]:
        return names.index(str(value))
    if value in options:
        return options.index(value)
    problems.add(row.where, f"answer {value!r} is none of the labels {names} and none of the options")
    return None
