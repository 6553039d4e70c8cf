"""What is seen of watched runs, on a disk, in an object store and on a hub."""

from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from pydantic import ValidationError
from training_runs import MARKER, stub_checkpoint

from forecast import storage
from forecast.config.nightly import NightlyConfig, WatchConfig
from forecast.nightly.discovery import Sight, candidate_of_checkpoint, look


@pytest.fixture(params=["disk", "object store"])
def root(request: pytest.FixtureRequest) -> str:
    if request.param == "disk":
        return str(request.getfixturevalue("tmp_path") / "run")
    return str(request.getfixturevalue("bucket")) + "/run"


def put(root: str, name: str, *files: str) -> None:
    for file in files:
        storage.write_bytes(storage.join(root, name, file), file.encode())


def watch(root: str, **settings: Any) -> WatchConfig:
    return WatchConfig(run="olmo", folder=root, **settings)


def steps(sight: Sight) -> tuple[list[int], list[int]]:
    assert sight.problem is None
    return [f.checkpoint.step for f in sight.found], [w.checkpoint.step for w in sight.waiting]


def test_whole_ones_are_taken_in_order_of_numbers_and_others_wait(root: str) -> None:
    for step in (1000, 200, 30):
        put(root, f"step_{step}", "model.safetensors", MARKER)
    put(root, "step_400", "model.safetensors")
    put(root, "step_500", f"deeper/{MARKER}")
    for name in ("step_x", "step_1a", "old_step_7", "step_8_tmp", "latest"):
        put(root, name, MARKER)
    sight = look(watch(root))
    assert steps(sight) == ([30, 200, 1000], [400, 500])
    assert "_SUCCESS" in sight.waiting[0].reason and "settled_minutes" in sight.waiting[0].reason
    first = sight.found[0].checkpoint
    assert (first.run, first.name, first.source) == ("olmo", "olmo @ 30", storage.join(root, "step_30"))
    assert first.revision is None


def test_common_names_are_taken_without_a_pattern(root: str) -> None:
    for name in ("step_10", "step-20", "step30", "checkpoint-40", "tmp-checkpoint-50", "runs"):
        put(root, name, MARKER)
    sight = look(watch(root))
    assert steps(sight) == ([10, 20, 30, 40], []) and sight.unmatched is None


def test_several_patterns_may_be_given(root: str) -> None:
    for name in ("it10", "save20", "step_30"):
        put(root, name, MARKER)
    assert steps(look(watch(root, pattern=["it{step}", "save{step}"]))) == ([10, 20], [])


def test_where_nothing_matches_it_is_said_what_lies_there(root: str) -> None:
    for name in ("checkpoint-40", "checkpoint-20", "checkpoint-100", "runs", ".cache"):
        put(root, name, MARKER)
    unmatched = look(watch(root, pattern="step_{step}")).unmatched
    assert unmatched is not None and unmatched.every is None
    assert unmatched.names == ("checkpoint-20", "checkpoint-40", "checkpoint-100"), "by number"
    assert (unmatched.count, unmatched.patterns) == (3, ("step_{step}",))
    by_step = look(watch(root, every=30)).unmatched
    assert by_step is not None and by_step.every == 30
    assert look(watch(root, every=1000)).unmatched is None, "its first multiple is to come"
    put(root, "checkpoint-1000", MARKER)
    assert look(watch(root, every=1000)).unmatched is None


def test_an_empty_folder_and_one_of_logs_match_nothing_in_silence(root: str) -> None:
    for name in ("runs", "logs"):
        put(root, name, "events")
    storage.write_bytes(storage.join(root, "notes.txt"), b"x")
    assert look(watch(root)).unmatched is None


def test_a_hub_repository_of_other_revisions_says_which() -> None:
    def look_at(*names: str) -> Sight:
        return look(WatchConfig(run="r", hub="a/b"), lambda _: dict.fromkeys(names, "c0ffee"))

    assert look_at("main").unmatched is None
    found = look_at("main", "v1.0", "v2.0").unmatched
    assert found is not None and found.names == ("v1.0", "v2.0")


