"""Reads a configuration file and explains what is wrong with it: every mistake at once, each with its line.

Relative paths are taken from the folder of the file, so that a command gives the same result from wherever it
is called.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from forecast import storage
from forecast.config import Config
from forecast.errors import ConfigError, did_you_mean

DEFAULTS_KEY = "candidate_defaults"

_Location = tuple[str | int, ...]

# Pydantic puts the type that it tried into the location of an error within a union.
_UNION_MEMBERS = {"int", "str", "tuple[int, ...]", "tuple[str, ...]"}
# What pydantic says in terms of Python, said in terms of YAML.
_PLAIN = {
    "model_type": "expected keys with values",
    "dict_type": "expected keys with values",
    "tuple_type": "expected a list",
    "string_type": "expected text; put it in quotes",
}


def load_config(path: str | Path) -> Config:
    """Read a configuration file.

    `candidate_defaults` in the file is merged into every candidate that does not set the key itself.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, or a value that does not fit; names file and
            line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a configuration file: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_message(error, path)) from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}:1: expected keys such as name, output, candidates, trajectories; see configs/demo.yaml"
        )
    if (defaults := data.pop(DEFAULTS_KEY, None)) is not None:
        if not isinstance(defaults, dict):
            line = _line(node, (DEFAULTS_KEY,))
            raise ConfigError(f"{path}:{line}: {DEFAULTS_KEY}: expected keys with values, as in a candidate")
        if isinstance(candidates := data.get("candidates"), list):
            data["candidates"] = [{**defaults, **c} if isinstance(c, dict) else c for c in candidates]
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, path, node)) from None
    return _with_absolute_paths(config, path.absolute().parent)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's own loader keeps the last of two equal keys and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # the loader itself refuses lists and mappings as keys
            if key.value in seen:
                message = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_message(error: yaml.YAMLError, path: Path) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{path}:{error.problem_mark.line + 1}: not valid YAML: {what}"
    return f"{path} is not valid YAML: {error}"


def _with_absolute_paths(config: Config, base: Path) -> Config:
    def local(source: str) -> str:
        # A hub id looks like a relative path; it is a path only where something exists at it or it says so.
        says_so = source.startswith((".", "~", "/")) or source.endswith(".gguf")
        return storage.resolve(source, base) if says_so or (base / source).exists() else source

    def rows(source: Any) -> Any:
        if source.path is not None:
            return source.model_copy(update={"path": storage.resolve(source.path, base)})
        return source.model_copy(update={"dataset": local(source.dataset)})

    return config.model_copy(
        update={
            "output": storage.resolve(config.output, base),
            "candidates": tuple(c.model_copy(update={"source": local(c.source)}) for c in config.candidates),
            "trajectories": tuple(rows(t) for t in config.trajectories),
            "direct_evaluation": tuple(rows(t) for t in config.direct_evaluation),
            "measured_scores": tuple(
                m.model_copy(update={"path": storage.resolve(m.path, base)}) for m in config.measured_scores
            ),
        }
    )


def _explain(error: ValidationError, path: Path, node: yaml.Node | None) -> str:
    problems = error.errors()
    messages: dict[str, list[str]] = {}  # by place: a union reports one mistake once per member
    for problem in problems:
        loc = tuple(part for part in problem["loc"] if part not in _UNION_MEMBERS)
        if problem["type"] == "too_short" and any(
            p["loc"][: len(loc)] == loc and p["loc"] != loc for p in problems
        ):
            continue  # the list is "too short" only because its faulty items do not count
        subject, message = _subject_and_message(problem, loc, _as_written(loc, node))
        place = f"{path}:{_line(node, _as_written(loc, node))}: {subject}"
        found = messages.setdefault(place, [])
        if message not in found:
            found.append(message)
    return "\n".join(f"{place}: {', or: '.join(found)}" for place, found in messages.items())


def _subject_and_message(problem: Any, loc: _Location, written: _Location) -> tuple[str, str]:
    if problem["type"] == "extra_forbidden":
        parent = ".".join(map(str, written[:-1])) or "the top level"
        return f"unknown key {str(loc[-1])!r} in {parent}", did_you_mean(str(loc[-1]), _keys_at(loc[:-1]))
    subject = ".".join(map(str, written)) or "the configuration"
    if problem["type"] == "missing":
        return subject, "missing"
    message = _PLAIN.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    value = problem["input"]
    if isinstance(value, str | int | float) and repr(value) not in message:
        message += f"; got {value!r}"
    return subject, message


def _as_written(loc: _Location, node: yaml.Node | None) -> _Location:
    """The location in the file: a key that a candidate has from the defaults stands there."""
    if loc[:1] == ("candidates",) and len(loc) > 2:
        in_defaults: _Location = (DEFAULTS_KEY, *loc[2:])
        if not _stands_in_file(node, loc[:3]) and _stands_in_file(node, in_defaults[:2]):
            return in_defaults
    return loc


def _stands_in_file(node: yaml.Node | None, loc: _Location) -> bool:
    return len(_marks(node, loc)) == len(loc)


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


def _keys_at(loc: _Location) -> list[str]:
    """The keys that the model at `loc` accepts."""
    model: Any = Config
    for part in loc:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation)
    keys = list(model.model_fields)
    return [*keys, DEFAULTS_KEY] if model is Config else keys


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(arg) for arg in getattr(annotation, "__args__", ()))
    return next((model for model in found if model is not None), None)
