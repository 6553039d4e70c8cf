"""Progress in a log: lines that count what is done, also when some units never will be."""

import io

from rich.console import Console

from forecast.progress import ScoringProgress


def test_a_log_ends_with_what_was_done() -> None:
    log = io.StringIO()
    with ScoringProgress(Console(file=log, width=200), units=3, estimated_tokens=300) as progress:
        progress.advance("[bold] one", tokens_read=90, estimated_tokens=100)
        progress.failed("candidate '[red]' is damaged")
        progress.advance("two", tokens_read=90, estimated_tokens=100)
    lines = log.getvalue().splitlines()
    assert "candidate '[red]' is damaged" in lines
    assert lines[-1].startswith("2/3 units, ")
    assert lines[-1].endswith(" tokens/s")
