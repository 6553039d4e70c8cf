"""Numbers of all options, read as in files: Python alone takes 1_000, digits of other scripts and NaN."""

import math
from functools import partial
from typing import Any

import typer
from typer.core import TyperGroup

from forecast.inputs.literals import parse_number


class PlainNumbers(TyperGroup):
    """A group whose commands refuse such texts, whatever the option."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for command in self.commands.values():
            for option in command.params:
                # Of the ways from text to number this one is in every version of typer.
                option.process_value = partial(_checked, option.process_value, option)  # type: ignore[method-assign]


def _checked(process_value: Any, option: Any, context: Any, given: Any) -> Any:
    found = process_value(context, given)
    several = isinstance(found, list | tuple)
    for text, number in zip(given, found, strict=True) if several and given else [(given, found)]:
        if isinstance(text, str) and isinstance(number, int | float) and not isinstance(number, bool):
            try:
                plain = math.isfinite(parse_number(text))
            except ValueError:
                plain = False
            if not plain:
                raise typer.BadParameter(f"{text!r} is not a plain number", context, param=option)
    return found
