"""The dated report of a night: `report.md`, `report.html` and `night.json`, the facts behind both.

The same night gives the same bytes: nothing in them comes from the clock, the machine or chance.
"""

from collections.abc import Sequence

from forecast import storage
from forecast.nightly.history import reports_folder
from forecast.nightly.records import Alert, Night
from forecast.nightly.report_content import document
from forecast.nightly.report_markdown import markdown
from forecast.nightly.report_page import report_page
from forecast.nightly.report_record import night_bytes

MARKDOWN, PAGE, RECORD = "report.md", "report.html", "night.json"


def report_folder(output: str, date: str) -> str:
    """Where the report of a night (YYYY-MM-DD) lies below a run's output; local or `s3://...`."""
    return storage.join(reports_folder(output), date)


def write_report(
    folder: str, night: Night, before: Sequence[Night], alerts: Sequence[Alert]
) -> tuple[str, ...]:
    """Write a night's report into its folder; each file whole or not at all, `night.json` last.

    A folder that has `night.json` has the whole report.

    Args:
        folder: see `report_folder`.
        before: earlier nights, oldest first; nights that are not earlier are left out.

    Returns:
        The paths that were written.

    Raises:
        ValueError: a number of the night is not finite.
    """
    record = night_bytes(night, tuple(alerts))
    content = document(night, [b for b in before if b.date < night.date], alerts)
    files = {
        MARKDOWN: markdown(content, PAGE).encode(),
        PAGE: report_page(content).html().encode(),
        RECORD: record,
    }
    paths = []
    for name, data in files.items():
        paths.append(storage.join(folder, name))
        storage.write_bytes(paths[-1], data)
    return tuple(paths)
