"""Values of a row by column name: what is missing, null or of the wrong type is noted with its place."""

import string
from typing import Any

from forecast.errors import listed, shortened
from forecast.inputs.files import Problems, SourceRow


def value_at(row: SourceRow, column: str, problems: Problems) -> Any:
    """The value of a column; dots reach into records. None, and a problem noted, where there is none."""
    value: Any = row.data
    for part in [column] if column in row.data else column.split("."):
        if not isinstance(value, dict) or part not in value:
            problems.add(row.where, f"column {column!r} is missing; the row has: {listed(row.columns)}")
            return None
        value = value[part]
    if value is None:
        problems.add(row.where, f"column {column!r} is null or an empty cell; fill it or remove the row")
    return value


def text_at(row: SourceRow, column: str, problems: Problems) -> str | None:
    """The text of a column; None, and a problem noted, where there is none."""
    return _checked(row, column, str, "text", problems)


def printed_at(row: SourceRow, column: str, problems: Problems) -> str | None:
    """A text or a number as text; None, and a problem noted, where there is neither."""
    return _checked(row, column, str | int | float, "a text or a number", problems)


def texts_at(row: SourceRow, column: str, problems: Problems) -> list[str] | None:
    """A list of texts or numbers as texts; None, and a problem noted, where there is none."""
    if (values := value_at(row, column, problems)) is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, str | int | float) for value in values):
        problems.add(row.where, f"column {column!r} holds {shortened(values)}, expected a list of texts")
        return None
    texts = [str(value) for value in values]
    return texts if all(_sound(row, text, problems) is not None for text in texts) else None


def rendered(row: SourceRow, template: str, problems: Problems) -> str | None:
    """A template over columns: `"Question: {question}"`; None, and problems noted, where one has no value."""
    parts: list[str | None] = []
    for literal, column, _, _ in string.Formatter().parse(template):
        parts += [literal] if column is None else [literal, printed_at(row, column, problems)]
    texts = [part for part in parts if part is not None]
    return "".join(texts) if len(texts) == len(parts) else None


def columns_in(template: str) -> list[str]:
    """The columns that a template uses."""
    return [column for _, column, _, _ in string.Formatter().parse(template) if column is not None]


def id_at(row: SourceRow, column: str, problems: Problems) -> str | None:
    """The value of an id column as text; None, and a problem noted, where there is none."""
    text = _checked(row, column, str | int, "a text or a whole number", problems)
    if text == "":
        problems.add(row.where, f"column {column!r} is empty, expected a text or a number that names the row")
        return None
    return text


def _checked(row: SourceRow, column: str, kinds: Any, expected: str, problems: Problems) -> str | None:
    if (value := value_at(row, column, problems)) is None:
        return None
    if not isinstance(value, kinds):
        problems.add(row.where, f"column {column!r} holds {shortened(value)}, expected {expected}")
        return None
    return _sound(row, str(value), problems)


def _sound(row: SourceRow, text: str, problems: Problems) -> str | None:
    # JSON can carry half of a surrogate pair (a text cut inside an emoji); no tokenizer and no file can.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        place = f"character {error.start + 1} of {shortened(text)}"
        problems.add(row.where, f"half a surrogate pair at {place}; cut the text elsewhere")
        return None
    return text
