"""What is known to fail before anything is scored: candidates that cannot be loaded, or encode no text."""

from collections.abc import Iterable
from dataclasses import replace

from forecast.engines.load_checks import check_loadable
from forecast.errors import CandidateError
from forecast.plan import Failure, Plan, Unit
from forecast.scoring import encode_unit


def refused_candidates(plan: Plan, units: Iterable[Unit]) -> list[Failure]:
    """Candidates of these units that would fail, with the reason; reads no weights.

    Files, settings and tokenizer of each are checked, and its prompt form (a chat template, perhaps) is tried
    on one text of each kind.
    """
    first: dict[str, dict[str, Unit]] = {}  # by candidate_id and kind
    for unit in units:
        first.setdefault(unit.candidate.candidate_id, {}).setdefault(unit.shard.kind, unit)
    refused = []
    for by_kind in first.values():
        (candidate, *_) = (unit.candidate for unit in by_kind.values())
        if candidate.files_digest is None:  # made up
            continue
        try:
            check_loadable(candidate)
            for unit in by_kind.values():
                one = replace(unit.shard, trajectories=unit.shard.trajectories[:1])
                encode_unit(replace(unit, shard=one), plan.config, None)
        except CandidateError as error:
            refused.append(Failure("candidate", candidate.name, str(error)))
    return refused
