"""The configuration of a run: frozen, typed, read from YAML; an unknown key is an error that names the nearest one.

Relative paths are taken from the folder of the configuration file, so that a command gives the same result from
wherever it is called.
"""

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from forecast import storage
from forecast.errors import ConfigError

PromptForm = Literal["raw", "chat"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Window(_Frozen):
    """Which solution tokens are scored: the last N tokens, the last N bytes of text, or all of them."""

    last_tokens: int | None = Field(default=None, ge=1)
    last_bytes: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_limit(self) -> "Window":
        if self.last_tokens is not None and self.last_bytes is not None:
            raise ValueError("give last_tokens or last_bytes, not both")
        return self

    def __str__(self) -> str:
        if self.last_tokens is not None:
            return f"last-{self.last_tokens}-tokens"
        return f"last-{self.last_bytes}-bytes" if self.last_bytes is not None else "all"


class Quantize(_Frozen):
    """Weight-only round-to-nearest of the decoder's linear layers, symmetric, one scale per group of inputs."""

    bits: int = Field(ge=2, le=8)
    group_size: int = Field(default=64, ge=8)


class CandidateConfig(_Frozen):
    """One candidate model: where its weights are and what is done to them at load time.

    `source` is a folder in Hugging Face layout, a `.gguf` file, a hub id (`org/name` or `org/name@revision`),
    `package://DISTRIBUTION/FILE` (a file carried by an installed Python package), or `fake://ABILITY` (a made-up
    model for tests of the plumbing). `drop_layers` removes that many decoder layers just before the last one
    (a number) or the layers named (a list).
    """

    name: str = Field(min_length=1)
    source: str = Field(min_length=1)
    revision: str | None = None
    family: str | None = None
    dtype: Dtype | None = None
    prompt_form: PromptForm | None = None
    quantize: Quantize | None = None
    drop_layers: int | tuple[int, ...] = 0
    parameters: int | None = Field(default=None, ge=1)
    active_parameters: int | None = Field(default=None, ge=1)
    training_tokens: int | None = Field(default=None, ge=0)
    corpus: str | None = None
    seed: int | None = None
    step: int | None = None
    context_length: int | None = Field(default=None, ge=2)
    vocab_size: int | None = Field(default=None, ge=2)
    allow_remote_code: bool = False
    allow_pickle: bool = False

    @field_validator("quantize", mode="before")
    @classmethod
    def _bits_alone(cls, value: Any) -> Any:
        return {"bits": value} if isinstance(value, int) else value

    @field_validator("drop_layers")
    @classmethod
    def _layers(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(value, int) and value < 0:
            raise ValueError("drop_layers counts layers: 0 or more, or a list of layer indices")
        if isinstance(value, tuple) and (len(set(value)) < len(value) or any(i < 0 for i in value)):
            raise ValueError("a list of layer indices has each index once, none below 0")
        return value


class DataSource(_Frozen):
    """Rows from a file or a Hugging Face dataset.

    `path`: JSONL, JSON, CSV, Parquet or Arrow; local, `s3://...` or `package://DISTRIBUTION/FILE`; a folder written
    by `datasets.save_to_disk` also serves. `dataset`: a hub id or local dataset folder for `datasets.load_dataset`.
    """

    path: str | None = None
    dataset: str | None = None
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

    @property
    def label(self) -> str:
        """How messages name this source."""
        return self.path or f"{self.dataset}[{self.split or 'train'}]"


class TrajectoryColumns(_Frozen):
    """Names of the columns; `instance_id` and `expert` are optional in the data."""

    prompt: str = "prompt"
    solution: str = "solution"
    instance_id: str | None = None
    expert: str | None = None


class TrajectorySource(DataSource):
    """Expert solutions of one task; templates may use any column, e.g. `"Question: {question}\\nAnswer: "`."""

    task: str = Field(min_length=1)
    expert: str = "human"
    columns: TrajectoryColumns = TrajectoryColumns()
    prompt_template: str | None = None
    solution_template: str | None = None


class ChoiceSource(DataSource):
    """A multiple-choice task measured directly: each option is scored as a continuation of the prompt.

    `choices` names one column that holds a list (dots reach into records: `choices.text`) or lists one column per
    option. `answer` names the column of the right one: its label, its 0-based index, or its text; where `choices`
    lists columns it may be one of them. `labels` names the column of the labels (default A, B, C, ...).
    """

    task: str = Field(min_length=1)
    prompt_template: str
    choices: str | tuple[str, ...]
    answer: str
    labels: str | None = None
    choice_prefix: str = " "
    choice_pattern: str | None = None
    instance_id: str | None = None


class MeasuredSource(_Frozen):
    """Measured downstream scores from a file.

    `csv`: columns candidate, task, metric, value and optionally stderr, source. `lm_eval`: a result JSON of
    lm-evaluation-harness for the one `candidate` named here. `metric` chooses one of several.
    """

    format: Literal["csv", "lm_eval"]
    path: str
    candidate: str | None = None
    metric: str | None = None

    @model_validator(mode="after")
    def _candidate_named(self) -> "MeasuredSource":
        if self.format == "lm_eval" and self.candidate is None:
            raise ValueError("a result file of lm_eval holds one model: say which candidate it is")
        return self


class EngineConfig(_Frozen):
    """How candidates are run. `dtype: auto` is bfloat16 where the machine computes it natively, else float32."""

    kind: Literal["torch", "fake"] = "torch"
    dtype: Dtype = "float32"
    device: str = "auto"
    batch_tokens: int | None = Field(default=None, ge=1)


class ClusterConfig(_Frozen):
    """Where it runs: `address` of a Ray cluster, or none to start Ray on this machine."""

    address: str | None = None
    actors: int | None = Field(default=None, ge=1)
    cpus_per_actor: float = Field(default=1, gt=0)
    gpus_per_actor: float = Field(default=0, ge=0)


class RankingConfig(_Frozen):
    """How candidates are ranked. `targets` maps a measured task to the tasks whose proxies forecast it.

    Default: the task of the same name where trajectories of it exist, else all tasks.
    """

    targets: dict[str, tuple[str, ...]] = {}
    bootstraps: int = Field(default=1000, ge=0)
    permutations: int = Field(default=1000, ge=0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    seed: int = 0


class Config(_Frozen):
    """A whole run; see `configs/demo.yaml` for one in use."""

    name: str = Field(min_length=1)
    output: str
    engine: EngineConfig = EngineConfig()
    window: Window = Window(last_tokens=1000)
    prompt_form: PromptForm = "raw"
    too_long: Literal["report", "truncate_prefix"] = "report"
    shard_trajectories: int = Field(default=32, ge=1)
    cluster: ClusterConfig = ClusterConfig()
    candidates: tuple[CandidateConfig, ...] = Field(min_length=1)
    trajectories: tuple[TrajectorySource, ...] = Field(min_length=1)
    direct_evaluation: tuple[ChoiceSource, ...] = ()
    measured_scores: tuple[MeasuredSource, ...] = ()
    ranking: RankingConfig = RankingConfig()

    @field_validator("window", mode="before")
    @classmethod
    def _window_all(cls, value: Any) -> Any:
        return {} if value == "all" else value

    @model_validator(mode="after")
    def _unique_names(self) -> "Config":
        names = [c.name for c in self.candidates]
        if repeated := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"candidate names must differ; repeated: {', '.join(repeated)}")
        tasks = [c.task for c in self.direct_evaluation]
        if repeated := sorted({t for t in tasks if tasks.count(t) > 1}):
            raise ValueError(f"tasks of direct_evaluation must differ; repeated: {', '.join(repeated)}")
        unknown = {t for tasks in self.ranking.targets.values() for t in tasks} - {t.task for t in self.trajectories}
        if unknown:
            raise ValueError(f"ranking.targets names tasks without trajectories: {', '.join(sorted(unknown))}")
        return self


def load_config(path: str | Path) -> Config:
    """Read a configuration file.

    `candidate_defaults` in the file is merged into every candidate that does not set the key itself.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, or a value that does not fit; names file and line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}") from None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a configuration file: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys such as name, output, candidates, trajectories; see configs/demo.yaml")
    defaults = data.pop("candidate_defaults", None)
    if defaults is not None:
        if not isinstance(defaults, dict):
            raise ConfigError(f"{path}:{_line(node, ('candidate_defaults',))}: candidate_defaults must hold candidate keys")
        candidates = data.get("candidates")
        if isinstance(candidates, list):
            data["candidates"] = [{**defaults, **c} if isinstance(c, dict) else c for c in candidates]
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, path, node)) from None
    return _absolute(config, path.absolute().parent)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's own loader keeps the last of two equal keys and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _absolute(config: Config, base: Path) -> Config:
    def local(source: str) -> str:
        # A hub id looks like a relative path; it is a path only where something exists at it or it says so.
        looks_local = source.startswith((".", "~", "/")) or source.endswith(".gguf")
        return storage.resolve(source, base) if looks_local or (base / source).exists() else source

    def data(source: Any) -> Any:
        path = storage.resolve(source.path, base) if source.path else None
        return source.model_copy(update={"path": path, **({"dataset": local(source.dataset)} if source.dataset else {})})

    return config.model_copy(
        update={
            "output": storage.resolve(config.output, base),
            "candidates": tuple(c.model_copy(update={"source": local(c.source)}) for c in config.candidates),
            "trajectories": tuple(data(t) for t in config.trajectories),
            "direct_evaluation": tuple(data(t) for t in config.direct_evaluation),
            "measured_scores": tuple(
                m.model_copy(update={"path": storage.resolve(m.path, base)}) for m in config.measured_scores
            ),
        }
    )


def _explain(error: ValidationError, path: Path, node: yaml.Node | None) -> str:
    lines = []
    for problem in error.errors():
        loc = tuple(part for part in problem["loc"] if part not in ("int", "tuple[int, ...]", "str", "tuple[str, ...]"))
        where = f"{path}:{_line(node, loc)}"
        name = ".".join(str(part) for part in loc)
        if problem["type"] == "extra_forbidden":
            known = _keys_at(loc[:-1])
            near = difflib.get_close_matches(str(loc[-1]), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            lines.append(f"{where}: unknown key {str(loc[-1])!r} in {'.'.join(map(str, loc[:-1])) or 'the top level'}; {hint}")
        elif problem["type"] == "missing":
            lines.append(f"{where}: {name} is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {name + ': ' if name else ''}{message}")
    return "\n".join(dict.fromkeys(lines))


def _line(node: yaml.Node | None, loc: tuple[Any, ...]) -> int:
    """Line (1-based) of the deepest part of `loc` that stands in the file."""
    line = 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _keys_at(loc: tuple[Any, ...]) -> list[str]:
    """The keys that the model at `loc` accepts."""
    model: Any = Config
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = _model_in(annotation)
    keys = list(model.model_fields)
    return [*keys, "candidate_defaults"] if model is Config else keys


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(arg) for arg in getattr(annotation, "__args__", ()))
    return next((model for model in found if model is not None), None)
