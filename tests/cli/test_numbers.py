"""Numbers of options: what only Python takes for one is refused, by every option of every command."""

from typing import Any

import pytest
import typer

from forecast.cli.main import app

ROOT: Any = typer.main.get_command(app)


def read(command: str, option: Any, text: str) -> Any:
    """The option's value of a text, or of several; None where it takes no such text."""
    given = (text,) if option.multiple else text
    context = typer.Context(ROOT.commands[command])
    try:
        found = option.process_value(context, given)
    except typer.BadParameter:
        return None
    return found[0] if option.multiple and found else found


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


NUMBERS = [
    (command, option, next(text for text in ("1", "0.6", "8501") if is_number(read(command, option, text))))
    for command in ROOT.commands
    for option in ROOT.commands[command].params
    if any(is_number(read(command, option, text)) for text in ("1", "0.6", "8501"))
]


def test_options_with_numbers_are_found() -> None:
    found = {(command, option.name) for command, option, _ in NUMBERS}
    assert {("rank", "folds"), ("corpora", "budget"), ("parity", "tolerance"), ("app", "port")} <= found
    assert len(found) > 20


@pytest.mark.parametrize(
    "text", ["1_0", "0_1", "１", "٠.9", "0.5_0", "1e1_0", "nan", "inf", "-inf", "infinity"]
)
def test_texts_that_only_python_takes_for_numbers_are_refused(text: str) -> None:
    taken = [(c, option.name) for c, option, _ in NUMBERS if is_number(read(c, option, text))]
    assert taken == []


def test_plain_numbers_are_taken_with_spaces_signs_and_exponents() -> None:
    for command, option, plain in NUMBERS:
        for text in (f" {plain} ", f"+{plain}"):
            assert read(command, option, text) in (read(command, option, plain), None), (command, option.name)
    assert [read(c, o, "6e-1") for c, o, _ in NUMBERS if (c, o.name) == ("diagnose", "min_k")] == [0.6]
