"""Configuration of `forecast nightly`: watched runs, alert rules and their delivery."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from forecast.config.candidates import CandidateSettings
from forecast.config.sources import Frozen, check_known, distinct, location
from forecast.errors import did_you_mean
from forecast.proxies.token_proxies import PROXIES

STEP = "{step}"


# Of a checkpoint's folder or revision: common names, the Hugging Face Trainer's among them.
DEFAULT_PATTERNS = (f"step_{STEP}", f"step-{STEP}", f"step{STEP}", f"checkpoint-{STEP}")
DEFAULT_MARKER = "_SUCCESS"


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _step_pattern(value: str) -> str:
    if value.count(STEP) != 1:
        raise ValueError(f"write {STEP} once, where the number of the step stands, e.g. step_{STEP}")
    if "/" in value:
        raise ValueError("the pattern is of one name, without a /")
    return value


def _file_name(value: str) -> str:
    if "/" in value or value in (".", ".."):
        raise ValueError("the marker is the name of a file within the checkpoint's folder, without a /")
    return value


def _plain_name(value: str) -> str:
    if re.search(r"[\x00-\x1f]", value) or value != value.strip():
        raise ValueError("a name has no line breaks and no spaces around it")
    return value


class WatchConfig(Frozen):
    """A training run whose checkpoints keep arriving, in subfolders of `folder` or as revisions of `hub`.

    `pattern` is the name of a checkpoint, or several: `{step}` stands for digits, `*` for anything. Folders
    that do not match are ignored. `marker` is the file that marks a checkpoint as complete; or, without one,
    it is complete when nothing in it has changed for `settled_minutes`. A revision of a hub repository always
    is. `every` takes only multiples of it. `final_step`: where training will end, for forecasts.
    `candidate`: settings of all its checkpoints, as in `candidates`; `family` defaults to the run's name.
    """

    run: Annotated[str, AfterValidator(_plain_name)] = Field(min_length=1)
    folder: Annotated[str, Field(min_length=1), AfterValidator(location("s3"))] | None = None
    hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    pattern: Annotated[
        tuple[Annotated[str, AfterValidator(_step_pattern)], ...], BeforeValidator(_as_tuple)
    ] = Field(default=DEFAULT_PATTERNS, min_length=1)
    marker: Annotated[str, AfterValidator(_file_name)] | None = Field(default=None, min_length=1)
    settled_minutes: float | None = Field(default=None, gt=0, le=100_000)
    every: int | None = Field(default=None, ge=1)
    final_step: int | None = Field(default=None, ge=1)
    tokens_per_step: int | None = Field(default=None, ge=1)
    candidate: CandidateSettings = CandidateSettings()

    @model_validator(mode="after")
    def _one_place(self) -> "WatchConfig":
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give either folder (of checkpoints) or hub (a repository)")
        if self.hub is not None and (self.marker, self.settled_minutes) != (None, None):
            raise ValueError(
                "marker and settled_minutes belong to folder; a revision of a hub repository is always whole"
            )
        if self.marker is not None and self.settled_minutes is not None:
            raise ValueError("give either marker (a file) or settled_minutes (without a marker), not both")
        return self

    @property
    def completion_marker(self) -> str | None:
        """The file that marks a checkpoint as complete; None where none does."""
        if self.folder is None or self.settled_minutes is not None:
            return None
        return self.marker or DEFAULT_MARKER

    @property
    def place(self) -> str:
        """Where it is watched, as messages name it."""
        return self.folder or f"hub repository {self.hub}"

    def step_of(self, name: str) -> int | None:
        """The step that a folder or revision of this name is of; None where it is no checkpoint."""
        step = self.step_in(name)
        return None if step is None or (self.every is not None and step % self.every) else step

    def step_in(self, name: str) -> int | None:
        """The step in a name that matches a pattern, whether or not it is a multiple of `every`."""
        for pattern in self.pattern:
            text = re.escape(pattern).replace(re.escape(STEP), r"(\d+)").replace(r"\*", ".*?")
            if (found := re.fullmatch(text, name, flags=re.ASCII | re.DOTALL)) is not None:
                return int(found[1])
        return None


class NightlyForecast(Frozen):
    """What is forecast for the end of each run; see the options of `forecast extrapolate`.

    `target`: a metric of measured scores or direct evaluation; none: the one that most checkpoints have.
    """

    target: str | None = None
    proxies: tuple[str, ...] = Field(default=("cross_entropy__uniform",), min_length=1)
    confidence: float = Field(default=0.9, ge=0.5, le=0.999)


class ForecastFell(Frozen):
    """The forecast for the end of training fell below an earlier interval; see `nightly.forecast_drop`."""

    rule: Literal["forecast_fell"]
    run: str | None = None
    task: str | None = None


def _good_direction_known(value: str) -> str:
    proxies = {proxy.name: proxy for proxy in PROXIES}
    if value not in proxies:
        raise ValueError(f"no proxy is called {value!r}; {did_you_mean(value, list(proxies))}")
    if proxies[value].learned:
        raise ValueError(
            f"the direction of {value} is unknown before measured scores are there, so a fall cannot be "
            "defined; choose another proxy"
        )
    return value


DirectedProxy = Annotated[str, AfterValidator(_good_direction_known)]


class ProxyFell(Frozen):
    """A proxy got worse from each checkpoint to the next, `checkpoints` times in a row.

    On a healthy run of 185 checkpoints and 20 tasks (OLMo-2 7B, bits per byte) 3 in a row alarmed 106 times,
    four 21 times, five three times.
    """

    rule: Literal["proxy_fell"]
    checkpoints: int = Field(default=5, ge=1)
    proxy: DirectedProxy = "cross_entropy__uniform"
    run: str | None = None
    task: str | None = None


class Spike(Frozen):
    """A checkpoint lies far behind the best before it, by a proxy of all tasks; see `best_so_far.is_spike`.

    `least`: by this share of the best value or more, e.g. 0.05 is 2.1 after 2.0.
    """

    rule: Literal["spike"]
    proxy: DirectedProxy = "cross_entropy__uniform"
    least: float = Field(default=0.05, ge=0)
    run: str | None = None


class FailedToLoad(Frozen):
    """A checkpoint could not be loaded or scored."""

    rule: Literal["failed_to_load"]
    run: str | None = None


class NothingNew(Frozen):
    """No new checkpoint of a run for so many days, although training has not ended."""

    rule: Literal["nothing_new"]
    days: int = Field(default=3, ge=1)
    run: str | None = None


class NothingMatches(Frozen):
    """Something lies where checkpoints are watched, and none of it ever had the name of one."""

    rule: Literal["nothing_matches"]
    run: str | None = None


AlertRule = Annotated[
    Spike | ForecastFell | ProxyFell | FailedToLoad | NothingNew | NothingMatches,
    Field(discriminator="rule"),
]

DEFAULT_ALERTS: tuple[AlertRule, ...] = (
    Spike(rule="spike"),
    ForecastFell(rule="forecast_fell"),
    ProxyFell(rule="proxy_fell"),
    FailedToLoad(rule="failed_to_load"),
    NothingNew(rule="nothing_new"),
    NothingMatches(rule="nothing_matches"),
)
RULES: dict[str, type[Frozen]] = {alert.rule: type(alert) for alert in DEFAULT_ALERTS}


class Deliver(Frozen):
    """Where alerts go: posted to a webhook as JSON, or given to a command on its standard input.

    `webhook_env` names an environment variable that holds the URL, for one that is a secret.
    """

    webhook: str | None = Field(default=None, pattern=r"^https?://\S+$")
    webhook_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    command: tuple[str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_way(self) -> "Deliver":
        given = [v for v in (self.webhook, self.webhook_env, self.command) if v is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of webhook, webhook_env and command")
        return self


class NightlyConfig(Frozen):
    """What `forecast nightly` does; without `alerts` all rules with their defaults."""

    watch: Annotated[tuple[WatchConfig, ...], AfterValidator(distinct("names of watched runs", "run"))] = (
        Field(min_length=1)
    )
    forecast: NightlyForecast = NightlyForecast()
    alerts: tuple[AlertRule, ...] = DEFAULT_ALERTS
    deliver: tuple[Deliver, ...] = ()

    @field_validator("watch")
    @classmethod
    def _runs_differ(cls, value: tuple[WatchConfig, ...]) -> tuple[WatchConfig, ...]:
        kinds: dict[Any, str] = {}
        for watch in value:
            own = watch.candidate  # what identifies a run in the warehouse; see `checkpoints.runs_from_run`
            kind = (own.family or watch.run, own.corpus, own.seed, own.quantize, own.drop_layers)
            if (first := kinds.setdefault(kind, watch.run)) != watch.run:
                raise ValueError(
                    f"runs {first!r} and {watch.run!r} cannot be distinguished in the results; give their "
                    "candidate different `family`, `corpus` or `seed`"
                )
        return value

    @model_validator(mode="after")
    def _alerts_of_known_runs(self) -> "NightlyConfig":
        named = [alert.run for alert in self.alerts if alert.run is not None]
        check_known(named, [w.run for w in self.watch], "alerts name runs that are not watched", "watched")
        return self
