"""`forecast rank --table FILE --scorer FILE.json`: other candidates scored by what `--save` wrote."""

from forecast.report.console import err, out, print_json


def predict(table: str, scorer: str, as_json: bool) -> None:
    """Scores and ranks of the table's candidates, on standard output."""
    from forecast.analysis.ranking.saved_scorer import load_saved
    from forecast.report import terminal
    from forecast.report.document import Column, Table
    from forecast.report.format import NUMBER

    saved = load_saved(scorer)
    predictions = saved.predict(table)
    for text in saved.warnings:
        err.print("warning: " + text, style="yellow", markup=False, soft_wrap=True)
    if as_json:
        print_json(
            {
                "table": table,
                "scorer": scorer,
                "features": list(saved.features),
                "predictions": predictions.to_dicts(),
                "warnings": list(saved.warnings),
            }
        )
        return
    columns = (
        Column("task", "task"),
        Column("rank", "rank", NUMBER, "1 is best; average ranks for ties."),
        Column("candidate", "candidate"),
        Column("score", "score", NUMBER, "Higher is better; comparable within a task only."),
    )
    caption = f"Scores of {table} by {scorer}; comparable within a task only"
    out.print(terminal.table(Table(predictions, columns, caption, group_by="task")))
