"""Configuration of the sources of rows: solutions, questions, measured scores."""

import os
import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from forecast import storage
from forecast.errors import ConfigError

_Entries = TypeVar("_Entries", bound=tuple[object, ...])


def location(*schemes: str, or_hub_id: bool = False) -> Callable[[str, ValidationInfo], str]:
    """A validator: a local path, or a URI with one of these schemes.

    Where the validation's context is the folder of a configuration file, relative paths are taken from it.
    """

    def check(value: str, info: ValidationInfo) -> str:
        scheme, is_uri, _ = value.partition("://")
        if is_uri and scheme not in schemes:
            expected = ", ".join(["a local path", *(f"{known}://..." for known in schemes)])
            raise ValueError(f"{value!r} is none of the places that can be used here: {expected}")
        if (problem := storage.bucket_problem(value)) is not None:
            raise ValueError(problem)
        return path_or_hub_id(value, info) if or_hub_id else _absolute(value, info)

    return check


def path_or_hub_id(value: str, info: ValidationInfo) -> str:
    """A validator: what is marked as a path or exists as a path becomes absolute; the rest is a hub id."""
    is_marked = value.startswith((".", "~", "/")) or value.endswith(".gguf")
    # Unlike `Path.exists`, this takes a name that no file can have as one that none has.
    is_path = is_marked or (info.context is not None and os.path.exists(Path(info.context, value)))  # noqa: PTH110
    return _absolute(value, info) if is_path else value


def _absolute(path: str, info: ValidationInfo) -> str:
    try:
        return path if info.context is None else storage.resolve(path, info.context)
    except RuntimeError as error:  # ~ of a user that this machine does not know
        raise ValueError(str(error)) from None


def distinct(what: str, key: str) -> Callable[[_Entries], _Entries]:
    """A validator of a list: no two entries have the same `key`."""

    def check(entries: _Entries) -> _Entries:
        counts = Counter(getattr(entry, key) for entry in entries)
        if repeated := [name for name, n in counts.items() if n > 1]:
            raise ValueError(f"{what} must differ; repeated: {', '.join(repeated)}")
        return entries

    return check


def check_known(names: Iterable[str], known: Collection[str], what: str, known_as: str) -> None:
    """Raises: ValueError: some of the names are not known; `what` and `known_as` introduce the two lists."""
    if unknown := [name for name in dict.fromkeys(names) if name not in known]:
        raise ValueError(f"{what}: {', '.join(unknown)}; {known_as}: {', '.join(known)}")


def _template(value: str) -> str:
    try:
        fields = list(string.Formatter().parse(value))
    except ValueError as error:
        raise ValueError(f"{error}; write {{{{ and }}}} for braces that are text") from None
    if any(name == "" or spec or conversion for _, name, spec, conversion in fields):
        raise ValueError("name a column within each pair of braces, e.g. {question}, and nothing else")
    return value


def _pattern_with_group(value: str) -> str:
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if groups < 1:
        raise ValueError("put the part of the pattern that is the option's text in parentheses")
    return value


LARGEST = 2**63 - 1  # whole number that tables of results hold

