"""The nightly part of a configuration file: defaults, paths, and mistakes with their lines."""

from pathlib import Path

import pytest

from forecast.config.loader import load_config
from forecast.config.nightly import DEFAULT_ALERTS
from forecast.errors import ConfigError

HEAD = "name: n\noutput: out\ntrajectories: [{task: t, path: t.jsonl}]\n"


def config(tmp_path: Path, text: str, head: str = HEAD) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(head + text)
    return path


def test_defaults_are_merged_and_folders_are_taken_from_the_file(tmp_path: Path) -> None:
    text = (
        "candidate_defaults: {dtype: bfloat16, family: common, revision: v1}\n"
        "nightly:\n  watch:\n"
        "    - {run: a, folder: runs/a}\n"
        "    - {run: b, folder: 's3://bucket/b', candidate: {family: own}}\n"
    )
    loaded = load_config(config(tmp_path, text))
    assert loaded.candidates == () and loaded.nightly is not None
    first, second = loaded.nightly.watch
    assert first.folder == str(tmp_path / "runs" / "a") and second.folder == "s3://bucket/b"
    assert (first.candidate.family, first.candidate.dtype) == ("common", "bfloat16")
    assert (second.candidate.family, second.candidate.dtype) == ("own", "bfloat16")
    assert loaded.nightly.alerts == DEFAULT_ALERTS
    assert first.completion_marker == "_SUCCESS"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{run: a, folder: x, patern: s}",
            "run.yaml:6: unknown key 'patern' in nightly.watch.0: did you mean 'pattern'",
        ),
        (
            "{run: a, folder: x, candidate: {famly: s}}",
            "run.yaml:6: unknown key 'famly' in nightly.watch.0.candidate: did you mean 'family'",
        ),
        ("{run: a, folder: x, candidate: {dtype: int}}", "run.yaml:6: nightly.watch.0.candidate.dtype: "),
        ("{run: a}", "run.yaml:6: nightly.watch.0: give either folder"),
        ("{run: a, folder: x}\n  alerts:\n    - {rule: fel}", "run.yaml:8: nightly.alerts.0: rule 'fel': "),
        (
            "{run: a, folder: x}\n  alerts:\n    - {rule: proxy_fell, dayz: 1}",
            "run.yaml:8: unknown key 'dayz' in nightly.alerts.0: known: rule, checkpoints, proxy, run, task",
        ),
        (
            "{run: a, folder: x}\n  alerts:\n    - {rule: nothing_new, dayz: 1}",
            "did you mean 'days'? known: rule, days, run",
        ),
        (
            "{run: a, folder: x}\n  alerts:\n    - {rule: proxy_fell, task: u}",
            "proxy_fell names tasks without trajectories: u; with trajectories: t",
        ),
        (
            "{run: a, folder: x}\n  alerts:\n    - {rule: proxy_fell, proxy: entropy__uniform}",
            "is unknown before measured scores are there",
        ),
    ],
)
def test_mistakes_are_explained_with_their_lines(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(config(tmp_path, f"nightly:\n  watch:\n    - {text}\n"))
    assert message in str(caught.value)


def test_a_mistake_in_the_defaults_stands_where_they_stand(tmp_path: Path) -> None:
    text = "candidate_defaults:\n  dtyp: float32\nnightly: {watch: [{run: a, folder: x}]}\n"
    with pytest.raises(ConfigError, match=r"run\.yaml:5: unknown key 'dtyp' in candidate_defaults"):
        load_config(config(tmp_path, text))


def test_there_must_be_something_to_score(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"list at least one, or watch a training run \(nightly\.watch\)"):
        load_config(config(tmp_path, ""))
