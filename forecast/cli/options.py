"""Options and checks that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from forecast.errors import ConfigError

Html = Annotated[
    str | None, typer.Option(metavar="FILE", help="Also write a report with plots: one HTML file.")
]
Json = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]


def one_source(config: Path | None, table: str | None, option: str = "--table FILE") -> None:
    """Either a run's configuration or tables from elsewhere.

    Raises:
        ConfigError: both, or none.
    """
    if (config is None) == (table is None):
        raise ConfigError(
            f"give either CONFIG (a run's results) or {option} (numbers from elsewhere)"
            + (", not both" if config is not None else "")
        )
