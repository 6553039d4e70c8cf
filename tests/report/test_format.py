"""Counts are short; what is missing is a dash."""

import pytest

from forecast.report.format import MISSING, count


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, MISSING),
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (134_515_008, "135M"),
        (999_499, "999k"),
        (999_999, "1M"),
        (7_615_616_512, "7.62B"),
        (1_000_000_000_000, "1T"),
    ],
)
def test_counts(value: int | None, expected: str) -> None:
    assert count(value) == expected
