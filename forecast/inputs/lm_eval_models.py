"""Which candidate a result file of lm-evaluation-harness is of, by the model that the file names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from forecast.config.candidates import CandidateConfig

# Arguments of a model with which it is another one than its source.
_CHANGES = (
    "peft",
    "delta",
    "load_in_4bit",
    "load_in_8bit",
    "autogptq",
    "gptqmodel",
    "gguf_file",
    "quantization",
)
_OFF = ("", "none", "false", "0")


@dataclass(frozen=True)
class EvaluatedModel:
    """A model as its result file names it."""

    names: tuple[str, ...]  # `pretrained=` and `model_name`; empty where the file names none
    revision: str | None  # None: the main one
    changes: tuple[str, ...]  # arguments that make another model of it

    def __str__(self) -> str:
        name = self.names[0] if self.names else "without a name"
        return "".join(
            [name, f"@{self.revision}" if self.revision else "", *(f" ({c})" for c in self.changes)]
        )


def model_of(data: Mapping[str, Any]) -> EvaluatedModel:
    """The model that the object of a result file names."""
    config = data.get("config")
    arguments = _arguments(config.get("model_args") if isinstance(config, Mapping) else None)
    named = (arguments.get("pretrained"), arguments.get("model"), data.get("model_name"))
    names = dict.fromkeys(
        name.strip().rstrip("/") for name in named if isinstance(name, str) and name.strip()
    )
    changes = [
        f"{key}={arguments[key]}" for key in _CHANGES if str(arguments.get(key, "")).lower() not in _OFF
    ]
    return EvaluatedModel(tuple(names), _revision(arguments.get("revision")), tuple(changes))


def candidates_of(
    model: EvaluatedModel, candidates: Sequence[CandidateConfig]
) -> tuple[list[CandidateConfig], bool]:
    """Those that the model may be: of its name, else of its source, else named by the last part of its name.

    A revision must be the same, and a changed model is only one that has its name.

    Returns:
        The candidates, and whether name or source say so.
    """
    at = {f"{name}@{model.revision}" if model.revision else name for name in model.names}
    if found := [one for one in candidates if one.name in at]:
        return found, True
    if model.changes:
        return [], True
    whole = [one for one in candidates if one.quantize is None and not one.drop_layers]
    same = [one for one in whole if _source(one)[1] == model.revision]
    if found := [one for one in same if any(_is_at(_source(one)[0], name) for name in model.names)]:
        return found, True
    return [
        one
        for one in same
        if any(one.name == name.rpartition("/")[2] and not _denies(one, name) for name in model.names)
    ], False


def _arguments(given: Any) -> Mapping[str, Any]:
    """Of the model: a mapping, or a text `pretrained=org/name,revision=main`."""
    if isinstance(given, Mapping):
        return given
    parts = (part.partition("=") for part in str(given or "").split(","))
    return {key.strip(): value.strip() for key, _, value in parts}


def _revision(given: Any) -> str | None:
    return None if given is None or str(given).lower() in ("main", *_OFF) else str(given)


def _source(candidate: CandidateConfig) -> tuple[str, str | None]:
    place, _, revision = candidate.source.partition("@")
    return place.rstrip("/"), _revision(revision or candidate.revision)


def _is_at(source: str, name: str) -> bool:
    """Whether both name one place; of a relative path two parts must agree."""
    parts = PurePosixPath(name).parts
    is_below = (
        len(parts) > 1 and source.startswith("/") and PurePosixPath(source).parts[-len(parts) :] == parts
    )
    return source == name or is_below


def _denies(candidate: CandidateConfig, name: str) -> bool:
    """Whether a candidate's source says that it is another model: another hub id, another absolute path."""
    source = _source(candidate)[0]
    return (source.startswith("/") and name.startswith("/")) or (_is_hub_id(source) and _is_hub_id(name))


def _is_hub_id(text: str) -> bool:
    return text.count("/") == 1 and not text.startswith((".", "/", "~"))
