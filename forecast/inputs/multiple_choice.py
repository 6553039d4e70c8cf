"""Multiple-choice items for direct evaluation: every option is read as a continuation of the prompt."""

import re
import string
from dataclasses import dataclass

from forecast.config.sources import ChoiceSource
from forecast.inputs.columns import columns_in, id_at, printed_at, rendered, texts_at
from forecast.inputs.files import Problems, SourceRow, read_rows
from forecast.inputs.trajectories import Trajectory, prompt_id


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
        InputError: unreadable lines, missing columns, an answer that is none of the options, empty or equal
            options, duplicate instances; names each line.
    """
    problems = Problems()
    items: list[ChoiceItem] = []
    places: dict[str, str] = {}  # of each instance
    for row in read_rows(source, _columns(source)):
        prompt = rendered(row, source.prompt_template, problems)
        options = _options(row, source, problems)
        if prompt is None or options is None:
            continue
        if len(options) < 2 or not all(o.strip() for o in options) or len(set(options)) < len(options):
            expected = "two or more different, non-empty options"
            problems.add(row.where, f"expected {expected}, got {options!r}; remove the row")
            continue
        answer = _answer(row, source, options, problems)
        if source.instance_id is None:
            instance: str | None = prompt_id("\x1f".join([prompt, *options]))
        else:
            instance = id_at(row, source.instance_id, problems)
        if answer is None or instance is None:
            continue
        if (first := places.get(instance)) is not None:
            problems.add(row.where, f"duplicate instance: {instance!r} stands at {first}; remove one")
            continue
        places[instance] = row.where
        items.append(ChoiceItem(source.task, instance, prompt, tuple(options), source.choice_prefix, answer))
    problems.raise_if_any()
    return items


def _columns(source: ChoiceSource) -> list[str]:
    options = [source.choices] if isinstance(source.choices, str) else source.choices
    others = filter(None, (source.answer, source.labels, source.instance_id))
    return [*columns_in(source.prompt_template), *options, *others]


def _options(row: SourceRow, source: ChoiceSource, problems: Problems) -> list[str] | None:
    texts: list[str] | None
    if isinstance(source.choices, str):
        texts = texts_at(row, source.choices, problems)
    else:
        columns = [printed_at(row, column, problems) for column in source.choices]
        found = [text for text in columns if text is not None]
        texts = found if len(found) == len(columns) else None
    if texts is None or source.choice_pattern is None:
        return texts
    options = []
    for text in texts:
        match = re.fullmatch(source.choice_pattern, text, flags=re.DOTALL)
        if match is None:
            fault = f"option {text!r} does not match choice_pattern {source.choice_pattern!r}"
            problems.add(row.where, fault)
            return None
        options.append(match.group(1).strip())
    return options


def _answer(row: SourceRow, source: ChoiceSource, options: list[str], problems: Problems) -> int | None:
    if not isinstance(source.choices, str) and source.answer in source.choices:
        return source.choices.index(source.answer)
    value = printed_at(row, source.answer, problems)
    if source.labels is None:
        labels: list[str] | None = list(string.ascii_uppercase[: len(options)])
    else:
        labels = texts_at(row, source.labels, problems)
    if value is None or labels is None:
        return None
    if len(labels) != len(options):
        fault = f"{len(labels)} labels in column {source.labels!r} for {len(options)} options"
        problems.add(row.where, fault)
        return None
    meanings = {
        "label": {i for i, label in enumerate(labels) if label == value},
        "text": {i for i, option in enumerate(options) if option == value},
        # Where the data has labels of its own a number is one of them: ARC counts "1" to "4".
        "index": {i for i in range(len(options)) if str(i) == value} if source.labels is None else set(),
    }
    kinds = meanings if source.answer_is is None else [source.answer_is]
    found = set().union(*(meanings[kind] for kind in kinds))
    if len(found) == 1:
        return found.pop()
    if found:
        fault = f"may be the label, text or index of several of {options!r}; set answer_is"
    else:
        fault = f"is the {source.answer_is or 'label, text or index'} of none of the options {options!r}"
    problems.add(row.where, f"answer {value!r} {fault}")
    return None
