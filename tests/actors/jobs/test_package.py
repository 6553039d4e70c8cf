"""What travels with a job, and what is refused before anything is sent."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.jobs import package as package_module
from actors.jobs.package import CONFIG_PLACE, Package, pack
from forecast.config.loader import load_config
from forecast.errors import ConfigError

Make = Callable[..., Path]


def packed(config: Path, output: str | None = "/shared/out", *on_cluster: str) -> Package:
    return pack(load_config(config), output, on_cluster)


def test_the_copy_reads_as_the_original_and_carries_its_data(make_config: Make, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("candidate,task,metric,value\na,sums,acc,0.3\n")
    sources = [{"task": "sums", "path": "solutions.jsonl", "expert": expert} for expert in ("human", "other")]
    sources.append({"task": "far", "path": "s3://bucket/far.jsonl"})
    config = make_config(
        {"a": "fake://1", "hub": "org/model@main"},
        window="all",
        cluster={"address": "ray://head:10001", "actors": 2},
        trajectories=sources,
        measured_scores=[{"format": "csv", "path": "scores.csv"}],
    )
    package = packed(config)
    folder = tmp_path / "laid out"
    package.write(folder)
    original, copy = load_config(config), load_config(folder / CONFIG_PLACE)
    assert copy.output == "/shared/out"
    # A job runs on the cluster that it was sent to.
    assert (copy.cluster.address, copy.cluster.actors) == (None, 2)
    paths = [source.path for source in copy.trajectories]
    assert paths[0] == paths[1], "one file travels once"
    assert paths[2] == "s3://bucket/far.jsonl"
    for ours, theirs in zip(copy.trajectories[:2], original.trajectories[:2], strict=True):
        assert Path(ours.path or "").read_bytes() == Path(theirs.path or "").read_bytes()
        assert Path(ours.path or "").is_relative_to(folder)
        assert ours.model_copy(update={"path": theirs.path}) == theirs
    assert copy.candidates == original.candidates and copy.window == original.window

    # The code that travels is a working one, without anything of this environment's.
    places = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"entrypoint.py", "forecast/cli/main.py", "actors/scheduler.py", "job/config.yaml"} <= places
    assert any(place.endswith(".sql") for place in places)
    assert not [place for place in places if "__pycache__" in place or "/." in place]
    shown = subprocess.run(
        [sys.executable, "-c", "import forecast.cli; print(forecast.__file__)"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == str(folder / "forecast" / "__init__.py")


def test_the_id_is_that_of_what_is_computed(make_config: Make, tmp_path: Path) -> None:
    config = make_config({"a": "fake://1"}, "Üben & more")
    first = packed(config)
    assert first.job_id.startswith("forecast-ben-more-")
    assert first.job_id == packed(config).job_id

    moved = tmp_path / "moved"
    moved.mkdir()
    for name in (config.name, "solutions.jsonl"):
        (moved / name).write_bytes((tmp_path / name).read_bytes())
    assert packed(moved / config.name).job_id == first.job_id

    elsewhere = packed(config, "s3://bucket/out/")
    assert elsewhere.job_id != first.job_id and elsewhere.digest == first.digest
    assert elsewhere.output == "s3://bucket/out"
    assert pack(load_config(config), "/shared/out", command="score").digest != first.digest

    with (tmp_path / "solutions.jsonl").open("a") as stream:
        stream.write(json.dumps({"prompt": "p", "solution": "s"}) + "\n")
    assert packed(config).digest != first.digest


def test_everything_that_cannot_travel_is_named_at_once(make_config: Make, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    config = make_config(
        {"mine": str(tmp_path / "model"), "file": "../none.gguf", "hub": "org/model"},
        trajectories=[{"task": "sums", "path": "missing.jsonl"}],
    )
    with pytest.raises(ConfigError) as refused:
        packed(config, None)
    message = str(refused.value)
    assert f"candidate 'mine': {tmp_path}/model is a path of this machine" in message
    assert "candidate 'file'" in message and "'hub'" not in message
    assert f"trajectories.0.path: there is no {tmp_path}/missing.jsonl on this machine" in message
    assert f"output: {tmp_path}/out-run is a path of this machine" in message

    # Said to be the cluster's, all of it stays as it is written.
    package = packed(config, None, str(tmp_path), str(tmp_path.parent / "none.gguf"))
    assert not package.files
    assert package.config["trajectories"][0]["path"] == f"{tmp_path}/missing.jsonl"
    assert package.output == f"{tmp_path}/out-run"
    # A neighbour whose name begins alike is not below it.
    with pytest.raises(ConfigError, match="candidate 'mine'"):
        packed(config, "/shared/out", str(tmp_path / "mod"))
    with pytest.raises(ConfigError, match="--output here: expected s3://BUCKET/PREFIX or an absolute path"):
        packed(config, "here", str(tmp_path))


def test_too_much_is_refused_with_the_largest_files(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saved").mkdir()
    for i in range(7):
        (tmp_path / "saved" / f"part{i}").write_bytes(b"x" * 1000 * (i + 1))
    config = make_config({"a": "fake://1"}, trajectories=[{"task": "t", "path": "saved"}])
    package = packed(config)
    assert len(package.files) == 7, "a folder travels whole"
    monkeypatch.setattr(package_module, "MOST_BYTES", package.n_bytes)
    assert packed(config).job_id == package.job_id
    monkeypatch.setattr(package_module, "MOST_BYTES", package.n_bytes - 1)
    with pytest.raises(ConfigError, match="largest files") as refused:
        packed(config)
    named = [line.rsplit("/", 1)[1] for line in str(refused.value).splitlines() if "part" in line]
    assert named == ["part6", "part5", "part4", "part3", "part2"]


def test_installed_sends_no_code(make_config: Make) -> None:
    package = pack(load_config(make_config({"a": "fake://1"})), "/shared/out", with_code=False)
    assert set(package.code) == {"entrypoint.py"}
    assert package.n_bytes < 50_000
