"""Frames where a file is expected, and from files: either way with the same checks."""

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from forecast.config.sources import DataSource
from forecast.errors import InputError
from forecast.inputs.files import read_file, read_rows

if TYPE_CHECKING:
    import polars as pl


@contextmanager
def file_of(table: "str | Path | pl.DataFrame", name: str = "table") -> Iterator[str]:
    """The path of a file, or of a temporary one with a frame's rows.

    Args:
        name: what messages call a frame; its rows count from 1.

    Raises:
        InputError: something else.
    """
    if isinstance(table, str | Path):
        yield str(table)
        return
    import polars as pl

    if not isinstance(table, pl.DataFrame):
        raise InputError(
            f"{name}: expected a file's path or a polars DataFrame, got {type(table).__name__}; for a "
            "pandas frame: polars.from_pandas(df)"
        )
    with tempfile.TemporaryDirectory(prefix="forecast-") as folder:
        path = str(Path(folder) / "table.parquet")
        table.write_parquet(path)
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(path, name)) from None


def csv_frame(path: str, columns: Collection[str] | None = None) -> "pl.DataFrame":
    """A CSV file as polars reads it, after the checks of `read_rows`, which polars has not.

    Args:
        columns: that are asked for; None: all.
    """
    import polars as pl

    read_rows(DataSource.at(path, limit=1), columns)
    try:
        return pl.read_csv(read_file(path), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from None
