"""`forecast rank --table FILE --scorer FILE.json`: other candidates scored by what `--save` wrote."""

import warnings

from forecast import api
from forecast.report.console import emit, err


def predict(table: str, scorer: str, as_json: bool) -> None:
    """Scores and ranks of the table's candidates, on standard output."""
    from forecast.report.document import Column, Document, Section, Table
    from forecast.report.format import NUMBER

    with warnings.catch_warnings(action="ignore"):  # shown below
        saved = api.load_scorer(scorer)
    predictions = saved.predict(table)
    for text in saved.warnings:
        err.print("warning: " + text, style="yellow", soft_wrap=True)
    record = {
        "table": table,
        "scorer": scorer,
        "features": list(saved.features),
        "predictions": predictions.to_dicts(),
        "warnings": list(saved.warnings),
    }
    columns = (
        Column("task", "task"),
        Column("rank", "rank", NUMBER, "1 is best; average ranks for ties."),
        Column("candidate", "candidate"),
        Column("score", "score", NUMBER, "Higher is better; comparable within a task only."),
    )
    caption = f"Scores of {table} by {scorer}; comparable within a task only"
    shown = Table(predictions, columns, caption, group_by="task")
    emit(lambda: Document("", "", (Section("", (shown,)),)), lambda: record, as_json=as_json)
