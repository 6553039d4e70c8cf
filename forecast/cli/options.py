"""Options and checks that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forecast.errors import ConfigError

if TYPE_CHECKING:  # pydantic and pyarrow take a quarter of a second to import
    from forecast.config.schema import Config


def _report_file(path: str | None) -> str | None:
    if path is not None and not path.endswith((".html", ".htm", ".md")):
        raise typer.BadParameter(f"{path}: expected a file name that ends in .html (or .md, without plots)")
    return path


Html = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        callback=_report_file,
        help="Also write a report with plots: one HTML file (or Markdown, .md).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]


def load_config(path: Path) -> "Config":
    """As `forecast.config.loader.load_config`, imported when it is called."""
    from forecast.config.loader import load_config

    return load_config(path)


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
