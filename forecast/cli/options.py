"""Options and checks that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forecast import api
from forecast.errors import ConfigError
from forecast.safe_text import printable

if TYPE_CHECKING:  # pydantic and pyarrow take a quarter of a second to import
    from forecast.config.schema import Config


def _report_file(path: str | None) -> str | None:
    if path is not None and not path.endswith((".html", ".htm", ".md")):
        expected = "expected a file name that ends in .html (or .md, without plots)"
        raise typer.BadParameter(f"{printable(path)}: {expected}")
    return path


ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="Configuration file, e.g. configs/demo.yaml.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Address of a Ray cluster; default: the configuration's, else Ray on this machine."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")]
Retry = Annotated[
    bool, typer.Option("--retry", help="Try candidates again that are in quarantine after their own errors.")
]
Confidence = Annotated[
    float, typer.Option(min=0.5, max=0.999, help="Confidence level of reported intervals.")
]
Html = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        callback=_report_file,
        help="Also write a report with plots: one HTML file (or Markdown, .md).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]

All = Annotated[
    bool, typer.Option("--all", help="Print the whole report, not only its main table and the answer.")
]


def load_config(path: Path) -> "Config":
    """As `forecast.config.loader.load_config`, imported when it is called."""
    from forecast.config.loader import load_config

    return load_config(path)


def one_source(config: Path | None, table: str | None, option: str = "--table FILE") -> api.Run | str:
    """Either a run or a table from elsewhere.

    Raises:
        ConfigError: both, or none; or the configuration cannot be used.
    """
    if config is not None and table is None:
        return api.load(config)
    if table is not None and config is None:
        return table
    raise ConfigError(
        f"give either CONFIG (a run's results) or {option} (numbers from elsewhere)"
        + (", not both" if config is not None else "")
    )
