"""Reading a configuration file: paths, defaults, and messages that name the line and the remedy."""

from pathlib import Path

import pytest

from forecast.config.loader import load_config
from forecast.config.schema import Config
from forecast.errors import ConfigError

MINIMAL = """\
name: run
output: results
candidates:
  - {name: a, source: "fake://1"}
trajectories:
  - {task: sums, path: sums.jsonl}
"""


def load(folder: Path, text: str) -> Config:
    path = folder / "run.yaml"
    path.write_text(text)
    return load_config(path)


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return str(caught.value)


def test_relative_paths_are_taken_from_the_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "here" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "run.yaml").write_text(
        """\
name: run
output: ../results
candidates:
  - {name: folder, source: model}
  - {name: hub, source: org/model}
  - {name: gguf, source: weights/x.gguf}
  - {name: package, source: "package://dist/x.gguf"}
  - {name: missing, source: ./nothing}
trajectories:
  - {task: a, path: a.jsonl}
  - {task: b, path: "s3://bucket/b.jsonl"}
  - {task: c, dataset: org/data}
  - {task: d, dataset: ./data}
measured_scores:
  - {format: csv, path: scores.csv}
"""
    )
    config = load_config("here/run.yaml")
    here = tmp_path / "here"
    assert config.output == str(tmp_path / "results")
    assert [c.source for c in config.candidates] == [
        str(here / "model"),
        "org/model",
        str(here / "weights" / "x.gguf"),
        "package://dist/x.gguf",
        str(here / "nothing"),
    ]
    assert [t.path or t.dataset for t in config.trajectories] == [
        str(here / "a.jsonl"),
        "s3://bucket/b.jsonl",
        "org/data",
        str(here / "data"),
    ]
    assert config.measured_scores[0].path == str(here / "scores.csv")


def test_candidate_defaults_fill_what_a_candidate_leaves_open(tmp_path: Path) -> None:
    text = MINIMAL.replace(
        "candidates:\n",
        "candidate_defaults: {dtype: bfloat16, family: f}\n"
        "candidates:\n"
        "  - {name: b, source: x, dtype: float16}\n",
    )
    b, a = load(tmp_path, text).candidates
    assert (a.dtype, a.family) == ("bfloat16", "f")
    assert (b.dtype, b.family) == ("float16", "f")


def test_yaml_merge_keys_work(tmp_path: Path) -> None:
    text = MINIMAL.replace(
        '{name: a, source: "fake://1"}', '&one {name: a, source: "fake://1"}\n  - {<<: *one, name: b}'
    )
    assert [c.source for c in load(tmp_path, text).candidates] == ["fake://1", "fake://1"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("output:", "ouput:", ["run.yaml:2: unknown key 'ouput' in the top level", "did you mean 'output'?"]),
        (
            "path: sums.jsonl",
            "pth: x",
            ["run.yaml:6: unknown key 'pth' in trajectories.0", "did you mean 'path'?"],
        ),
        ("source:", "dytpe: auto, source:", ["run.yaml:4: unknown key 'dytpe'", "did you mean 'dtype'?"]),
        (
            "sums.jsonl}",
            "sums.jsonl,\n     columns: {promt: q}}",
            ["run.yaml:7: unknown key 'promt' in trajectories.0.columns", "did you mean 'prompt'?"],
        ),
        (
            "name: run\n",
            "name: run\ncandidate_defaults:\n  dtyp: auto\n",
            ["run.yaml:3: unknown key 'dtyp' in candidate_defaults", "did you mean 'dtype'?"],
        ),
        ("name: run\n", "name: run\nqqq: 1\n", ["run.yaml:2: unknown key 'qqq'", "known: name, output"]),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_one(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    message = complaint(tmp_path, MINIMAL.replace(old, new, 1))
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: run", "name: 0.5", "run.yaml:1: name: expected text; put it in quotes; got 0.5"),
        ("output: results\n", "", "run.yaml:1: output: missing"),
        ("{name: a, source", "{source", "run.yaml:4: candidates.0.name: missing"),
        (
            '- {name: a, source: "fake://1"}',
            "- a",
            "run.yaml:4: candidates.0: expected keys with values; got 'a'",
        ),
        ("output: results", "output: results\nwindow: {last_tokens: 0}", "run.yaml:3: window.last_tokens: "),
        (
            "output: results",
            "output: results\nwindow: {last_tokens: 1, last_bytes: 1}",
            "run.yaml:3: window: give",
        ),
        ("output: results", "output: gs://b/x", "run.yaml:2: output: 'gs://b/x' is none of the places"),
        ("sums.jsonl}", "sums.jsonl, prompt_template: '{'}", "run.yaml:6: trajectories.0.prompt_template: "),
        (
            "name: run\n",
            "name: run\ncandidate_defaults:\n  family: f\n  dtype: float33\n",
            "run.yaml:4: candidate_defaults.dtype: Input should be 'auto'",
        ),
        (
            "name: run\n",
            "name: run\ncandidate_defaults: 3\n",
            "run.yaml:2: candidate_defaults: expected keys",
        ),
        (
            'source: "fake://1"}',
            'source: "fake://1"}\n  - {name: a, source: "fake://2"}',
            "run.yaml:3: candidates: candidate names must differ; repeated: a",
        ),
    ],
)
def test_a_wrong_value_is_one_message_with_its_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    message = complaint(tmp_path, MINIMAL.replace(old, new, 1))
    assert expected in message
    assert len(message.splitlines()) == 1


