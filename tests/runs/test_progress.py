"""Progress as it is shown: bars by candidate in a terminal, lines that can be read back in a log."""

import io
from pathlib import Path

from rich.console import Console
from watched import Clock, plan_of, receipt, units_of

from actors.jobs.follow import plain, progress_of
from forecast.plan import Failure, Plan
from forecast.runs.events import Subscribers
from forecast.runs.progress import ScoringProgress, WorkProgress, progress_line
from forecast.runs.status import RunStatus


def shown(
    plan: Plan, clock: Clock, terminal: bool = False
) -> tuple[io.StringIO, RunStatus, ScoringProgress, Subscribers]:
    screen = io.StringIO()
    status = RunStatus(plan, {plan.units[0].address}, clock=clock)
    console = Console(file=screen, width=140, height=60, force_terminal=terminal)
    progress = ScoringProgress(console, status, clock)
    return screen, status, progress, Subscribers([status, progress])


def test_a_log_has_a_line_every_ten_seconds_and_at_the_end(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"[bold] one": 5, "two": 5})
    one = units_of(plan, "[bold] one")
    clock = Clock()
    log, status, progress, subscriber = shown(plan, clock)
    with progress:
        subscriber.started(plan.units[1:], 1)
        subscriber.handed_out(one[1:], 0)
        for second in range(1, 70):
            clock.now = float(second)
            if second in (4, 12):
                subscriber.committed(one[1 if second == 4 else 2], receipt(60))
            subscriber.beat()
        subscriber.retried([one[3]], "[red] it died")
        subscriber.restarted(0, "it died")
        subscriber.gave_up(Failure("candidate", "two", "candidate 'two' is [red]damaged[/red]"))
        subscriber.handed_out([one[3]], 0)
        clock.now = 70.0
        subscriber.committed(one[3], receipt(0))
        status.ended("done")
    assert log.getvalue().splitlines() == [
        "1 of 8 units were already done",
        "2/8 units, 6 tokens/s, 1:00 left ([bold] one)",  # 60 tokens and 1 of 7 units in 10 s
        "3/8 units, 6 tokens/s, 0:50 left ([bold] one)",  # 2 of 7 in 20 s; then nothing new
        "candidate '[bold] one': 1 unit of task 't' retried: [red] it died",
        "candidate 'two' is [red]damaged[/red]",
        "4/8 units, 2 tokens/s ([bold] one)",
        "retries: 1, processes that died: 1",
    ]


def test_lines_are_read_back_as_they_were_meant(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"a (first), 3-bit": 5})
    clock = Clock()
    status = RunStatus(plan, (), clock=clock)
    waiting = progress_of(progress_line(status))
    assert waiting is not None
    assert (waiting.done, waiting.units, waiting.tokens_per_second, waiting.seconds_left) == (
        0,
        4,
        None,
        None,
    )
    status.handed_out(plan.units, 0)
    clock.now = 2000.0
    status.committed(plan.units[0], receipt(4_000_000))
    found = progress_of(progress_line(status))
    assert found is not None
    assert (found.done, found.tokens_per_second, found.seconds_left) == (1, 2000.0, 6000.0)
    assert found.candidate == "a (first), 3-bit"


def test_a_terminal_shows_whom_it_is_about(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"[b] one": 5, "two": 5, "three": 5})
    one, two = units_of(plan, "[b] one"), units_of(plan, "two")
    clock = Clock()
    screen, _, progress, subscriber = shown(plan, clock, terminal=True)

    def drawn() -> str:
        screen.seek(0)
        screen.truncate()
        subscriber.beat()
        progress._bar.refresh()
        return plain(screen.getvalue())

    with progress:
        subscriber.started(plan.units[1:], 2)
        subscriber.handed_out(one[1:2], 0)
        subscriber.handed_out(two[:1], 1)
        clock.now = 2.0
        subscriber.committed(two[0], receipt(50))
        subscriber.handed_out(two[1:2], 1)
        text = drawn()
        assert "2 scoring, 1 waiting" in text and " 2/12 " in text and "25 tokens/s" in text
        assert "  [b] one" in text and " 1/4 " in text and "0:06 left" in text
        assert "  three" not in text
        subscriber.gave_up(Failure("candidate", "[b] one", "no weights"))
        text = drawn()
        assert "1 scoring, 1 waiting, 1 failed" in text and "  two" in text and "  [b] one" not in text


def test_time_left_of_work_leaves_out_what_came_before_its_first_part() -> None:
    clock, log = Clock(), io.StringIO()
    progress = WorkProgress(Console(file=log, width=80), "nulls", clock)
    clock.now = 600.0  # processes start
    progress.advance(1, 10)
    clock.now = 620.0
    progress.advance(2, 10)
    assert log.getvalue().splitlines() == ["nulls: 10%", "nulls: 20%, 2:40 left"]
