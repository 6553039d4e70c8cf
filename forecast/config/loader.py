"""Reads a configuration file and explains what is wrong with it: every mistake at once, each with its line.

Relative paths are taken from the folder of the file, so that a command gives the same result from wherever it
is called.
"""

import re
import sys
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from forecast.config.candidates import CandidateConfig, CandidateSettings
from forecast.config.nightly import RULES
from forecast.config.schema import Config
from forecast.config.sources import LARGEST
from forecast.errors import ConfigError, described, did_you_mean

EXAMPLES = Path(sys.prefix) / "share" / "proxy-forecast" / "configs"  # of an installation from a wheel
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_DECIMAL = re.compile(
    r"[-+]?(0|[1-9][0-9]*|([0-9]+\.[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?|\.inf)|\.nan", re.IGNORECASE
)

DEFAULTS_KEY = "candidate_defaults"

# Keys of one candidate, which a watched run sets for each of its checkpoints.
_OF_ONE_CANDIDATE = CandidateConfig.model_fields.keys() - CandidateSettings.model_fields.keys()

_Location = tuple[str | int, ...]

# Pydantic puts the type that it tried into the location of an error within a union.
_UNION_MEMBERS = {"int", "str", "tuple[int, ...]", "tuple[str, ...]"}
# Pydantic's messages in terms of Python, reworded in terms of YAML.
_PLAIN = {
    "model_type": "expected keys with values",
    "dict_type": "expected keys with values",
    "tuple_type": "expected a list",
    "string_type": "expected text; put it in quotes",
}


def load_config(path: str | Path) -> Config:
    """Read a configuration file.

    `candidate_defaults` in the file is merged into every candidate that does not set the key itself, those of
    watched runs among them.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, or a value that does not fit; names file and
            line.
    """
    path = Path(path)
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{path.absolute()}: a name in this path is no UTF-8; rename it") from None
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = f"; copy the examples from {EXAMPLES}" if EXAMPLES.is_dir() else ""
        raise ConfigError(f"no configuration file at {path}{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a configuration file: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.load(text, Loader=StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_message(error, path)) from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply for a configuration file") from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}:1: expected keys such as name, output, candidates, trajectories; see configs/demo.yaml"
        )
    defaults = data.pop(DEFAULTS_KEY, None)
    if isinstance(defaults, dict):
        _merge_defaults(data, defaults)
    elif defaults is not None:
        line = _line(node, (DEFAULTS_KEY,))
        raise ConfigError(f"{path}:{line}: {DEFAULTS_KEY}: expected keys with values, as in a candidate")
    try:
        return Config.model_validate(data, context=path.absolute().parent)
    except ValidationError as error:
        raise ConfigError(_explain(error, path, node)) from None


def _merge_defaults(data: dict[str, Any], defaults: dict[str, Any]) -> None:
    """What does not have the expected type stays as it is: validation reports it."""
    if isinstance(candidates := data.get("candidates"), list):
        data["candidates"] = [{**defaults, **c} if isinstance(c, dict) else c for c in candidates]
    common = {key: value for key, value in defaults.items() if key not in _OF_ONE_CANDIDATE}
    nightly = data.get("nightly")
    watches = nightly.get("watch") if isinstance(nightly, dict) else None
    for watch in watches if isinstance(watches, list) else ():
        if isinstance(watch, dict) and isinstance(own := watch.get("candidate", {}), dict):
            watch["candidate"] = {**common, **own}


