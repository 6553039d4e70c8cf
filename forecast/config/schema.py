"""The schema of a run's configuration: frozen, typed, no unknown keys; `forecast.config.loader` reads it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, field_validator, model_validator

from forecast.config.candidates import CandidateConfig, Dtype, PromptForm
from forecast.config.candidates import Quantize as Quantize
from forecast.config.nightly import NightlyConfig, ProxyFell
from forecast.config.sources import (
    ChoiceSource,
    Frozen,
    MeasuredSource,
    TrajectorySource,
    check_known,
    distinct,
    location,
)


class Window(Frozen):
    """Which solution tokens are scored: the last N tokens, the last N bytes of text, or all of them.

    A token that straddles the beginning of the last N bytes is left out. The proxies over bytes count the
    same bytes for all candidates, whatever the window.
    """

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


class ExpertConfig(Frozen):
    """Facts about an expert; a model's `family` names the candidates that it may favour."""

    family: str | None = Field(default=None, min_length=1)


class VllmConfig(Frozen):
    """Settings of vLLM: GPUs for one candidate, its share of their memory, and whether to skip compiling."""

    tensor_parallel: int = Field(default=1, ge=1)
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    eager: bool = True


class EngineConfig(Frozen):
    """How candidates are run; dtype `auto`: bfloat16 where the machine computes it natively, else float32.

    `kind: vllm` needs vLLM installed; `vllm` holds its settings. `share_prefixes`: what several texts begin
    with (a prompt's solutions, a question's options, a few-shot header) is computed once, where the model
    allows it.
    """

    kind: Literal["torch", "vllm", "fake"] = "torch"
    dtype: Dtype = "float32"
    device: str = "auto"
    batch_tokens: int | None = Field(default=None, ge=1)
    share_prefixes: bool = True
    vllm: VllmConfig = VllmConfig()


class ClusterConfig(Frozen):
    """Where it runs: `address` of a Ray cluster, or none to start Ray on this machine.

    `actors`: scoring processes, as many as fit by default. `gpus_per_actor: auto` follows each candidate's
    size and dtype; `gpu_memory_gib` (a number, or one by Ray's name of the GPU) is its memory where Ray's
    name does not tell. `resources`: what else of Ray's resources a process takes, e.g. to keep to
    certain machines. `autoscaling`: the cluster grows when it is asked for more than it has.
    `deadline_minutes`: a process that has not finished a shard by then (loading included) is ended and counts
    as having died. `patience_minutes`: how long to wait for a machine when none is left. `attempts`: how
    often work that takes its process with it, or that fails, is tried.
    """

    address: str | None = None
    actors: int | None = Field(default=None, ge=1)
    cpus_per_actor: float = Field(default=1, gt=0)
    gpus_per_actor: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    gpu_memory_gib: PositiveFloat | dict[str, PositiveFloat] | None = None
    resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    autoscaling: bool = False
    deadline_minutes: float = Field(default=240, gt=0)
    patience_minutes: float = Field(default=15, gt=0)
    attempts: int = Field(default=3, ge=1)

    @field_validator("gpus_per_actor")
    @classmethod
    def _shares_or_whole(cls, value: float | str) -> float | str:
        if isinstance(value, float) and value > 1 and value != int(value):
            raise ValueError("more than one GPU is a whole number of them")
        return value

    @model_validator(mode="after")
    def _growth_has_a_goal(self) -> "ClusterConfig":
        if self.autoscaling and self.actors is None:
            raise ValueError("autoscaling needs actors: how many processes the cluster should grow for")
        return self

    @property
    def on_gpu(self) -> bool:
        """Whether candidates run on GPUs, as far as this is known before the cluster is asked."""
        if self.gpus_per_actor == "auto":
            return Path("/dev/nvidiactl").exists()
        return self.gpus_per_actor > 0


class RankingConfig(Frozen):
    """How candidates are ranked. `targets` maps a measured task to the tasks whose proxies forecast it.

    Default: the task of the same name where trajectories of it exist, else all tasks.
    """

    targets: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    bootstraps: int = Field(default=1000, ge=0)
    permutations: int = Field(default=1000, ge=0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    seed: int = 0


class Config(Frozen):
    """A whole run; see `configs/demo.yaml` for one in use.

    `experts`: what is known of them, by the name that the trajectories give them. `candidates` may be left
    out where `nightly` watches training runs.
    """

    name: str = Field(min_length=1)
    output: Annotated[str, AfterValidator(location("s3"))]
    engine: EngineConfig = EngineConfig()
    window: Window = Window(last_tokens=1000)
    prompt_form: PromptForm = "raw"
    too_long: Literal["report", "truncate_prefix"] = "report"
    shard_trajectories: int = Field(default=32, ge=1)
    cluster: ClusterConfig = ClusterConfig()
    candidates: Annotated[
        tuple[CandidateConfig, ...], AfterValidator(distinct("candidate names", "name"))
    ] = ()
    trajectories: tuple[TrajectorySource, ...] = Field(min_length=1)
    experts: dict[str, ExpertConfig] = Field(default_factory=dict)
    direct_evaluation: Annotated[
        tuple[ChoiceSource, ...], AfterValidator(distinct("tasks of direct_evaluation", "task"))
    ] = ()
    measured_scores: tuple[MeasuredSource, ...] = ()
    ranking: RankingConfig = RankingConfig()
    nightly: NightlyConfig | None = None

    @field_validator("window", mode="before")
    @classmethod
    def _window_all(cls, value: Any) -> Any:
        return {} if value == "all" else value

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "Config":
        if not self.candidates and self.nightly is None:
            raise ValueError("candidates: list at least one, or watch a training run (nightly.watch)")
        parts, gpus = self.engine.vllm.tensor_parallel, self.cluster.gpus_per_actor
        if self.engine.kind == "vllm" and parts > 1 and gpus not in ("auto", 0, parts):
            raise ValueError(
                f"engine.vllm.tensor_parallel is {parts}, so an actor needs as many GPUs, but "
                f"cluster.gpus_per_actor is {float(gpus):g}; set it to {parts}, or to auto"
            )
        rules = self.nightly.alerts if self.nightly is not None else ()
        alarmed = [rule.task for rule in rules if isinstance(rule, ProxyFell) and rule.task is not None]
        forecasting = [task for tasks in self.ranking.targets.values() for task in tasks]
        for who, tasks in (("nightly.alerts: rule proxy_fell", alarmed), ("ranking.targets", forecasting)):
            known = dict.fromkeys(source.task for source in self.trajectories)
            check_known(tasks, known, f"{who} names tasks without trajectories", "with trajectories")
        return self
