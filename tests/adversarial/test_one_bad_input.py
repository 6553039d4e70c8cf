"""One bad input spoils only itself: everything else of the run is planned, looked at or read."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from house import House
from lakes import config_of, solutions
from training_runs import MARKER, stub_checkpoint, truncate

from forecast.config.loader import load_config
from forecast.config.nightly import NightlyConfig, WatchConfig
from forecast.config.sources import LARGEST
from forecast.errors import ConfigError, InterruptedRun
from forecast.inputs.models.resolve import resolve_candidate
from forecast.nightly.discovery import candidate_of_checkpoint, look
from forecast.nightly.run_night import prepare
from forecast.plan import imported_scores, make_plan

NOT_UTF8 = os.fsdecode(b"\xff\xfe")


class PanicException(BaseException):
    """As a panic in Rust arrives in Python."""


def header(folder: Path, content: bytes, length: int | None = None) -> None:
    """Give a model folder this header of its weights."""
    data = struct.pack("<Q", len(content) if length is None else length) + content
    (folder / "model.safetensors").write_bytes(data)


def tensor(shape: Any, end: int = 8) -> bytes:
    return json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def break_(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return break_


BAD_FOLDERS: dict[str, Callable[[Path], object]] = {
    "header nested": lambda f: header(f, b'{"w":' + 100_000 * b"[" + 100_000 * b"]" + b"}"),
    "header longer than the file": lambda f: header(f, b"{}", 1 << 62),
    "header not UTF-8": lambda f: header(f, b'{"\xff": 1}'),
    "shape NaN": lambda f: header(f, tensor([float("nan")])),
    "shape negative": lambda f: header(f, tensor([-2])),
    "shape a text": lambda f: header(f, tensor(["2"])),
    "shape of thousands of digits": lambda f: header(
        f, b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}'
    ),
    "parameters that no result can hold": lambda f: header(f, tensor([1 << 62, 1 << 62])),
    "weights a device": replaced("model.safetensors", lambda p: p.symlink_to("/dev/zero")),
    "weights a pipe": replaced("model.safetensors", os.mkfifo),
    "weights a folder": replaced("model.safetensors", Path.mkdir),
    "weights a link to itself": replaced("model.safetensors", lambda p: p.symlink_to(p.name)),
    "weights empty": replaced("model.safetensors", Path.touch),
    "config a device": replaced("config.json", lambda p: p.symlink_to("/dev/zero")),
    "config a pipe": replaced("config.json", os.mkfifo),
    "config nested": lambda f: (f / "config.json").write_text(100_000 * "["),
    "config not UTF-8": lambda f: (f / "config.json").write_bytes(b"\xff\xfe{"),
    "config of a million layers": lambda f: (f / "config.json").write_text('{"num_hidden_layers": 1000000}'),
    "tokenizer a pipe": replaced("tokenizer.json", os.mkfifo),
    "tokenizer a device": replaced("tokenizer.json", lambda p: p.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("kind", BAD_FOLDERS)
def test_bad_model_folder_is_its_own_failure(tmp_path: Path, kind: str) -> None:
    BAD_FOLDERS[kind](stub_checkpoint(tmp_path / "bad"))
    stub_checkpoint(tmp_path / "good")
    sources = {"bad": str(tmp_path / "bad"), "good": str(tmp_path / "good")}
    plan = make_plan(config_of(tmp_path, {"t": solutions("a")}, sources, engine={"kind": "torch"}))
    assert [candidate.name for candidate in plan.candidates] == ["good"]
    (failure,) = plan.failures
    assert failure.name == "bad" and str(tmp_path / "bad") in failure.error and "'bad'" in failure.error


BAD_SOURCES = {
    "name too long": "/" + 300 * "x",
    "path too long": "/" + 3000 * "x/",
    "hub id too long": 5000 * "x",
    "null byte": "/a\0b",
    "link to itself": "loop",
    "folder within a file": "/etc/passwd/model",
    "GGUF a device": "zero.gguf",
    "GGUF a pipe": "pipe.gguf",
}


@pytest.mark.parametrize("kind", BAD_SOURCES)
def test_bad_source_is_its_own_failure(tmp_path: Path, kind: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero.gguf").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.gguf")
    stub_checkpoint(tmp_path / "good")
    written = BAD_SOURCES[kind]
    source = str(tmp_path / written) if len(written) < 20 else written
    sources = {"bad": source, "good": str(tmp_path / "good")}
    plan = make_plan(config_of(tmp_path, {"t": solutions("a")}, sources, engine={"kind": "torch"}))
    assert [candidate.name for candidate in plan.candidates] == ["good"]
    assert [(failure.subject, failure.name) for failure in plan.failures] == [("candidate", "bad")]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_unreadable_folder_is_its_own_failure(tmp_path: Path) -> None:
    stub_checkpoint(tmp_path / "bad").chmod(0)
    stub_checkpoint(tmp_path / "good")
    sources = {"bad": str(tmp_path / "bad"), "good": str(tmp_path / "good")}
    plan = make_plan(config_of(tmp_path, {"t": solutions("a")}, sources, engine={"kind": "torch"}))
    assert [f.name for f in plan.failures] == ["bad"]


ERRORS = [
    OSError(5, "Input/output error"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    RecursionError("maximum recursion depth exceeded"),
    MemoryError(),
    OverflowError("Python int too large to convert to C long"),
    KeyError("w"),
    AssertionError(),
    PanicException("called `Option::unwrap()` on a `None` value"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_error_of_a_reader_is_a_failure_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> Any:
        raise error

    config = config_of(
        tmp_path,
        {"t": solutions("a")},
        {"bad": "fake://1", "good": "fake://2"},
        {"c": [{"id": "a", "prompt": "?", "options": ["x", "y"], "answer": 0}]},
        measured_scores=[{"format": "csv", "path": str(tmp_path / "scores.csv")}],
    )
    plan = make_plan(config, lambda s, c: fail() if s.name == "bad" else resolve_candidate(s, c))
    assert [c.name for c in plan.candidates] == ["good"] and {u.shard.task for u in plan.units} == {"t", "c"}
    failure, no_scores = plan.failures  # the file of scores is not there
    assert no_scores.subject == "measured_scores"
    assert failure.error.startswith("candidate 'bad': fake://1 cannot be read: " + type(error).__name__)

    for reader, task in (("load_trajectories", "t"), ("load_choices", "c")):
        with monkeypatch.context() as patch:
            patch.setattr(f"forecast.plan.{reader}", fail)
            plan = make_plan(config)
        assert {u.shard.task for u in plan.units} == {"t", "c"} - {task}
        failure, _ = plan.failures
        assert (failure.subject, failure.name) == ("task", task) and str(tmp_path) in failure.error

    monkeypatch.setattr("forecast.plan.load_scores", fail)
    scores, (failure,), _ = imported_scores(config)
    assert scores == () and failure.subject == "measured_scores" and str(tmp_path) in failure.error


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, InterruptedRun])
def test_what_ends_the_program_is_no_failure(tmp_path: Path, end: type[BaseException]) -> None:
    def fail(*_: object) -> Any:
        raise end

    with pytest.raises(end):
        make_plan(config_of(tmp_path, {"t": solutions("a")}, {"a": "fake://1"}), fail)


@pytest.mark.parametrize("text", [r'"\ud800"', '"\\udcff"'])
def test_bad_rows_are_their_tasks_failure(tmp_path: Path, text: str) -> None:
    config = config_of(tmp_path, {"bad": solutions("a"), "good": solutions("a")}, {"a": "fake://1"})
    (tmp_path / "solutions-bad.jsonl").write_text(
        '{"id": "a", "expert": "e", "prompt": "p", "solution": %s}\n' % text  # noqa: UP031
    )
    plan = make_plan(config)
    assert [u.shard.task for u in plan.units] == ["good"]
    assert [(f.subject, f.name) for f in plan.failures] == [("task", "bad")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 99999999999999999999", 1),
        ("a: 1\nstep: " + 5000 * "9", 2),
        ("a: 2024-13-45", 1),
        ("a: 1\nb: !!timestamp x", 2),
        ("a: !!bool x", 1),
        ("a: 1\nb: !!map x", 2),
        ("a: 1\nb: !!set [x]", 2),
        ("a: ~nobody\nb: [1, 0x8000000000000000]", 2),
        (10_000 * "[", None),
        (10_000 * "{a: ", None),
    ],
)
def test_bad_configuration_is_one_error_with_its_line(tmp_path: Path, text: str, line: int | None) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path) if line is None else f"{path}:{line}: ")


def watched(folder: Path, **settings: Any) -> WatchConfig:
    return WatchConfig(run="olmo", folder=str(folder), pattern="step_{step}*", **settings)


def good_and(tmp_path: Path, bad: str) -> Path:
    """Two checkpoints, and the place of a bad one between them."""
    run = tmp_path / "run"
    stub_checkpoint(run / "step_1")
    stub_checkpoint(run / "step_9")
    return run / bad


BAD_CHECKPOINTS: dict[str, Callable[[Path], object]] = {
    "unreadable": lambda p: stub_checkpoint(p).chmod(0),
    "link to itself": lambda p: p.symlink_to(p.name),
    "link to a device": lambda p: p.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "file": Path.touch,
    "marker a pipe": lambda p: (stub_checkpoint(p, marker=None), os.mkfifo(p / MARKER)),
    "marker a device": lambda p: (stub_checkpoint(p, marker=None) / MARKER).symlink_to("/dev/zero"),
    "weights a device": lambda p: (stub_checkpoint(p) / "x.safetensors").symlink_to("/dev/zero"),
    "file a link to itself": lambda p: (stub_checkpoint(p) / "loop").symlink_to("loop"),
    "file a pipe": lambda p: os.mkfifo(stub_checkpoint(p) / "pipe"),
    "file not UTF-8": lambda p: (stub_checkpoint(p) / NOT_UTF8).touch(),
}


@pytest.mark.parametrize("kind", BAD_CHECKPOINTS)
def test_bad_checkpoint_hides_no_other(tmp_path: Path, kind: str) -> None:
    bad = good_and(tmp_path, "step_5")
    BAD_CHECKPOINTS[kind](bad)
    sight = look(watched(bad.parent))
    assert sight.problem is None
    assert {1, 9} <= {found.checkpoint.step for found in sight.found}
    assert len({one.stamp for one in sight.found}) == len(sight.found)


@pytest.mark.parametrize("name", [f"step_{LARGEST + 1}", "step_" + 200 * "9", f"step_5-{NOT_UTF8}"])
def test_name_that_no_result_can_hold_is_named_and_left_out(tmp_path: Path, name: str) -> None:
    bad = good_and(tmp_path, name)
    stub_checkpoint(bad)
    config = config_of(tmp_path, {"t": solutions("a")}, {}, nightly={"watch": [watched(bad.parent)]})
    prepared = prepare(
        config.model_copy(update={"engine": config.engine.model_copy(update={"kind": "torch"})}), "2026-03-01"
    )
    assert [c.step for c in prepared.plan.config.candidates] == [1, 9]
    (failure,) = prepared.plan.failures
    assert str(bad.parent) in failure.error and "rename or remove" in failure.error
    failure.error.encode()


def test_steps_whose_tokens_no_result_can_hold_are_left_out(tmp_path: Path) -> None:
    bad = good_and(tmp_path, f"step_{LARGEST // 10}")
    stub_checkpoint(bad)
    watch = watched(bad.parent, tokens_per_step=11)
    sight = look(watch)
    assert [one.checkpoint.step for one in sight.found] == [1, 9] and len(sight.unusable) == 1
    for one in sight.found:
        assert (candidate_of_checkpoint(watch, one.checkpoint, one.stamp).training_tokens or 0) < LARGEST


def test_hub_tag_that_no_result_can_hold_is_named_and_left_out() -> None:
    watch = NightlyConfig.model_validate(
        {"watch": [{"run": "r", "hub": "org/name", "pattern": "step{step}"}]}
    ).watch[0]
    sight = look(watch, lambda _: {"step1": "c1", f"step{10**30}": "c2"})
    assert [one.checkpoint.step for one in sight.found] == [1]
    assert f"org/name@step{10**30}" in sight.unusable[0].error


def test_nights_go_on_beside_bad_checkpoints_and_name_them(tmp_path: Path) -> None:
    house = House(tmp_path, watch={"pattern": "step_{step}*"})
    house.arrive(100, 200, LARGEST)
    unnamed = ["step_" + 100 * "9", f"step_150-{NOT_UTF8}"]
    for name in unnamed:
        stub_checkpoint(house.run / name)
    truncate(stub_checkpoint(house.run / "step_110"))
    BAD_FOLDERS["weights a device"](stub_checkpoint(house.run / "step_120"))
    BAD_FOLDERS["config nested"](stub_checkpoint(house.run / "step_130"))
    BAD_FOLDERS["shape NaN"](stub_checkpoint(house.run / "step_140"))
    (house.run / "step_160").symlink_to("step_160")
    for date, new in (("2026-03-01", [100, 200, LARGEST]), ("2026-03-02", [])):
        night = house.spend(date).night
        assert [one.step for one in night.new] == new
        assert [one.checkpoint.step for one in night.broken] == [110, 130, 140]
        assert [one.checkpoint.step for one in night.waiting] == [120]
        assert night.runs[0].steps == (100, 200, LARGEST)
        named = [failed["error"] for failed in night.failed]
        assert len(named) == 2 and all("rename or remove it" in error for error in named)
    report = json.loads((tmp_path / "out" / "reports" / "2026-03-02" / "night.json").read_text())
    assert {str(house.run / "step_110"), str(house.run / "step_140")} <= {
        one["checkpoint"]["source"] for one in report["broken"]
    }
