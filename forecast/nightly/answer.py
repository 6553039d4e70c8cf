"""A night in a sentence for each run: the best checkpoint so far, and what the newest is against it."""

import re

from forecast.nightly.records import BestSoFar, Comparison, Night, Unmatched, WatchedRun
from forecast.report.format import figure, step_text


def answers(night: Night) -> tuple[str, ...]:
    """One sentence for each watched run, in their order."""
    best = {one.run: one for one in night.best_so_far}
    return tuple(_answer(run, best.get(run.run)) + _newer(run, night) for run in night.runs)


def _newer(run: WatchedRun, night: Night) -> str:
    """What is newer than the newest that was scored, and has no numbers."""
    newest = run.steps[-1] if run.steps else -1
    steps = [b.checkpoint.step for b in night.broken if b.checkpoint.run == run.run]
    broken = [step_text(step) for step in steps if step > newest]
    return f" Newer, but broken: step {', '.join(broken)}." if broken else ""


def _answer(run: WatchedRun, best: BestSoFar | None) -> str:
    if best is None or best.newest is None:
        why = None if best is None else best.reason
        if run.unmatched is not None:
            why = unmatched_text(run.unmatched).rstrip(".")
        return f"{run.run}: {why or 'nothing is compared'}."
    newest = best.newest
    if newest.verdict == "first":
        only = f"step {step_text(newest.step)} ({figure(newest.value)}) is the only checkpoint"
        return f"{run.run}: {only}; by {best.metric}, {best.task}."
    now = f"the newest, step {step_text(newest.step)} ({figure(newest.value)}),"
    best_step = f"step {step_text(newest.best_step)} ({figure(newest.best_value)}"
    if newest.step == best.step:
        then = f"is the best so far, {_versus(newest)} the best before, {best_step})"
    else:
        then = f"is {_versus(newest)} the best so far, {best_step}, since {best.since})"
    return f"{run.run}: {now} {then}: {difference(newest)}; by {best.metric}, {best.task}."


def _versus(one: Comparison) -> str:
    if one.verdict in ("better", "worse"):
        return f"{one.verdict} than"
    return "no different from" if one.verdict == "no different" else "apart by unknown noise from"


def difference(one: Comparison) -> str:
    """The change with its interval, or why it has none."""
    change = figure(one.change, signed=True)
    if one.low is None:
        return f"{change}, no interval: {one.reason}"
    return f"{change}, 95% interval {figure(one.low, signed=True)} to {figure(one.high, signed=True)}"


def unmatched_text(found: Unmatched) -> str:
    """What is watched for, what lies there instead, and what to do."""
    more = found.count - len(found.names)
    there = ", ".join(found.names) + (f" and {more} more" if more else "")
    if found.every is not None:
        return f"no step is a multiple of {found.every} (`every`); there lie {there}."
    guess = re.sub(r"[0-9]+(?=[^0-9]*$)", "{step}", found.names[0])
    what = f"e.g. `pattern: {guess}`" if "{step}" in guess else "`pattern` to their names"
    return (
        f"nothing has the name of a checkpoint ({', '.join(found.patterns)}); there lie {there}; set {what}."
    )
