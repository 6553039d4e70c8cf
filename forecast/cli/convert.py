"""`forecast convert`: published tables in the forms that the other commands read."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from forecast.errors import ConfigError, did_you_mean
from forecast.report.console import err

if TYPE_CHECKING:  # takes a fifth of a second to import
    import polars as pl

EPILOG = (
    "Example: forecast convert datadecide configs/data/datadecide_target_1b_accuracy.csv TARGETS.csv. "
    "Names: datadecide (both of its tables, for `forecast corpora`), olmo (evaluations of a "
    "pretraining run, for "
    "`forecast extrapolate`)."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="datadecide or olmo.")]
Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="The published table; a local path or s3://...")
]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="To be written: .csv or .parquet.")]


def convert(name: Name, source: Source, target: Target) -> None:
    """Write a published table in the form that `forecast corpora` or `forecast extrapolate` reads."""
    if name not in CONVERTERS:
        raise ConfigError(f"no converter {name!r}; {did_you_mean(name, CONVERTERS)}")
    if not target.lower().endswith((".csv", ".parquet")):
        raise ConfigError(f"{target}: expected a name that ends in .csv or .parquet")
    table = CONVERTERS[name]()(source)
    from io import BytesIO

    from forecast.storage import write_bytes

    buffer = BytesIO()
    if target.lower().endswith(".csv"):
        table.write_csv(buffer)
    else:
        table.write_parquet(buffer)
    write_bytes(target, buffer.getvalue())
    for note in _notes(name, table):
        err.print("note: " + note, style="yellow", markup=False, soft_wrap=True)
    err.print(
        f"{target}: {len(table):,} rows, columns {', '.join(table.columns)}", markup=False, soft_wrap=True
    )


def _notes(name: str, table: "pl.DataFrame") -> list[str]:
    if name != "datadecide":
        return []
    from forecast.inputs.published.datadecide import notes

    return notes(table)


def _datadecide() -> "Callable[[str], pl.DataFrame]":
    from forecast.inputs.published.datadecide import convert

    return convert


def _olmo() -> "Callable[[str], pl.DataFrame]":
    from forecast.inputs.published.olmo import convert

    return convert


# Each imports its module when it is asked for.
CONVERTERS: "dict[str, Callable[[], Callable[[str], pl.DataFrame]]]" = {
    "datadecide": _datadecide,
    "olmo": _olmo,
}
