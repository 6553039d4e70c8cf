"""Earlier nights, read from their reports."""

from collections.abc import Sequence
from datetime import date as Date
from datetime import timedelta
from pathlib import PurePosixPath

from forecast import storage
from forecast.nightly.records import Night, is_date, read_night

# Nights that are compared with and plotted; reading more of them would take longer every night.
MOST = 100


def reports_folder(output: str) -> str:
    """Where reports lie, one folder for each night."""
    return storage.join(output, "reports")


def reported_nights(output: str) -> dict[str, str]:
    """Dates (YYYY-MM-DD) of all reports, ascending, each with its `night.json`."""
    paths = storage.list_files(reports_folder(output), "night.json")
    found = {PurePosixPath(path).parent.name: path for path in paths}
    return {date: found[date] for date in sorted(found) if is_date(date)}


def nights_before(output: str, date: str) -> tuple[Night, ...]:
    """The last hundred nights before a date that have a report, the oldest first.

    Raises:
        InputError: a report's record is damaged.
    """
    paths = [path for night, path in reported_nights(output).items() if night < date]
    return tuple(read_night(path) for path in paths[-MOST:])


def missed_nights(before: Sequence[Night], date: str) -> tuple[str, ...]:
    """The nights between the last report and this one."""
    if not before:
        return ()
    first = Date.fromisoformat(before[-1].date)
    days = (Date.fromisoformat(date) - first).days
    return tuple((first + timedelta(days=n)).isoformat() for n in range(1, days))
