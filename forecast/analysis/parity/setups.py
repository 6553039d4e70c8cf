"""The two setups of a comparison: one configuration with two engine sections and two output folders.

A unit's address leaves out what should not change its numbers (batch size, device, sharing of prefixes),
which is just what a comparison may be about. So every setup has a folder of its own, named by a hash of its
whole engine section, and a repeated command resumes.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from forecast import storage
from forecast.config.candidates import CandidateConfig
from forecast.config.loader import StrictLoader
from forecast.config.schema import Config, EngineConfig
from forecast.errors import ConfigError, NoDataError, did_you_mean
from forecast.inputs.models.fingerprint import digest_of
from forecast.inputs.models.resolve import native_dtype
from forecast.plan import make_plan

Role = Literal["base", "against"]
_Changes = dict[str, Any]  # dotted key of the engine section -> value
# What the key is called in the configuration, and what one would call it here.
_ALIASES = {"engine": "kind"}


@dataclass(frozen=True)
class Setup:
    """One side of a comparison."""

    role: Role
    label: str  # engine, dtype, and what else differs from the other side
    config: Config  # its output folder is the setup's own


@dataclass(frozen=True)
class Setups:
    """Both sides, and what the user should know about how they were derived."""

    base: Setup
    against: Setup
    notes: tuple[str, ...]


def unfinished(setups: Setups) -> bool:
    """Whether something is left to be scored.

    Raises:
        NoDataError: one side has nothing that could be scored; raised before the other side is scored.
    """
    sides = (setups.base, setups.against)
    plans = [make_plan(setup.config) for setup in sides]
    for setup, plan in zip(sides, plans, strict=True):
        if not plan.units:
            reasons = "".join(f"\n{failure.error}" for failure in plan.failures)
            raise NoDataError(f"{setup.role} ({setup.label}): nothing can be scored{reasons}")
    return any(len(plan.done()) < len(plan.units) for plan in plans)


def two_setups(
    config: Config,
    base: Sequence[str] = (),
    against: Sequence[str] = (),
    candidates: Sequence[str] = (),
    trajectories: int = 0,
) -> Setups:
    """Derive two configurations that differ in their engine section.

    A dtype given for either side holds for all candidates on both sides, also for those that set their own:
    otherwise some of them would be the same on both.

    Args:
        base: `KEY=VALUE` texts, several in one with commas: changes of the configuration's engine section.
        against: likewise, changes of the base. None: the other dtype, bfloat16 or else float32.
        candidates: names of those to compare; none: all.
        trajectories: at most so many of each task, the first ones, shared evenly by its sources; 0: all.

    Raises:
        ConfigError: an unknown key or candidate, a value that does not fit, or two equal setups.
    """
    base_changes, against_changes = _parsed("--base", base), _parsed("--against", against)
    on_gpu = config.cluster.on_gpu
    first = _resolved(_changed("--base", config.engine, base_changes), on_gpu)
    if not against:
        against_changes = {"dtype": "float32" if first.dtype == "bfloat16" else "bfloat16"}
    second = _resolved(_changed("--against", first, against_changes), on_gpu)
    one_dtype = "dtype" in base_changes or "dtype" in against_changes
    common = _narrowed(config, candidates, trajectories)
    own = [c.name for c in common.candidates if c.dtype is not None]
    common = _with_dtypes(common, one_dtype, on_gpu)
    notes = []
    if own and one_dtype:
        notes.append(f"the dtypes compared here replace the one that is set for {', '.join(own)}")
    if first == second:
        given = ", ".join(against) or "the default"
        raise ConfigError(
            f"--against {given}: that is the base itself ({_label(common, first, {})}), so there is "
            "nothing to compare; change a value, for example --against batch_tokens=1"
        )
    differing = _flat(first).items() ^ _flat(second).items()
    keys = {key for key, _ in differing}
    return Setups(
        _setup("base", common, first, keys, on_gpu),
        _setup("against", common, second, keys, on_gpu),
        tuple(notes),
    )


def _setup(role: Role, config: Config, engine: EngineConfig, keys: set[str], on_gpu: bool) -> Setup:
    shown = {key: value for key, value in _flat(engine).items() if key in keys - {"kind", "dtype"}}
    # Defaults are left out: a new key of a later version moves no folder. A candidate's own dtype is part of
    # its units' addresses.
    digest = digest_of(engine.model_dump(exclude_defaults=True), on_gpu)
    output = storage.join(config.output, "parity", f"{engine.kind}-{engine.dtype}-{digest}")
    own = config.model_copy(update={"engine": engine, "output": output})
    return Setup(role, _label(config, engine, shown), own)


def _with_dtypes(config: Config, one_dtype: bool, on_gpu: bool) -> Config:
    """Candidates without a dtype of their own, or with it spelt out."""

    def changed(candidate: CandidateConfig) -> CandidateConfig:
        own = native_dtype(on_gpu) if candidate.dtype == "auto" else candidate.dtype
        return candidate.model_copy(update={"dtype": None if one_dtype else own})

    return config.model_copy(update={"candidates": tuple(map(changed, config.candidates))})


def _narrowed(config: Config, candidates: Sequence[str], trajectories: int) -> Config:
    """Only these candidates, only so many trajectories, and nothing that is no trajectory."""
    names = [c.name for c in config.candidates]
    for name in candidates:
        if name not in names:
            raise ConfigError(f"no candidate {name!r}; {did_you_mean(name, names)}")
    sources = config.trajectories
    if trajectories:
        n_sources = Counter(source.task for source in sources)
        shares = [max(1, trajectories // n_sources[source.task]) for source in sources]
        sources = tuple(
            source.model_copy(update={"limit": min(source.limit or share, share)})
            for source, share in zip(sources, shares, strict=True)
        )
    chosen = tuple(c for c in config.candidates if not candidates or c.name in candidates)
    changes = {"candidates": chosen, "trajectories": sources, "direct_evaluation": (), "measured_scores": ()}
    return config.model_copy(update=changes)


def _parsed(option: str, texts: Sequence[str]) -> _Changes:
    known = list(_flat(EngineConfig()))
    found: _Changes = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        key = _ALIASES.get(key, key)
        if not equals or not value:
            raise ConfigError(f"{option} {part}: expected KEY=VALUE, for example dtype=bfloat16")
        if key not in known:
            raise ConfigError(
                f"{option} {part}: the engine section has no key {key!r}; "
                + did_you_mean(key, ["engine", *(name for name in known if name != "kind")])
            )
        if key in found:
            raise ConfigError(f"{option}: {key} is given twice")
        try:
            found[key] = yaml.load(value, Loader=StrictLoader)  # as it would be read in the configuration
        except (yaml.YAMLError, RecursionError):
            found[key] = value
    return found


def _changed(option: str, engine: EngineConfig, changes: _Changes) -> EngineConfig:
    data = engine.model_dump()
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = data
        for section in sections:
            place = place[section]
        place[last] = value
    try:
        return EngineConfig.model_validate(data)
    except ValidationError as error:
        problems = [
            f"{option} {'.'.join(map(str, p['loc']))}: {p['msg'].removeprefix('Value error, ')}; "
            f"got {p['input']!r}"
            for p in error.errors()
        ]
        raise ConfigError("\n".join(problems)) from None


def _resolved(engine: EngineConfig, on_gpu: bool) -> EngineConfig:
    return engine if engine.dtype != "auto" else engine.model_copy(update={"dtype": native_dtype(on_gpu)})


def _flat(engine: BaseModel, prefix: str = "") -> Mapping[str, Any]:
    """Settings by dotted key."""
    found: _Changes = {}
    for key in type(engine).model_fields:
        value = getattr(engine, key)
        if isinstance(value, BaseModel):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _label(config: Config, engine: EngineConfig, shown: Mapping[str, Any]) -> str:
    """Engine, dtypes, and the other keys as one would write them behind the option."""
    dtypes = sorted({c.dtype or engine.dtype for c in config.candidates})
    others = (f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in shown.items())
    return ", ".join([engine.kind, " and ".join(dtypes), *others])
