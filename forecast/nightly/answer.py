"""A night in a sentence for each run: the best checkpoint so far, and what the newest is against it."""

from forecast.nightly.records import BestSoFar, Comparison, Night, Unmatched, WatchedRun
from forecast.report.format import figure, step_text


def answers(night: Night) -> tuple[str, ...]:
    """One sentence for each watched run, in their order."""
    best = {one.run: one for one in night.best_so_far}
    return tuple(_answer(run, best.get(run.run)) for run in night.runs)


def _answer(run: WatchedRun, best: BestSoFar | None) -> str:
    if best is None or best.newest is None:
        why = None if best is None else best.reason
        if run.unmatched is not None:
            why = unmatched_text(run.unmatched).rstrip(".")
        return f"{run.run}: {why or 'nothing is compared'}."
    newest, held = best.newest, f"step {step_text(best.step)} ({figure(best.value)}, since {best.since})"
    by = f"{best.metric}, {best.task}"
    if newest.verdict == "first":
        return (
            f"{run.run}: step {step_text(newest.step)} is the only checkpoint ({by}: {figure(newest.value)})."
        )
    beyond = f"{versus(newest)} {difference(newest)}"
    if newest.step == best.step:
        then = f"step {step_text(newest.best_step)} ({figure(newest.best_value)})"
        now = f"the newest, step {step_text(newest.step)} ({figure(newest.value)}), is the best so far"
        return f"{run.run}: {now}, and {beyond} the best before, {then}; by {by}."
    now = f"the newest, step {step_text(newest.step)} ({figure(newest.value)})"
    return f"{run.run}: {now}, is {beyond} the best so far, {held}; by {by}."


def versus(one: Comparison) -> str:
    """As in `it is ... the best before`."""
    words = {
        "better": "better than",
        "worse": "worse than",
        "no different": "no different from",
        "first": "the first, without",
    }
    if one.verdict is not None:
        return words[one.verdict]
    return "apart, by unknown noise, from"


def difference(one: Comparison) -> str:
    """The change with its interval, or why it has none; in parentheses."""
    change = figure(one.change, signed=True)
    if one.low is None:
        return f"({change}; {one.reason or 'no interval'})"
    return f"({change}, 95% interval {figure(one.low, signed=True)} to {figure(one.high, signed=True)})"


def unmatched_text(found: Unmatched) -> str:
    """What is watched for, what lies there instead, and what to do."""
    more = found.count - len(found.names)
    there = ", ".join(found.names) + (f" and {more} more" if more else "")
    if found.every is not None:
        return f"no step is a multiple of {found.every} (`every`); there lie {there}."
    return (
        f"nothing has the name of a checkpoint ({' or '.join(found.patterns)}); there lie {there}; set "
        "`pattern` to their names, with {step} for the number."
    )
