"""The checkpoints that a night scores or has scored, as candidates of a run.

All of them stay candidates, so that the results hold the whole history. One that was scored before is known
by the digest that its files had: they are neither read nor needed again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forecast.config.candidates import CandidateConfig
from forecast.config.nightly import WatchConfig
from forecast.config.schema import Config
from forecast.errors import ConfigError
from forecast.inputs.models.resolve import Candidate, candidate_of, resolve_candidate
from forecast.nightly.discovery import Sight, candidate_of_checkpoint
from forecast.nightly.records import Checkpoint
from forecast.nightly.state import RunState, Scored, State, load_state
from forecast.plan import Plan, make_plan


@dataclass(frozen=True)
class Watched:
    """A checkpoint as a candidate; `known` where its files are those that were scored, or are gone."""

    checkpoint: Checkpoint
    stamp: str
    settings: CandidateConfig
    known: Scored | None


def watched_candidates(
    watches: Sequence[WatchConfig], state: State, sights: Sequence[Sight]
) -> tuple[Watched, ...]:
    """Checkpoints that are there and those that were scored, by run and step."""
    found = []
    for watch, sight in zip(watches, sights, strict=True):
        before = state.runs.get(watch.run) or RunState("")
        known = {scored.checkpoint.step: scored for scored in before.scored}
        present = {one.checkpoint.step: one for one in sight.found}
        for step in sorted(known.keys() | present.keys()):
            seen, scored = present.get(step), known.get(step)
            if scored is not None and (seen is None or seen.stamp == scored.stamp):
                checkpoint = scored.checkpoint if seen is None else seen.checkpoint
                stamp = scored.stamp
            else:
                assert seen is not None
                checkpoint, stamp, scored = seen.checkpoint, seen.stamp, None
            settings = candidate_of_checkpoint(watch, checkpoint, stamp)
            found.append(Watched(checkpoint, stamp, settings, scored))
    return tuple(found)


def config_of(config: Config, watched: Sequence[Watched]) -> Config:
    """The run with the checkpoints among its candidates, and without what only the night needs.

    Raises:
        ConfigError: a checkpoint has the name of a candidate.
    """
    names = {candidate.name for candidate in config.candidates}
    if twice := [w.settings.name for w in watched if w.settings.name in names]:
        raise ConfigError(
            f"candidates and checkpoints of watched runs have the same names: {', '.join(twice)}; rename them"
        )
    # Addresses to deliver to are secrets, and the results keep a copy of the configuration.
    candidates = (*config.candidates, *(w.settings for w in watched))
    return config.model_copy(update={"candidates": candidates, "nightly": None})


def resolver(watched: Sequence[Watched]) -> Callable[[CandidateConfig, Config], Candidate]:
    """Finds and fingerprints a candidate's files, but for checkpoints that are known."""
    known = {w.settings.name: w.known for w in watched if w.known is not None}

    def resolve(settings: CandidateConfig, config: Config) -> Candidate:
        if (scored := known.get(settings.name)) is None:
            return resolve_candidate(settings, config)
        return candidate_of(settings, config, scored.files_digest, scored.parameters)

    return resolve


def plan_with_scored_checkpoints(config: Config, watches: Sequence[WatchConfig]) -> Plan:
    """The plan of a configuration, with the scored checkpoints of its watched runs among the candidates.

    For commands other than `nightly`: they see what the nights have scored, and look for nothing new.

    Raises:
        ConfigError: there is no candidate, and no checkpoint is known yet.
        InputError: the state of the nights is damaged.
    """
    watched = watched_candidates(watches, load_state(config.output), [Sight(w.run) for w in watches])
    if not config.candidates and not watched:
        raise ConfigError(
            "no checkpoint of the watched runs is scored yet; run `forecast nightly` with this configuration "
            "first"
        )
    return make_plan(config_of(config, watched), resolver(watched))
