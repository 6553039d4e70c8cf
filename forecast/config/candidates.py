"""Configuration of a candidate."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from forecast.config.sources import Frozen, location

PromptForm = Literal["raw", "chat"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class Quantize(Frozen):
    """Weight-only round-to-nearest of the decoder's linear layers: symmetric, one scale per input group."""

    bits: int = Field(ge=2, le=8)
    group_size: int = Field(default=64, ge=8)


class CandidateSettings(Frozen):
    """Settings of a candidate, wherever its weights are.

    `drop_layers` removes that many decoder layers just before the last one (a number) or the layers named (a
    list).
    """

    family: str | None = None
    dtype: Dtype | None = None
    prompt_form: PromptForm | None = None
    quantize: Quantize | None = None
    drop_layers: int | tuple[int, ...] = 0
    parameters: int | None = Field(default=None, ge=1)
    active_parameters: int | None = Field(default=None, ge=1)
    corpus: str | None = None
    corpus_group: str | None = None
    variant: str | None = None
    seed: int | None = None
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
        # One spelling for one model: its identity is a hash of this value.
        return value if isinstance(value, int) else tuple(sorted(value)) or 0


class CandidateConfig(CandidateSettings):
    """One candidate model: where its weights are and what is done to them at load time.

    `source` is a folder in Hugging Face layout or a `.gguf` file (each also as `s3://...`), a hub id
    (`org/name` or `org/name@revision`), `package://DISTRIBUTION/FILE` (a file carried by an installed Python
    package) or `fake://ABILITY` (a made-up model for tests of the plumbing).
    """

    name: str = Field(min_length=1)
    source: Annotated[
        str, Field(min_length=1), AfterValidator(location("s3", "package", "fake", or_hub_id=True))
    ]
    revision: str | None = None
    training_tokens: int | None = Field(default=None, ge=0)
    step: int | None = None

    @model_validator(mode="after")
    def _one_revision(self) -> "CandidateConfig":
        if self.revision is not None and "@" in self.source:
            raise ValueError("the revision is given twice, after the @ of source and as revision; remove one")
        return self
