"""The index over nights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from house import House
from nights import ALERT, DAYS, EVIL, full_night, night

from forecast import storage
from forecast.nightly.index import write_index
from forecast.nightly.report import report_folder, write_report


def spend(output: str, day: int, **facts: Any) -> None:
    tonight = night(day, **facts)
    write_report(report_folder(output, tonight.date), tonight, (), ())
    write_index(output, tonight, ())


def dates(output: str) -> list[str]:
    record = json.loads(storage.read_bytes(storage.join(output, "reports", "index.json")))
    return [one["date"] for one in record["nights"]]


@pytest.fixture(params=["disk", "object store"])
def output(request: pytest.FixtureRequest) -> str:
    if request.param == "disk":
        return str(request.getfixturevalue("tmp_path"))
    return str(request.getfixturevalue("bucket")) + "/out"


def test_the_newest_night_comes_first_with_answer_alerts_and_links(output: str) -> None:
    spend(output, 0)
    spend(output, 1)
    write_report(report_folder(output, DAYS[2]), full_night(), (), [ALERT])
    page = write_index(output, full_night(), [ALERT])
    assert dates(output) == [DAYS[2], DAYS[1], DAYS[0]]
    record = json.loads(storage.read_bytes(storage.join(output, "reports", "index.json")))
    first = record["nights"][0]
    assert first["answers"][0].startswith("olmo: the newest, step 3,000")
    assert (first["alerts"][0]["rule"], first["new"], first["broken"]) == ("nothing_new", 2, 1)
    html = storage.read_bytes(page).decode()
    assert f'<a href="{DAYS[2]}/report.html">{DAYS[2]}</a>' in html and "nothing_new: olmo" in html
    assert html.index(DAYS[2]) < html.index(DAYS[1])


def test_a_night_again_changes_nothing_and_no_other_file_is_touched(tmp_path: Path) -> None:
    spend(str(tmp_path), 0)
    notes = tmp_path / "reports" / "notes.txt"
    notes.write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    spend(str(tmp_path), 0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before


def test_nights_that_it_missed_are_read_from_their_reports_and_lost_ones_left_out(tmp_path: Path) -> None:
    output = str(tmp_path)
    for day in range(3):
        spend(output, day)
    shutil.rmtree(tmp_path / "reports" / DAYS[0])
    write_report(report_folder(output, DAYS[3]), night(3), (), ())  # cut off before the index
    (tmp_path / "reports" / DAYS[1] / "night.json").write_text("{")
    spend(output, 4)
    assert dates(output) == [DAYS[4], DAYS[3], DAYS[2], DAYS[1]]
    (tmp_path / "reports" / "index.json").write_text("{")
    spend(output, 4)
    assert dates(output) == [DAYS[4], DAYS[3], DAYS[2], DAYS[1]]
    record = json.loads((tmp_path / "reports" / "index.json").read_text())
    assert (
        record["nights"][-1]["answers"] is None
        and "cannot be read" in (tmp_path / "reports" / "index.html").read_text()
    )


def test_text_of_others_is_escaped(tmp_path: Path) -> None:
    output = str(tmp_path)
    write_report(report_folder(output, DAYS[0]), night(0), (), ())
    evil = night(0, best_so_far=())
    page = write_index(output, evil, [ALERT.__class__("x", "x", EVIL, EVIL)])
    html = Path(page).read_text()
    assert "<script>" not in html and "\x1b" not in html


def test_nights_of_a_run_are_indexed(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.arrive(100)
    house.spend("2026-03-01")
    house.arrive(200)
    house.spend("2026-03-02")
    assert dates(house.config.output) == ["2026-03-02", "2026-03-01"]