def test_pattern_marker_and_multiples_are_the_configurations(root: str) -> None:
    for step in (500, 1000, 1500, 2000):
        put(root, f"it{step}-tokens{step // 250}B", "DONE")
    put(root, "it3000-tokens9M", "DONE")
    seen = look(watch(root, pattern="it{step}-tokens*B", marker="DONE", every=1000))
    assert steps(seen) == ([1000, 2000], [])
    assert steps(look(watch(root, pattern="it{step}-tokens*B", marker="done"))) == (
        [],
        [500, 1000, 1500, 2000],
    )


def test_the_stamp_changes_with_the_files_and_with_nothing_else(root: str) -> None:
    put(root, "step_1", "model.safetensors", MARKER)
    first = look(watch(root)).found[0].stamp
    assert look(watch(root)).found[0].stamp == first
    storage.write_bytes(storage.join(root, "step_1", "model.safetensors"), b"other weights")
    second = look(watch(root)).found[0].stamp
    assert second != first
    # Which files are read depends on what is allowed.
    trusted = watch(root, candidate={"allow_pickle": True})
    assert look(trusted).found[0].stamp != second


def test_two_folders_of_one_step_are_not_mixed_up(root: str) -> None:
    put(root, "step_7", MARKER)
    put(root, "step_007", MARKER)
    sight = look(watch(root))
    assert steps(sight) == ([7], [7])
    assert "is the same step; remove one" in sight.waiting[0].reason


def test_a_place_that_is_not_there_is_a_problem(root: str) -> None:
    sight = look(watch(root))
    assert sight.found == () and root in str(sight.problem) and "cannot be looked at" in str(sight.problem)