DataPath = Annotated[str, AfterValidator(location("s3", "package"))]
Template = Annotated[str, AfterValidator(_template)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _digits_alone(cls, data: Any) -> Any:
        for key, value in data.items() if isinstance(data, dict) else ():
            kind = str(cls.model_fields[key].annotation) if key in cls.model_fields else "str"
            is_number = isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+(_[\d.]+)+", value.strip())
            # Pydantic takes the text "1_000" for a number.
            if is_number and "str" not in kind and ("int" in kind or "float" in kind):
                raise ValueError(f"{key}: {value!r} is no decimal number; write digits alone")
        return data


class DataSource(Frozen):
    """Rows from a file or a Hugging Face dataset.

    `path`: JSONL, JSON, CSV (each also as `.gz`), Parquet or Arrow; local, `s3://...` or
    `package://DISTRIBUTION/FILE`; a local folder written by `datasets.save_to_disk` also serves. `dataset`: a
    hub id or local dataset folder for `datasets.load_dataset`.
    """

    path: DataPath | None = None
    dataset: Annotated[str, AfterValidator(path_or_hub_id)] | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_origin(self) -> "DataSource":
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give either path (a file) or dataset (a Hugging Face dataset)")
        if self.path is not None and (self.config or self.split or self.revision):
            raise ValueError("config, split and revision belong to dataset, not to path")
        return self

    @classmethod
    def at(cls, path: str, limit: int | None = None) -> "DataSource":
        """The file that a command names.

        Raises:
            ConfigError: its place is none that can be used.
        """
        try:
            return cls(path=path, limit=limit)
        except ValidationError as error:
            raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None

    @property
    def label(self) -> str:
        """How messages name this source."""
        if self.path is not None:
            return self.path
        return f"{self.dataset}{f'/{self.config}' if self.config else ''}[{self.split or 'train'}]"


class TrajectoryColumns(Frozen):
    """Names of the columns; those that default to none are optional in the data.

    `frontier_tokens`: a frontier model's tokens of the solution, for rBridge; see `proxies.rbridge`.
    """

    prompt: str = "prompt"
    solution: str = "solution"
    instance_id: str | None = None
    expert: str | None = None
    frontier_tokens: str | None = None


class TrajectorySource(DataSource):
    """Expert solutions of one task; a template may use any columns: `"Question: {question}\\nAnswer: "`.

    `generic`: ordinary text, of which plain cross-entropy is a baseline; its proxies are not used.
    """

    task: str = Field(min_length=1)
    expert: str = "human"
    generic: bool = False
    columns: TrajectoryColumns = TrajectoryColumns()
    prompt_template: Template | None = None
    solution_template: Template | None = None


class ChoiceSource(DataSource):
    """A multiple-choice task measured directly: each option is scored as a continuation of the prompt.

    `choices` names one column that holds a list (dots reach into records: `choices.text`) or lists one column
    per option. `choice_pattern` is a regular expression for a whole option; its first group is the option's
    text. `answer` names the column of the right one, where `choices` lists columns perhaps one of them. That
    column holds an option's label, text or 0-based index; `answer_is` says which where a row is ambiguous.
    `labels` names the column of the labels (default A, B, C, ...).
    """

    task: str = Field(min_length=1)
    prompt_template: Template
    choices: str | tuple[str, ...]
    answer: str
    answer_is: Literal["label", "text", "index"] | None = None
    labels: str | None = None
    choice_prefix: str = " "
    choice_pattern: Annotated[str, AfterValidator(_pattern_with_group)] | None = None
    instance_id: str | None = None


class MeasuredSource(Frozen):
    """Measured downstream scores from a file, or from all files that fit a pattern (`results/**/*.json`).

    `csv`: columns candidate, task, metric, value and optionally stderr, source. `lm_eval`: a result JSON of
    lm-evaluation-harness; it is of the `candidate` named here, else of the one whose name or source is the
    model that the file names. Scores of other models are left out. `tasks` takes only these; `metric` chooses
    one where there are several, of a list for each task the first that it has. A group of tasks counts once:
    by `count_by: asked` (the default) with the score of what was asked for, by `leaves` with those of its
    tasks. `higher_is_better` is needed where neither the file nor the metric's name says so.
    """

    format: Literal["csv", "lm_eval"]
    path: DataPath
    candidate: str | None = None
    tasks: tuple[str, ...] | None = Field(default=None, min_length=1)
    metric: str | tuple[str, ...] | None = None
    count_by: Literal["asked", "leaves"] = "asked"
    higher_is_better: bool | None = None

    @field_validator("metric")
    @classmethod
    def _some_metric(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if value is not None and not (value and all(value)):
            raise ValueError("name a metric, or several, the best first")
        return value

    @model_validator(mode="after")
    def _candidate_named(self) -> "MeasuredSource":
        if self.format == "csv" and self.candidate is not None:
            raise ValueError("candidate belongs to format lm_eval; a CSV file names it in each row")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that may be chosen, the best first; empty where the file has one."""
        return (self.metric,) if isinstance(self.metric, str) else self.metric or ()
