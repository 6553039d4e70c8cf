"""What travels with a job, and what is refused before anything is sent."""

import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.jobs import entrypoint
from actors.jobs import package as package_module
from actors.jobs.package import CONFIG_PLACE, Package, pack
from forecast.config.loader import load_config
from forecast.errors import ConfigError

Make = Callable[..., Path]


def packed(config: Path, output: str | None = "/shared/out", *on_cluster: str) -> Package:
    return pack(load_config(config), output, on_cluster)


def unpacked(package: Package, folder: Path) -> str:
    """Written and unpacked again; the SHA-256 of the manifest."""
    manifest = package.write(folder.with_suffix(".zip"), package.job_id)
    zipfile.ZipFile(folder.with_suffix(".zip")).extractall(folder)
    return manifest


def test_packed_configuration_equals_the_original_and_includes_data(
    make_config: Make, tmp_path: Path
) -> None:
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
    manifest = unpacked(package, folder)
    entrypoint._check_package(folder, manifest)
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


def test_job_id_depends_only_on_what_is_computed(make_config: Make, tmp_path: Path) -> None:
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


def test_package_names_every_missing_path_in_one_error(make_config: Make, tmp_path: Path) -> None:
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


def test_package_above_the_size_limit_names_the_largest_files(
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


def test_package_without_code_for_an_installed_cluster(make_config: Make) -> None:
    package = pack(load_config(make_config({"a": "fake://1"})), "/shared/out", with_code=False)
    assert set(package.code) == {"entrypoint.py"}
    assert package.n_bytes < 50_000


IGNORE_FILES = {
    ".gitignore": "*.arrow\n/train-00001.parquet\n",
    ".rayignore": "*\n",
    "deep/.gitignore": "*\n",
    ".git/config": "[core]\n",
    ".venv/x.py": "",
    "venv/x.py": "",
    "__pycache__/x.pyc": "",
    ".hidden.parquet": "",
}


def test_package_includes_files_that_ignore_files_name(make_config: Make, tmp_path: Path) -> None:
    names = [*IGNORE_FILES, "data.arrow", "train-00001.parquet", "deep/train 2.parquet", "a\nb", "empty"]
    for name in names:
        (tmp_path / "ds" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ds" / name).write_text(IGNORE_FILES.get(name, name if name != "empty" else ""))
    package = packed(make_config({"a": "fake://1"}, trajectories=[{"task": "t", "path": "ds"}]))
    manifest = unpacked(package, tmp_path / "there")
    entrypoint._check_package(tmp_path / "there", manifest)
    arrived = tmp_path / "there/job/data/0/ds"
    assert {p.relative_to(arrived).as_posix() for p in arrived.rglob("*") if p.is_file()} == set(names)
    assert (arrived / "a\nb").read_text() == "a\nb"


def test_archive_is_reproducible_within_one_attempt(make_config: Make, tmp_path: Path) -> None:
    package = packed(make_config({"a": "fake://1"}))
    for name, job in (("a", "x"), ("b", "x"), ("c", "x.2")):
        package.write(tmp_path / name, job)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def remove(folder: Path) -> str:
    (folder / "job/data/0/solutions.jsonl").unlink()
    return "job/data/0/solutions.jsonl is missing or differs"


def cut(folder: Path) -> str:
    os.truncate(folder / "job/data/0/solutions.jsonl", 10)
    return "job/data/0/solutions.jsonl is missing or differs"


def change_code(folder: Path) -> str:
    (folder / "forecast/plan.py").write_text("")
    return "forecast/plan.py is missing or differs"


def change_configuration(folder: Path) -> str:
    (folder / CONFIG_PLACE).write_text("name: other\n")
    return f"{CONFIG_PLACE} is missing or differs"


def add(folder: Path) -> str:
    (folder / "job/data/0/more.jsonl").touch()
    return "job/data/0/more.jsonl was not sent"


def change_manifest(folder: Path) -> str:
    (folder / entrypoint.MANIFEST_PLACE).write_text("{}")
    return f"without the {entrypoint.MANIFEST_PLACE} that was sent"


@pytest.mark.parametrize("damage", [remove, cut, change_code, change_configuration, add, change_manifest])
def test_changed_package_ends_the_job_and_names_the_file(
    damage: Callable[[Path], str], make_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = unpacked(packed(make_config({"a": "fake://1"})), tmp_path / "there")
    (tmp_path / "there/forecast/__pycache__").mkdir()
    (tmp_path / "there/forecast/__pycache__/plan.pyc").touch()
    entrypoint._check_package(tmp_path / "there", manifest)
    said = damage(tmp_path / "there")
    with pytest.raises(SystemExit, match="1"):
        entrypoint._check_package(tmp_path / "there", manifest)
    assert said in capsys.readouterr().err


def test_package_refuses_a_file_that_changes_while_read(make_config: Make, tmp_path: Path) -> None:
    package = packed(make_config({"a": "fake://1"}))
    (tmp_path / "solutions.jsonl").write_text("")
    with pytest.raises(ConfigError, match="changed while it was being packed"):
        package.write(tmp_path / "package.zip", "x")


def test_package_refuses_outward_links_and_special_files_by_name(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, ds = tmp_path / "secret", tmp_path / "ds"
    for folder in (secret, ds / "sub"):
        folder.mkdir(parents=True)
    for file in (secret / "key", ds / "ok.jsonl", ds / "sub" / "more.jsonl", ds / "back\\slash"):
        file.write_text("x")
    (ds / "inside.jsonl").symlink_to("ok.jsonl")
    for name, place in (
        ("key", secret / "key"),
        ("keys", secret),
        ("twice", ds / "key"),
        ("folder", ds / "sub"),
        ("broken", tmp_path / "none"),
        ("loop", ds / "loop"),
    ):
        (ds / name).symlink_to(place)
    os.mkfifo(ds / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(ds)  # paths of sockets are short
        listener.bind("socket")
    undecodable = ds / os.fsdecode(b"\xff")
    undecodable.mkdir()
    (undecodable / "x").touch()
    with pytest.raises(ConfigError) as refused:
        packed(make_config({"a": "fake://1"}, trajectories=[{"task": "t", "path": "ds"}]))
    said = dict(line.partition(f"{ds}/")[2].split(" ", 1) for line in str(refused.value).splitlines()[1:])
    assert {name: text.split(";")[0].split(",")[0] for name, text in said.items()} == {
        "key": "is a link out of its folder",
        "keys": "is a link out of its folder",
        "twice": "is a link out of its folder",
        "folder": "is a link to a folder",
        "broken": "cannot be read (No such file or directory)",
        "loop": "cannot be read (Too many levels of symbolic links)",
        "pipe": "is no ordinary file",
        "socket": "is no ordinary file",
        "back\\slash": "has a backslash in its name",
        "\\udcff/x'": "has a name that is not UTF-8",
    }


def test_package_refuses_an_empty_folder(make_config: Make, tmp_path: Path) -> None:
    (tmp_path / "ds" / "sub").mkdir(parents=True)
    with pytest.raises(ConfigError, match="there is no file in"):
        packed(make_config({"a": "fake://1"}, trajectories=[{"task": "t", "path": "ds"}]))


def test_package_leaves_out_webhook_urls(make_config: Make) -> None:
    nightly = {
        "watch": [{"run": "r", "hub": "org/run"}],
        "deliver": [{"webhook_env": "HOOK"}, {"webhook": "https://chat.example/hooks/SECRET"}],
    }
    config = load_config(make_config({"a": "fake://1"}, nightly=nightly))
    for command in ("run", "score"):
        sent = pack(config, "/shared/out", command=command)
        assert "deliver" not in sent.config["nightly"] and "SECRET" not in sent.config_text
    with pytest.raises(ConfigError, match=r"nightly\.deliver\.1\.webhook: .*webhook_env") as caught:
        pack(config, "/shared/out", command="nightly")
    assert "SECRET" not in str(caught.value)


def test_package_refuses_keys_in_the_output_url(make_config: Make) -> None:
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY") as caught:
        packed(make_config({"a": "fake://1"}), "s3://KEY:SECRET@bucket/out")
    assert "SECRET@" not in str(caught.value)
