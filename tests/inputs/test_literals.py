"""Numbers and JSON that only look right are refused."""

import math
from typing import Any

import pytest

from forecast.inputs.literals import number_of, parse_json, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("12", 12), ("-3.5", -3.5), ("+.5", 0.5), ("7.", 7), (" 4 ", 4), ("1e-3", 1e-3), ("2E+5", 2e5)),
        *(("inf", math.inf), ("-Infinity", -math.inf), ("007", 7)),
    ],
)
def test_decimal_numbers(text: str, value: float) -> None:
    assert parse_number(text) == number_of(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1_000",
            "1_0.5",
            "1e1_0",
            "１２",
            "٣",
            "१२",
            "²",
            "1,5",
            "1 000",
            "1'000",
            "0x10",
            "0b1",
            "1e",
            "e5",
        ),
        *("", "-", ".", "--1", "5%", "½", "−5", "1\u00a0000", "in_f", "nan5"),
    ],
)
def test_texts_that_are_no_numbers(text: str) -> None:
    assert math.isnan(number_of(text))
    with pytest.raises(ValueError, match="is not a number"):
        parse_number(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            '{"a": 1, "a": 1}',
            '{"a": 1, "b": 2, "a": 3}',
            '[{"x": {"y": 1, "y": null}}]',
            r'{"a": 1, "\u0061": 2}',
        ),
        *('{"": 1, "": 2}', '{"a": {"a": 1}, "a": 2}', '{"results": {}, "results": {}}', b'{"a": 1, "a": 2}'),
        *('[1, {"k": [], "k": []}]', '{"a": {"b": {"c": 1, "c": 1}}}'),
    ],
)
def test_keys_given_twice(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"the key '.*' is given twice"):
        parse_json(text)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000, "1" * 5000, b"\xff"]
)
def test_what_cannot_be_read_is_one_kind_of_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize("value", [{"a": [1, {"a": None}], "b": "a"}, [], 1.5, "x"])
def test_other_json_is_as_written(value: Any) -> None:
    import json

    assert parse_json(json.dumps(value)) == value
