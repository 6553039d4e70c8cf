"""The schema: what a configuration may say, and what it may not."""

from typing import Any

import pytest
from pydantic import ValidationError

from forecast.config.schema import CandidateConfig, Config, Quantize, Window
from forecast.config.sources import ChoiceSource, DataSource, MeasuredSource, TrajectorySource
from forecast.errors import ConfigError

CANDIDATE: dict[str, Any] = {"name": "a", "source": "fake://1"}
TRAJECTORIES: dict[str, Any] = {"task": "sums", "path": "sums.jsonl"}
CHOICES: dict[str, Any] = {
    "task": "quiz",
    "path": "q.jsonl",
    "prompt_template": "{q}",
    "choices": "options",
    "answer": "key",
}


def config(**keys: Any) -> Config:
    return Config.model_validate(
        {"name": "run", "output": "out", "candidates": [CANDIDATE], "trajectories": [TRAJECTORIES], **keys}
    )


def candidate(**keys: Any) -> CandidateConfig:
    return CandidateConfig.model_validate({**CANDIDATE, **keys})


def test_defaults_are_the_papers() -> None:
    got = config()
    assert got.window == Window(last_tokens=1000)
    assert (got.prompt_form, got.too_long, got.engine.dtype) == ("raw", "report", "float32")


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config().name = "other"


@pytest.mark.parametrize(
    ("window", "expected"),
    [("all", "all"), ({"last_tokens": 5}, "last-5-tokens"), ({"last_bytes": 7}, "last-7-bytes")],
)
def test_windows_and_their_names(window: Any, expected: str) -> None:
    assert str(config(window=window).window) == expected


def test_quantize_takes_bits_alone() -> None:
    assert candidate(quantize=4).quantize == Quantize(bits=4, group_size=64)


@pytest.mark.parametrize(("given", "kept"), [(3, 3), ([5, 2], (2, 5)), ([], 0), (0, 0)])
def test_dropped_layers_have_one_spelling(given: Any, kept: Any) -> None:
    assert candidate(drop_layers=given).drop_layers == kept


def test_labels_tell_sources_apart() -> None:
    assert DataSource(path="a.csv").label == "a.csv"
    assert DataSource(dataset="org/name").label == "org/name[train]"
    assert DataSource(dataset="org/name", config="main", split="test").label == "org/name/main[test]"


@pytest.mark.parametrize("template", ["{q}", "Q: {q.text}\nA:", "no column", "{{literal}} {q}"])
def test_templates_name_columns(template: str) -> None:
    assert TrajectorySource(**TRAJECTORIES, prompt_template=template).prompt_template == template


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Window(last_tokens=1, last_bytes=1), "not both"),
        (lambda: candidate(drop_layers=-1), "0 or more"),
        (lambda: candidate(drop_layers=[1, 1]), "each index once"),
        (lambda: candidate(drop_layers=[-1]), "none below 0"),
        (lambda: CandidateConfig(name="a", source="org/x@v1", revision="v2"), "given twice"),
        (
            lambda: CandidateConfig(name="a", source="gs://bucket/model"),
            "a local path, s3://..., package://..., fake://",
        ),
        (lambda: DataSource(path="a.csv", dataset="b"), "either path"),
        (lambda: DataSource(), "either path"),
        (lambda: DataSource(path="a.csv", split="train"), "belong to dataset"),
        (lambda: DataSource(path="gs://bucket/a.csv"), "a local path, s3://..., package://"),
        (lambda: TrajectorySource(**TRAJECTORIES, prompt_template="{q"), "braces"),
        (lambda: TrajectorySource(**TRAJECTORIES, prompt_template="{}"), "name a column"),
        (lambda: TrajectorySource(**TRAJECTORIES, solution_template="{x:.2f}"), "nothing else"),
        (lambda: TrajectorySource(**TRAJECTORIES, solution_template="{x!r}"), "nothing else"),
        (lambda: ChoiceSource(**CHOICES, choice_pattern="("), "not a regular expression"),
        (lambda: ChoiceSource(**CHOICES, choice_pattern="A.*"), "in parentheses"),
        (lambda: MeasuredSource(format="csv", path="s.csv", metric=()), "name a metric"),
        (lambda: MeasuredSource(format="csv", path="r.csv", candidate="a"), "belongs to format lm_eval"),
        (lambda: config(output="gs://bucket/out"), "a local path, s3://"),
        (lambda: config(candidates=[CANDIDATE, CANDIDATE]), "names must differ; repeated: a"),
        (lambda: config(direct_evaluation=[CHOICES, CHOICES]), "must differ; repeated: quiz"),
        (lambda: config(ranking={"targets": {"quiz": ["smus"]}}), "without trajectories: smus; .* sums"),
        (
            lambda: config(
                engine={"kind": "vllm", "vllm": {"tensor_parallel": 2}}, cluster={"gpus_per_actor": 1}
            ),
            "tensor_parallel is 2.*gpus_per_actor is 1; set it to 2",
        ),
        (lambda: config(cluster={"cpus_per_actor": float("inf")}), "finite"),
    ],
)
def test_contradictions_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build()


@pytest.mark.parametrize(
    "path", ["s3://KEY:SECRET@bucket/t.csv", "https://KEY:SECRET@host/t.csv?token=SECRET"]
)
def test_a_file_that_a_command_names_is_refused_without_its_secrets(path: str) -> None:
    with pytest.raises(ConfigError, match=r"expected|can be used") as caught:
        DataSource.at(path)
    assert "SECRET" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")