def test_a_store_that_does_not_answer_is_a_problem(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError("curlCode: 7, Couldn't connect to server\nmore lines")

    monkeypatch.setattr(storage, "filesystem", refuse)
    assert str(look(watch(f"{bucket}/run")).problem).endswith("curlCode: 7, Couldn't connect to server")


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside, run = stub_checkpoint(tmp_path / "outside"), tmp_path / "run"
    run.mkdir()
    (run / "step_1").symlink_to(outside)
    stub_checkpoint(run / "step_2")
    (run / "step_2" / "model.safetensors").unlink()
    (run / "step_2" / "model.safetensors").symlink_to(outside / "model.safetensors")
    stub_checkpoint(run / "elsewhere")
    (run / "step_3").symlink_to("elsewhere")
    (run / "step_4").write_text("no folder")
    sight = look(watch(str(run)))
    assert steps(sight) == ([3], [1, 2])
    assert all("leads out of the watched folder" in waiting.reason for waiting in sight.waiting)
    # The watched folder itself may be reached by a link.
    (tmp_path / "link").symlink_to(run)
    assert steps(look(watch(str(tmp_path / "link"))))[0] == [3]


def test_hub_revisions_are_pinned_to_their_commits() -> None:
    asked = []

    def refs(repository: str) -> dict[str, str]:
        asked.append(repository)
        return {"main": "c0", "step1000-tokens4B": "c1", "step500-tokens2B": "c2", "step1000": "c3"}

    hub = WatchConfig(run="olmo", hub="org/model", pattern="step{step}-tokens*B", tokens_per_step=4_000_000)
    sight = look(hub, refs)
    assert asked == ["org/model"] and steps(sight) == ([500, 1000], [])
    found = sight.found[1]
    assert found.checkpoint.revision == "step1000-tokens4B"
    candidate = candidate_of_checkpoint(hub, found.checkpoint, found.stamp)
    assert (candidate.source, candidate.revision, candidate.step) == ("org/model", "c1", 1000)
    assert (candidate.family, candidate.training_tokens) == ("olmo", 4_000_000_000)
    # A tag and a branch of one commit are one checkpoint; of two commits, one of them waits.
    both = WatchConfig(run="olmo", hub="org/model", pattern="*{step}")
    assert steps(look(both, lambda _: {"step5": "c", "v5": "c"})) == ([5], [])
    assert steps(look(both, lambda _: {"step5": "c", "v5": "d"})) == ([5], [5])


def test_an_offline_hub_is_a_problem() -> None:
    sight = look(WatchConfig(run="olmo", hub="org/model", pattern="step{step}"))  # tests are offline
    assert "hub repository org/model cannot be looked at" in str(sight.problem)


def test_settings_of_the_run_are_those_of_its_checkpoints(tmp_path: Path) -> None:
    stub_checkpoint(tmp_path / "run" / "step_5")
    own = {"family": "olmo2", "corpus": "dolma", "seed": 3, "dtype": "bfloat16", "drop_layers": 1}
    run = watch(str(tmp_path / "run"), candidate=own)
    found = look(run).found[0]
    candidate = candidate_of_checkpoint(run, found.checkpoint, found.stamp)
    assert own.items() <= candidate.model_dump().items()
    assert candidate.training_tokens is None and candidate.revision is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folder": "x", "hub": "a/b"}, "either folder"),
        ({}, "either folder"),
        ({"hub": "a/b", "marker": "DONE"}, "belong to folder"),
        ({"hub": "no-slash"}, "pattern"),
        ({"folder": "gs://x"}, "a local path, s3://"),
        ({"folder": "x", "pattern": "step"}, "write {step} once"),
        ({"folder": "x", "pattern": "a/step_{step}"}, "without a /"),
        ({"folder": "x", "marker": "../DONE"}, "without a /"),
        ({"folder": "x", "every": 0}, "greater than or equal to 1"),
        ({"folder": "x", "candidate": {"step": 3}}, "Extra inputs"),
    ],
)
def test_what_cannot_be_watched_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WatchConfig(run="olmo", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"watch": []}, "at least 1"),
        ({"watch": [{"run": "a", "folder": "x"}, {"run": "a", "folder": "y"}]}, "must differ; repeated: a"),
        (
            {"watch": [{"run": r, "folder": "x", "candidate": {"family": "f"}} for r in "ab"]},
            "'a' and 'b' cannot be distinguished",
        ),
        (
            {"watch": [{"run": "a", "folder": "x"}], "alerts": [{"rule": "failed_to_load", "run": "b"}]},
            "not watched: b",
        ),
        (
            {"watch": [{"run": "a", "folder": "x"}], "alerts": [{"rule": "proxy_fell", "proxy": "ce"}]},
            "no proxy",
        ),
        ({"watch": [{"run": "a", "folder": "x"}], "deliver": [{}]}, "exactly one of"),
        ({"watch": [{"run": "a", "folder": "x"}], "deliver": [{"webhook": "ftp://x"}]}, "pattern"),
    ],
)
def test_nightly_settings_that_contradict_themselves_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        NightlyConfig(**settings)


def test_a_listing_of_an_object_store_costs_one_request_for_each_checkpoint(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(3):
        put(f"{bucket}/run", f"step_{step}", "model.safetensors", "optimizer/state.bin", MARKER)
    real, inner = storage.filesystem(f"{bucket}/run")
    asked: list[Any] = []

    class Counting:
        def get_file_info(self, what: Any) -> Any:
            asked.append(what)
            return real.get_file_info(what)

    monkeypatch.setattr(storage, "filesystem", lambda path: (Counting(), path.removeprefix("s3://")))
    assert steps(look(watch(f"{bucket}/run")))[0] == [0, 1, 2]
    assert len(asked) == 4 and all(isinstance(a, pafs.FileSelector) and not a.recursive for a in asked)
    assert inner.endswith("/run")
