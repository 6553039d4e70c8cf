"""The index over nights: `index.html` and `index.json` beside their reports, the newest first.

It grows by a night each time; nights that it lacks, as after a crash, are read from their reports, and
those whose reports are gone are left out. Nothing but these two files is written or removed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from forecast import storage
from forecast.nightly.answer import answers
from forecast.nightly.history import MOST, reported_nights, reports_folder
from forecast.nightly.records import Alert, Day, Night, read_report
from forecast.report import html
from forecast.report.document import Column, Document, Section, Table
from forecast.report.format import INTEGER
from forecast.report.records import frame_with
from forecast.safe_text import json_text
from forecast.storage.records import Count, checked, parsed_json

PAGE, RECORD = "index.html", "index.json"
SCHEMA: Literal[1] = 1


@dataclass(frozen=True)
class IndexedAlert:
    """An alert that stood on a night."""

    rule: str
    run: str | None
    text: str


@dataclass(frozen=True)
class IndexedNight:
    """A night in the index; links are relative to it. Without `answers` its report could not be read."""

    date: Day
    report: str
    record: str
    answers: tuple[str, ...] | None = None  # one for each watched run
    alerts: tuple[IndexedAlert, ...] = ()
    new: Count | None = None
    waiting: Count | None = None
    broken: Count | None = None


_COLUMNS = (
    Column("date", "night", link="report"),
    Column("answers", "answer"),
    Column("alerts", "alerts"),
    Column("new", "new", INTEGER),
    Column("waiting", "waiting", INTEGER),
    Column("broken", "broken", INTEGER),
)


def write_index(output: str, night: Night, alerts: Sequence[Alert]) -> str:
    """Write the index with tonight in it, each file whole or not at all; returns the page's path."""
    folder = reports_folder(output)
    known = {one.date: one for one in _known(storage.join(folder, RECORD))}
    known[night.date] = _indexed(night, alerts)
    reports = reported_nights(output)
    unread = [date for date in reports if date not in known][-MOST:]
    known |= {date: _read(date, reports[date]) for date in unread}
    nights = [known[date] for date in sorted(reports.keys() & known.keys(), reverse=True)]
    record = {"schema": SCHEMA, "config": night.config, "nights": [asdict(one) for one in nights]}
    page = storage.join(folder, PAGE)
    storage.write_bytes(storage.join(folder, RECORD), (json_text(record, indent=1) + "\n").encode())
    storage.write_bytes(page, html.render(_document(night.config, nights)).encode())
    return page


def _known(path: str) -> tuple[IndexedNight, ...]:
    """Of the index that is there; of one that is damaged or of another version none."""
    if not storage.exists(path):
        return ()
    try:
        record = parsed_json(storage.read_bytes(path))
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            return ()
        found = checked(tuple[IndexedNight, ...], record.get("nights"))
        return tuple(replace(one, report=_links(one.date)[0], record=_links(one.date)[1]) for one in found)
    except ValueError:
        return ()


def _read(date: str, path: str) -> IndexedNight:
    try:
        return _indexed(*read_report(path))
    except Exception:  # a report that is damaged or goes away meanwhile; its own page is linked all the same
        return IndexedNight(date, *_links(date))


def _indexed(night: Night, alerts: Sequence[Alert]) -> IndexedNight:
    return IndexedNight(
        night.date,
        *_links(night.date),
        answers(night),
        tuple(IndexedAlert(alert.rule, alert.run, alert.text) for alert in alerts),
        len(night.new),
        len(night.waiting),
        len(night.broken),
    )


def _links(date: str) -> tuple[str, str]:
    return f"{date}/report.html", f"{date}/night.json"


def _document(config: str, nights: Sequence[IndexedNight]) -> Document:
    rows = [
        (
            one.date,
            one.report,
            "its report cannot be read" if one.answers is None else " ".join(one.answers),
            " ".join(f"{alert.rule}: {alert.text}" for alert in one.alerts) or None,
            one.new,
            one.waiting,
            one.broken,
        )
        for one in nights
    ]
    frame = frame_with(rows, "date:s report:s answers:s alerts:s new:i waiting:i broken:i")
    last = nights[0].date if nights else "none"
    return Document(
        f"{config}, nights",
        f"{len(nights)} nights with a report, the last one of {last}",
        (Section("", (Table(frame, _COLUMNS),)),),
    )