class StrictLoader(yaml.SafeLoader):
    """YAML's own keeps the last of two equal keys, names no line for a wrong value, and reads 1:30 as 90."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if _is_odd_number(node):
                raise ValueError(
                    f"{node.value} is no decimal number; write digits alone, or a text in quotes"
                )
            if isinstance(value, int) and abs(value) > LARGEST:
                raise ValueError(f"a whole number beyond {LARGEST} does not fit the tables of results")
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # no such day, thousands of digits, a tag that does not fit
            raise yaml.constructor.ConstructorError(None, None, described(error), node.start_mark) from None
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue  # the loader itself refuses lists and mappings as keys
            if key.value in seen:
                message = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _is_odd_number(node: yaml.Node) -> bool:
    """Whether YAML 1.1 has a number in what others read as text or another number: 1_000, 010, 0x10, 1:30."""
    return node.tag in _NUMBER_TAGS and _DECIMAL.fullmatch(node.value) is None


def _yaml_message(error: yaml.YAMLError, path: Path) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{path}:{error.problem_mark.line + 1}: not valid YAML: {what}"
    return f"{path} is not valid YAML: {error}"


def _explain(error: ValidationError, path: Path, node: yaml.Node | None) -> str:
    problems = error.errors()
    messages: dict[str, list[str]] = {}  # by place: a union reports one mistake once per member
    for problem in problems:
        loc = tuple(part for part in problem["loc"] if part not in _UNION_MEMBERS and str(part) not in RULES)
        below = (other["loc"] for other in problems if other["loc"] != loc)
        if problem["type"] == "too_short" and any(other[: len(loc)] == loc for other in below):
            continue  # the list is "too short" only because its faulty items do not count
        written = _as_written(loc, node)
        subject, message = _subject_and_message(problem, loc, written)
        known = messages.setdefault(f"{path}:{_line(node, written)}: {subject}", [])
        if message not in known:
            known.append(message)
    return "\n".join(f"{place}: {', or: '.join(known)}" for place, known in messages.items())


def _subject_and_message(problem: Any, loc: _Location, written: _Location) -> tuple[str, str]:
    if problem["type"] == "extra_forbidden":
        parent = ".".join(map(str, written[:-1])) or "the top level"
        known = _keys_at(part for part in problem["loc"][:-1] if part not in _UNION_MEMBERS)
        return f"unknown key {str(loc[-1])!r} in {parent}", did_you_mean(str(loc[-1]), known)
    subject = ".".join(map(str, written)) or "the configuration"
    if problem["type"] == "missing":
        return subject, "missing"
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        rule = str(problem["ctx"].get("tag", ""))
        return subject, f"rule {rule!r}: {did_you_mean(rule, RULES)}"
    message = _PLAIN.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    value = problem["input"]
    is_secret = loc[-1:] == ("webhook",)
    is_new = isinstance(value, str | int | float) and repr(value) not in message and not is_secret
    return subject, f"{message}; got {value!r}" if is_new else message


def _as_written(loc: _Location, node: yaml.Node | None) -> _Location:
    """The location in the file: a key that a candidate has from the defaults stands there."""
    of_watch = loc[:2] == ("nightly", "watch") and loc[3:4] == ("candidate",)
    before = 2 if loc[:1] == ("candidates",) else 4 if of_watch else len(loc)  # parts before the key
    in_defaults: _Location = (DEFAULTS_KEY, *loc[before:])
    in_place = len(_marks(node, loc[: before + 1])) > before
    return loc if in_place or len(_marks(node, in_defaults[:2])) < 2 else in_defaults


def _line(node: yaml.Node | None, loc: _Location) -> int:
    """Line (1-based) of the deepest part of `loc` that stands in the file."""
    return [1, *_marks(node, loc)][-1]


def _marks(node: yaml.Node | None, loc: _Location) -> list[int]:
    """Lines (1-based) of the parts of `loc`, as far as they stand in the file."""
    lines: list[int] = []
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            key, node = pair
            lines.append(key.start_mark.line + 1)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            lines.append(node.start_mark.line + 1)
        else:
            break
    return lines


def _keys_at(loc: Iterable[str | int]) -> list[str]:
    """The keys that the model at `loc` accepts; the name of a rule stands for that rule's."""
    model: Any = Config
    for part in loc:
        if isinstance(part, str):
            model = RULES.get(part) or _model_in(model.model_fields[part].annotation)
    keys = list(model.model_fields)
    return [*keys, DEFAULTS_KEY] if model is Config else keys


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(arg) for arg in getattr(annotation, "__args__", ()))
    return next((model for model in found if model is not None), None)
