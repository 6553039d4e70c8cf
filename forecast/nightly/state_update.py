"""From one night's state to the next: pure functions of what was seen, scored, and known before."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from forecast.config.nightly import WatchConfig
from forecast.inputs.models.resolve import Candidate
from forecast.nightly.checkpoint_candidates import Watched
from forecast.nightly.discovery import Sight
from forecast.nightly.records import Broken, Checkpoint, Waiting, WatchedRun
from forecast.nightly.results import Outcome
from forecast.nightly.state import RunState, Scored, State


def advanced(
    state: State,
    date: str,
    sights: Sequence[Sight],
    watched: Sequence[Watched],
    outcomes: Mapping[str, Outcome],
    candidates: Mapping[str, Candidate],
) -> State:
    """The state after a night's scoring.

    Args:
        date: of the night.
        sights: one for each watched run.
        outcomes: by name of the candidate; one without an outcome counts as incomplete.
        candidates: those that could be resolved, by name.
    """
    runs = dict(state.runs)
    for sight in sights:
        own = [w for w in watched if w.checkpoint.run == sight.run]
        before = runs.get(sight.run) or RunState(date)
        runs[sight.run] = _run(before, date, sight, own, outcomes, candidates)
    return replace(state, last_night=date, runs=runs)


def _run(
    before: RunState,
    date: str,
    sight: Sight,
    watched: Sequence[Watched],
    outcomes: Mapping[str, Outcome],
    candidates: Mapping[str, Candidate],
) -> RunState:
    scored = {one.checkpoint.step: one for one in before.scored}
    earlier = {one.checkpoint.step: one for one in before.broken}
    # What cannot be looked at tonight is as broken as it was; what is gone is not.
    broken = dict(earlier) if sight.problem is not None else {}
    for one in watched:
        step, outcome = one.checkpoint.step, outcomes.get(one.settings.name)
        if outcome is None or outcome.status == "incomplete":
            continue
        if outcome.status == "complete":
            broken.pop(step, None)
            scored[step] = _scored(one, candidates[one.settings.name], scored.get(step), date)
        else:
            known = earlier.get(step)
            # Other content that is broken, too, is another failure; earlier versions kept no stamp.
            same = known is not None and known.stamp in (one.stamp, None)
            since = known.since if known is not None and same else date
            broken[step] = Broken(one.checkpoint, outcome.reason or "no reason is known", since, one.stamp)
    is_new = any(s.since == date for s in scored.values()) or any(b.since == date for b in broken.values())
    return RunState(
        before.first_night,
        date if is_new else before.last_new,
        tuple(scored[step] for step in sorted(scored)),
        tuple(broken[step] for step in sorted(broken)),
    )


def _scored(one: Watched, candidate: Candidate, before: Scored | None, date: str) -> Scored:
    assert candidate.files_digest is not None, "a checkpoint has files"
    same = before is not None and before.files_digest == candidate.files_digest
    counted = one.known.parameters if one.known is not None else candidate.parameters
    return Scored(
        one.checkpoint,
        one.stamp,
        candidate.candidate_id,
        candidate.files_digest,
        counted,
        before.since if before is not None and same else date,
    )


def new_checkpoints(state: State, sights: Sequence[Sight], date: str) -> tuple[Checkpoint, ...]:
    """Those that this night scored for the first time, by run and step."""
    return tuple(
        scored.checkpoint
        for sight in sights
        for scored in state.runs[sight.run].scored
        if scored.since == date
    )


def broken_checkpoints(state: State, sights: Sequence[Sight]) -> tuple[Broken, ...]:
    """All that are broken, by run and step; without their stamps, which are for the state alone."""
    return tuple(replace(broken, stamp=None) for sight in sights for broken in state.runs[sight.run].broken)


def waiting_checkpoints(
    sights: Sequence[Sight], watched: Sequence[Watched], outcomes: Mapping[str, Outcome]
) -> tuple[Waiting, ...]:
    """Those that are not whole, and those that are only partly scored."""
    unfinished = [
        Waiting(one.checkpoint, f"it is only partly scored: {outcome.reason}")
        for one in watched
        if (outcome := outcomes.get(one.settings.name)) is not None and outcome.status == "incomplete"
    ]
    found = [*(waiting for sight in sights for waiting in sight.waiting), *unfinished]
    places = {sight.run: place for place, sight in enumerate(sights)}
    return tuple(sorted(found, key=lambda w: (places[w.checkpoint.run], w.checkpoint.step)))


def watched_runs(
    watches: Sequence[WatchConfig],
    state: State,
    sights: Sequence[Sight],
    watched: Sequence[Watched],
    outcomes: Mapping[str, Outcome],
) -> tuple[WatchedRun, ...]:
    """How far each run is."""
    runs = []
    for watch, sight in zip(watches, sights, strict=True):
        own = state.runs[watch.run]
        complete = [
            one.checkpoint.step
            for one in watched
            if one.checkpoint.run == watch.run
            and (outcome := outcomes.get(one.settings.name)) is not None
            and outcome.status == "complete"
        ]
        steps = tuple(sorted(complete))
        never = not (own.scored or own.broken)  # training may prune what once matched
        runs.append(
            WatchedRun(
                watch.run,
                steps,
                own.last_new,
                own.first_night,
                watch.final_step,
                sight.problem,
                sight.unmatched if never else None,
            )
        )
    return tuple(runs)
