"""Where commands print: answers to standard output, progress and failures to standard error."""

import json
import sys
from typing import Any

from rich.console import Console

# Tables are wide; a pipe or a log file has no width of its own.
out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, width=None if sys.stderr.isatty() else 160)


def print_json(record: dict[str, Any]) -> None:
    """The answer of `--json`; `allow_nan` is off because NaN is no JSON: missing numbers are nulls."""
    print(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))
