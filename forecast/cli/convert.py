"""`forecast convert`: published tables in the forms that the other commands read."""

from typing import Annotated

import typer

from forecast import api
from forecast.errors import ConfigError
from forecast.report.console import err

EPILOG = (
    "Example: forecast convert datadecide configs/data/datadecide_target_1b_accuracy.csv TARGETS.csv. "
    "Names: datadecide (both of its tables, for `forecast corpora`), olmo (evaluations of a "
    "pretraining run, for `forecast extrapolate`)."
)


def convert(
    name: Annotated[str, typer.Argument(metavar="NAME", help="datadecide or olmo.")],
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="The published table; a local path or s3://...")
    ],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="To be written: .csv or .parquet.")],
) -> None:
    """Write a published table in the form that `forecast corpora` or `forecast extrapolate` reads."""
    if not target.lower().endswith((".csv", ".parquet")):
        raise ConfigError(f"{target}: expected a name that ends in .csv or .parquet")
    table = api.convert(name, source)
    from io import BytesIO

    from forecast.inputs.published.datadecide import notes
    from forecast.storage import write_bytes

    buffer = BytesIO()
    if target.lower().endswith(".csv"):
        table.write_csv(buffer)
    else:
        table.write_parquet(buffer)
    write_bytes(target, buffer.getvalue())
    for note in notes(table) if name == "datadecide" else ():
        err.print("note: " + note, style="yellow", soft_wrap=True)
    columns = ", ".join(table.columns)
    err.print(f"{target}: {len(table):,} rows, columns {columns}", soft_wrap=True)
