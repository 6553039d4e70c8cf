"""The record of a night: an exact round trip, and what is wrong with one that is damaged."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from nights import DAYS, EVIL, before, checkpoint, full_night, night, series

from forecast.config.nightly import DEFAULT_ALERTS
from forecast.errors import InputError
from forecast.nightly.alert_rules import judge
from forecast.nightly.records import (
    Broken,
    night_bytes,
    night_from_record,
    night_record,
    read_night,
    read_report,
)


def test_a_night_comes_back_from_its_record_exactly(tmp_path: Path) -> None:
    alerts = judge(full_night(), before(), DEFAULT_ALERTS)
    assert len(alerts) == 1
    path = tmp_path / "night.json"
    path.write_bytes(night_bytes(full_night(), alerts))
    again, alerts_again = read_report(str(path))
    assert again == full_night() == read_night(str(path))
    assert alerts_again == alerts
    assert night_bytes(again, alerts_again) == path.read_bytes()


def test_an_empty_night_and_odd_numbers_come_back() -> None:
    odd = (0.1 + 0.2, 1e-300, -0.0, 5e-324, 1.7976931348623157e308)
    for given in (
        night(0),
        night(0, values=series(list(odd))),
        night(0, config_=None) if False else night(1),
    ):
        again, alerts = night_from_record(json.loads(night_bytes(given, ())))
        assert again == given and alerts == ()
        assert [v.value.hex() for v in again.values] == [v.value.hex() for v in given.values]


def test_names_of_all_kinds_come_back() -> None:
    given = night(
        0, broken=(Broken(checkpoint(1, EVIL), EVIL, DAYS[0]),), failed=({"task": EVIL, "error": "ü"},)
    )
    assert night_from_record(json.loads(night_bytes(given, ())))[0] == given


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        night_bytes(night(0, values=series([float("nan")])), ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "its schema is 2, this version reads 1"),
        ({"schema": None}, "its schema is None"),
        ({"surprise": 1}, "surprise: "),
        ({"new": [{"run": "olmo"}]}, "new.0.step: "),
        ({"values": None}, "values: "),
        ({"runs": [1]}, "runs.0: "),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "night.json"
    path.write_text(json.dumps({**night_record(full_night(), ()), **change}))
    with pytest.raises(InputError, match=re.escape(str(path))) as error:
        read_night(str(path))
    assert words in str(error.value) and "remove its folder" in str(error.value)


def test_a_cut_record_is_named_and_a_missing_one_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "night.json"
    path.write_bytes(night_bytes(full_night(), ())[:-100])
    with pytest.raises(InputError, match="cannot be read as the record of a night"):
        read_night(str(path))
    path.write_text("[]")
    with pytest.raises(InputError, match="expected keys with values"):
        read_night(str(path))
    with pytest.raises(FileNotFoundError):
        read_night(str(tmp_path / "none.json"))