def test_a_value_that_fits_no_member_of_a_union_is_one_message(tmp_path: Path) -> None:
    message = complaint(tmp_path, MINIMAL.replace("name: a,", "name: a, drop_layers: some,"))
    (line,) = message.splitlines()
    assert line.startswith(f"{tmp_path / 'run.yaml'}:4: candidates.0.drop_layers: ")
    assert "integer" in line and "or: expected a list; got 'some'" in line


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    message = complaint(tmp_path, MINIMAL.replace("name: run", "nmae: run").replace("path:", "pth:"))
    assert "run.yaml:1: unknown key 'nmae'" in message
    assert "run.yaml:6: unknown key 'pth'" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL + "name: again\n", "run.yaml:7: not valid YAML: the key 'name' is given twice"),
        (
            MINIMAL.replace("task: sums", "task: sums, task: b"),
            "run.yaml:6: not valid YAML: the key 'task' is given",
        ),
        ("name: [", "run.yaml:1: not valid YAML: "),
        ("a: 1\n[1, 2]: 3\n", "run.yaml:2: not valid YAML: "),
        ("- a\n- b\n", "run.yaml:1: expected keys such as name"),
        ("", "run.yaml:1: expected keys such as name"),
    ],
)
def test_what_is_no_mapping_is_refused_with_the_line(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in complaint(tmp_path, text)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no configuration file at {tmp_path}/none.yaml"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be read"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: gr\xfcn".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml cannot be read"):
        load_config(tmp_path / "latin.yaml")


def test_secrets_of_a_wrong_value_are_not_repeated(tmp_path: Path) -> None:
    text = (
        "name: a\noutput: s3://KEY:SECRET@bucket/out\n"
        "trajectories: [{task: t, path: 'https://KEY:SECRET@host/x?token=SECRET'}]\n"
        "nightly: {watch: [{run: r, hub: o/r}], deliver: [{webhook: 'chat.example/hooks/SECRET'}]}\n"
    )
    said = complaint(tmp_path, text)
    assert "SECRET" not in said.replace("AWS_SECRET_ACCESS_KEY", "")
    assert ":2: output: " in said and ":3: trajectories.0.path: " in said and "deliver.0.webhook" in said


@pytest.mark.parametrize(
    "number",
    ["1_0", "010", "0o10", "0x10", "0b11", "1:30", "1_000.5", "1:30.5", "+0x1", '"1_0"', '"1_0.5"', "１０"],
)
@pytest.mark.parametrize("key", ["bootstraps", "confidence"])
def test_numbers_that_are_not_decimal_are_refused_with_the_line(
    tmp_path: Path, key: str, number: str
) -> None:
    line = 7 if number.startswith('"') else 8
    assert f"run.yaml:{line}: " in complaint(tmp_path, MINIMAL + f"ranking:\n  {key}: {number}\n")


def test_decimal_numbers_and_texts_with_digits_are_read(tmp_path: Path) -> None:
    for text, value in (("0.55", 0.55), (".75", 0.75), ("6.e-1", 0.6), ("8e-1", 0.8), ('"0.6"', 0.6)):
        assert load(tmp_path, MINIMAL + f"ranking: {{confidence: {text}}}\n").ranking.confidence == value
    config = load(tmp_path, MINIMAL.replace("task: sums", 'task: "1_000"'))
    assert config.trajectories[0].task == "1_000"


@pytest.mark.parametrize(
    "text",
    [
        "ranking: {seed: 1, seed: 1}\n",
        "ranking:\n  targets: {a: [b], a: [c]}\n",
        'engine: {kind: fake, "kind": torch}\n',
        "ranking: {seed: 1}\nranking: {seed: 1}\n",
    ],
)
def test_keys_given_twice_are_refused_at_every_depth(tmp_path: Path, text: str) -> None:
    assert "is given twice" in complaint(tmp_path, MINIMAL + text)


def test_a_path_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "x\udcff"
    folder.mkdir()
    with pytest.raises(ConfigError, match="no UTF-8; rename"):
        load(folder, "name: a\n")
