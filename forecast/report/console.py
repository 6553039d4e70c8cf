"""Where commands print: answers to standard output, progress and failures to standard error."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.text import Text

from forecast.safe_text import json_text, printable, without_secrets, words_shortened

if TYPE_CHECKING:
    from forecast.report.document import Document

PARTIAL_FAILURE = 3  # exit code: done, but something failed, and all of it has been listed

# A pipe or a log file has no width of its own; cropped to one, tables would lose figures.
_UNBOUNDED = 400


class SafeConsole(Console):
    """A console on which text is text: no markup, no emoji codes, and no escape sequence but its own.

    Nor is anything highlighted: the patterns for that take minutes on a long text.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


out = SafeConsole(width=None if sys.stdout.isatty() else _UNBOUNDED)
err = SafeConsole(stderr=True, width=None if sys.stderr.isatty() else _UNBOUNDED)


def print_json(record: dict[str, Any]) -> None:
    """The answer of `--json`; `allow_nan` is off because NaN is no JSON: missing numbers are nulls."""
    print(without_secrets(json_text(record, indent=2)))


def print_failures(failed: Sequence[dict[str, str]]) -> None:
    """What failed and why; nothing where nothing did."""
    if failed:
        err.print(failures_text(failed))


def failures_text(failed: Sequence[dict[str, str]]) -> RenderableType:
    """What failed and why, one entry a paragraph."""
    lines = [Text(f"{len(failed)} failed:", style="bold red")]
    lines += [
        Text("  " + words_shortened(entry["error"]).replace("\n", "\n  "), style="red")
        for entry in failed[:20]
    ]
    if len(failed) > 20:
        lines.append(Text(f"  ... and {len(failed) - 20} more (all with --json)", style="red"))
    return Group(*lines)


def emit(
    document: Callable[[], "Document"],
    record: Callable[[], dict[str, Any]],
    *,
    as_json: bool,
    html: str | None = None,
    failed: Sequence[dict[str, str]] = (),
    html_document: Callable[[], "Document"] | None = None,
    code: int | None = None,
    everything: bool = False,
) -> None:
    """The end of every analysis: JSON or the document on standard output, the report's file, what failed.

    Args:
        html: where the report is written, too.
        html_document: where the file shows more than the terminal.
        code: to exit with; None: as `leave` says.
        everything: the whole document instead of its short form.
    """
    from forecast.report.terminal import Short, render

    if html is not None:
        with err.status("drawing the report"):
            (html_document or document)().save(html)
    if as_json:
        print_json(record())
    else:
        out.print(render(document(), wide=True) if everything else Short(document()))
        print_failures(failed)
    if html is not None:
        err.print(f"report: {html}", soft_wrap=True)
    if code is not None:
        raise typer.Exit(code)
    leave(bool(failed))


def leave(partial_failure: bool) -> None:
    """End with the exit code that says whether all was done."""
    if partial_failure:
        raise typer.Exit(PARTIAL_FAILURE)
