"""Two setups from one configuration: what an option changes, and which folder holds the result."""

from pathlib import Path
from typing import Any

import pytest

from forecast.analysis.parity.setups import Setups, two_setups
from forecast.config.schema import Config
from forecast.errors import ConfigError
from forecast.inputs.models.resolve import native_dtype


def config(candidates: Any = ({"name": "m", "source": "/m"},), **settings: Any) -> Config:
    return Config.model_validate(
        {
            "name": "test",
            "output": "/out",
            "candidates": list(candidates),
            "trajectories": [{"task": "t", "path": "/t.jsonl"}],
            **settings,
        }
    )


def dtypes(setups: Setups) -> tuple[str, str]:
    return setups.base.config.engine.dtype, setups.against.config.engine.dtype


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({}, ("float32", "bfloat16")),
        ({"dtype": "bfloat16"}, ("bfloat16", "float32")),
        ({"dtype": "float16"}, ("float16", "bfloat16")),
    ],
)
def test_default_is_the_other_dtype(engine: dict[str, str], expected: tuple[str, str]) -> None:
    setups = two_setups(config(engine=engine))
    assert dtypes(setups) == expected
    assert (setups.base.label, setups.against.label) == (f"torch, {expected[0]}", f"torch, {expected[1]}")


def test_auto_dtype_is_resolved() -> None:
    setups = two_setups(config(engine={"dtype": "auto"}))
    assert dtypes(setups)[0] == native_dtype(False)
    assert set(dtypes(setups)) == {"float32", "bfloat16"}
    own = [{"name": "m", "source": "/m", "dtype": "auto"}]
    setups = two_setups(config(own), against=["batch_tokens=1"])
    assert setups.base.config.candidates[0].dtype == native_dtype(False)


def test_against_starts_from_the_base() -> None:
    setups = two_setups(
        config(engine={"dtype": "bfloat16"}),
        ["dtype=float32, batch_tokens=64"],
        ["batch_tokens=1,share_prefixes=false", "device=cuda:1"],
    )
    base, against = setups.base.config.engine, setups.against.config.engine
    assert (base.dtype, base.batch_tokens, base.share_prefixes, base.device) == ("float32", 64, True, "auto")
    assert (against.dtype, against.batch_tokens, against.share_prefixes) == ("float32", 1, False)
    assert against.device == "cuda:1"
    assert setups.base.label == "torch, float32, device=auto, batch_tokens=64, share_prefixes=true"
    assert setups.against.label == "torch, float32, device=cuda:1, batch_tokens=1, share_prefixes=false"


def test_engine_is_the_kind_and_dots_reach_into_sections() -> None:
    setups = two_setups(config(), against=["engine=vllm", "vllm.tensor_parallel=2"])
    assert setups.against.config.engine.kind == "vllm"
    assert setups.against.config.engine.vllm.tensor_parallel == 2
    assert setups.base.config.engine.kind == "torch"
    assert setups.against.label == "vllm, float32, vllm.tensor_parallel=2"
    back = two_setups(config(engine={"batch_tokens": 8}), against=["batch_tokens=null"])
    assert back.against.config.engine.batch_tokens is None
    assert back.against.label == "torch, float32, batch_tokens=null"


CANDIDATES = (
    {"name": "own", "source": "/a", "dtype": "bfloat16"},
    {"name": "plain", "source": "/b"},
)


def test_a_dtype_on_either_side_holds_for_all_candidates() -> None:
    for options in ({}, {"against": ["dtype=bfloat16"]}, {"base": ["dtype=float16"]}):
        setups = two_setups(config(CANDIDATES), **options)
        for setup in (setups.base, setups.against):
            assert [c.dtype for c in setup.config.candidates] == [None, None]
        assert setups.notes == ("the dtypes compared here replace the one that is set for own",)


def test_without_a_dtype_candidates_keep_theirs() -> None:
    setups = two_setups(config(CANDIDATES), against=["batch_tokens=1"])
    assert [c.dtype for c in setups.against.config.candidates] == ["bfloat16", None]
    assert setups.base.label == "torch, bfloat16 and float32, batch_tokens=null"
    assert setups.notes == ()


