"""What `--dry-run` prints: the plan record as a document."""

from typing import Any

import polars as pl

from forecast.report.document import Column, Document, Paragraph, Part, Section, Table
from forecast.report.format import COUNT, INTEGER, TEXT, Format

_COLUMNS = (
    Column("candidate", "candidate"),
    Column("dtype", "dtype"),
    Column("parameters", "parameters", COUNT),
    Column("units", "units", INTEGER, "Shards of trajectories or items, scored one at a time."),
    Column("done", "done", INTEGER, "Units whose results are in the lake."),
    Column("estimated_tokens", "tokens left (est.)", INTEGER),
    Column("estimated_flops", "FLOPs left (est.)", Format(lambda flops: f"{flops:.2g}")),
)
_SCHEMA = {column.name: pl.String() if column.format is TEXT else pl.Int64() for column in _COLUMNS[:-1]} | {
    "estimated_flops": pl.Float64()
}


def plan_document(record: dict[str, Any]) -> Document:
    """Candidates with the work done and left, from `plan_record`."""
    title = f"Plan of {record['name']}: {record['done']} of {record['units']} units done"
    frame = pl.DataFrame(record["candidates"], schema=_SCHEMA)
    tasks = ", ".join(f"{task} ({n} trajectories)" for task, n in record["tasks"].items())
    direct = ", ".join(f"{task} ({n} items)" for task, n in record["direct_evaluation"].items())
    lines = [f"tasks: {tasks or 'none'}; window: {record['window']}"]
    lines += [f"direct evaluation: {direct}"] if direct else []
    lines += [f"output: {record['output']}"]
    parts: list[Part] = [Table(frame, _COLUMNS, title), *(Paragraph(line) for line in lines)]
    return Document(title, "", (Section("", tuple(parts)),))