def test_every_setup_has_a_folder_of_its_own() -> None:
    options = (
        ["dtype=bfloat16"],
        ["batch_tokens=1"],
        ["batch_tokens=2"],
        ["share_prefixes=false"],
        ["device=cuda"],
        ["engine=vllm"],
        ["engine=vllm,vllm.eager=false"],
    )
    every = [two_setups(config(), against=option) for option in options]
    folders = {setups.against.config.output for setups in every}
    assert len(folders) == len(options)
    assert len({setups.base.config.output for setups in every}) == 1, "the base is scored once for all"
    assert folders.isdisjoint({every[0].base.config.output})
    assert all(folder.startswith("/out/parity/") for folder in folders)
    on_gpu = two_setups(config(cluster={"gpus_per_actor": 1}))
    assert on_gpu.base.config.output != every[0].base.config.output, "device: auto is another one there"
    remote = two_setups(config(output="s3://bucket/run"))
    assert remote.base.config.output.startswith("s3://bucket/run/parity/torch-float32-")


def test_only_some_candidates_and_trajectories() -> None:
    sources = [
        {"task": "t", "path": "/a.jsonl"},
        {"task": "t", "path": "/b.jsonl", "expert": "other", "limit": 2},
        {"task": "u", "path": "/c.jsonl"},
    ]
    whole = config(
        CANDIDATES,
        trajectories=sources,
        measured_scores=[{"format": "csv", "path": "/scores.csv"}],
        direct_evaluation=[
            {"task": "q", "path": "/q.jsonl", "prompt_template": "{q}", "choices": "c", "answer": "a"}
        ],
    )
    for setup in (two_setups(whole, candidates=["plain"], trajectories=7).base, two_setups(whole).against):
        assert (setup.config.direct_evaluation, setup.config.measured_scores) == ((), ())
    one = two_setups(whole, candidates=["plain"], trajectories=7)
    assert [c.name for c in one.against.config.candidates] == ["plain"]
    assert [t.limit for t in one.against.config.trajectories] == [3, 2, 7], "at most 7 of each task"
    assert [t.limit for t in two_setups(whole).base.config.trajectories] == [None, 2, None]
    assert [t.limit for t in two_setups(whole, trajectories=1).base.config.trajectories] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"against": ["dtyp=bfloat16"]},
            ["--against dtyp=bfloat16", "did you mean 'dtype'?", "engine, dtype"],
        ),
        ({"against": ["bfloat16"]}, ["--against bfloat16", "expected KEY=VALUE"]),
        ({"against": ["dtype="]}, ["expected KEY=VALUE"]),
        ({"against": [""]}, ["expected KEY=VALUE"]),
        (
            {"against": ["dtype=int4,batch_tokens=x"]},
            ["--against dtype: ", "'int4'", "batch_tokens: ", "'x'"],
        ),
        ({"base": ["batch_tokens=0"]}, ["--base batch_tokens: ", "greater than or equal to 1"]),
        ({"against": ["vllm=1"]}, ["no key 'vllm'", "vllm.eager"]),
        ({"against": ["engine=vllm", "kind=torch"]}, ["kind is given twice"]),
        ({"against": ["dtype=float32"]}, ["that is the base itself (torch, float32)"]),
        ({"base": ["dtype=bfloat16"], "against": ["dtype=bfloat16"]}, ["torch, bfloat16", "nothing to"]),
        ({"candidates": ["plian"]}, ["no candidate 'plian'", "did you mean 'plain'?"]),
    ],
)
def test_invalid_options_raise(options: dict[str, list[str]], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        two_setups(config(CANDIDATES), **options)
    assert all(words in str(error.value) for words in expected), error.value


def test_configuration_is_not_changed(tmp_path: Path) -> None:
    given = config(CANDIDATES, output=str(tmp_path))
    before = given.model_dump_json()
    two_setups(given, candidates=["own"], trajectories=3)
    assert given.model_dump_json() == before
