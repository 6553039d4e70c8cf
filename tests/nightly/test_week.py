"""A simulated week through the real command line: trained weights, Ray, and whatever goes wrong."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from driving import kill_driver, lake_rows, run_forecast, start_forecast, wait_for_files
from training_runs import arrive, complete, inputs, train, truncate

from forecast import storage
from forecast.cli.nightly import nightly
from forecast.errors import ConfigError


@dataclass
class Week:
    """The configuration of a watched run, and the command line over it."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def config(self) -> Path:
        return self.folder / "nightly.yaml"

    def set_up(self) -> None:
        self.run.mkdir(parents=True)
        content = {
            "name": "week",
            "output": "out",
            "window": "all",
            "shard_trajectories": 2,
            "cluster": {"actors": 1},
            "ranking": {"bootstraps": 50, "permutations": 50},
            **inputs(self.folder / "in"),
            "nightly": {
                "watch": [{"run": "tiny", "folder": "run", "final_step": 4000}],
                "alerts": [
                    {"rule": "spike"},
                    {"rule": "forecast_fell"},
                    {"rule": "proxy_fell", "checkpoints": 3},
                    {"rule": "failed_to_load"},
                    {"rule": "nothing_new", "days": 2},
                ],
                "deliver": [{"command": ["tee", "-a", str(self.folder / "told")]}],
            },
        }
        self.config.write_text(yaml.safe_dump(content))

    def night(self, day: int) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of one night."""
        code, out, err = run_forecast("nightly", self.config, "--date", date(day), "--json")
        assert out, err
        return code, json.loads(out)

    def told(self) -> list[str]:
        """Rules of all alerts that were ever delivered."""
        if not (self.folder / "told").exists():
            return []
        decoder, text, found = json.JSONDecoder(), (self.folder / "told").read_text().strip(), []
        while text:
            record, end = decoder.raw_decode(text)
            found += [alert["rule"] for alert in record["alerts"]]
            text = text[end:].strip()
        return found

    def files(self) -> dict[str, bytes]:
        """State and reports."""
        found = [self.out / "nightly" / "state.json", *(self.out / "reports").rglob("*.*")]
        return {str(path.relative_to(self.out)): path.read_bytes() for path in found}


def date(day: int) -> str:
    return f"2026-03-{day:02}"


def steps(found: list[dict[str, Any]]) -> list[int]:
    return [(one.get("checkpoint") or one)["step"] for one in found]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_week(tmp_path: Path) -> None:
    trained = train(tmp_path / "trained", 13)
    week = Week(tmp_path / "week")
    week.set_up()

    # Sunday: four checkpoints, and one that is half-written.
    for i in range(4):
        arrive(trained[i], week.run, 100 * (i + 1))
    half = arrive(trained[4], week.run, 500, whole=False)
    code, sunday = week.night(1)
    assert code == 0, sunday
    assert (steps(sunday["new"]), steps(sunday["waiting"]), sunday["broken"]) == (
        [100, 200, 300, 400],
        [500],
        [],
    )
    assert sunday["forecasts"] == [] and "5 are needed" in sunday["not_forecast"][0]["error"]
    assert (sunday["alerts"], sunday["missed"], week.told()) == ([], [], [])

    # Monday: the half-written one is whole by now; another arrives damaged.
    complete(trained[4], half)
    truncate(arrive(trained[5], week.run, 600))
    code, monday = week.night(2)
    assert code == 5, "an alert goes before the failure that it is about"
    assert (steps(monday["new"]), monday["waiting"], steps(monday["broken"])) == ([500], [], [600])
    assert [a["rule"] for a in monday["alerts"]] == ["failed_to_load"] == week.told()
    assert len(monday["forecasts"]) == 1 and monday["forecasts"][0]["step"] == 4000
    # The same night twice changes nothing, and tells nobody again.
    before = week.files()
    rows = lake_rows(week.out / "lake")
    assert week.night(2) == (5, monday)
    assert week.files() == before and week.told() == ["failed_to_load"]
    assert lake_rows(week.out / "lake").equals(rows)

    # Tuesday nobody looks. Wednesday two schedulers start it at once.
    arrive(trained[6], week.run, 700)
    arrive(trained[7], week.run, 800)
    both = [start_forecast("nightly", week.config, "--date", date(4), "--json") for _ in range(2)]
    answers = [(*process.communicate(timeout=300), process.returncode) for process in both]
    assert sorted(code for _, _, code in answers) == [0, 6], answers
    ((wednesday_text, _, _),) = [answer for answer in answers if answer[2] == 0]
    ((nothing, why, _),) = [answer for answer in answers if answer[2] == 6]
    # The other is named by process only once it has written its lease.
    assert nothing == "" and "another nightly run is at work: " in why
    wednesday = json.loads(wednesday_text)
    assert (steps(wednesday["new"]), steps(wednesday["broken"])) == ([700, 800], [600])
    assert wednesday["missed"] == [date(3)] and wednesday["raised"] == []

    # Thursday: training prunes its first checkpoint, and the machine dies in the middle of the night.
    shutil.rmtree(week.run / "step_100")
    arrive(trained[8], week.run, 900)
    arrive(trained[9], week.run, 1000)
    units = len(list((week.out / "lake").rglob("*.parquet")))
    driver = start_forecast("nightly", week.config, "--date", date(5), "--json")
    wait_for_files(week.out / "lake", units + 1)
    kill_driver(driver)
    assert not (week.out / "reports" / date(5)).exists()
    code, thursday = week.night(5)
    assert code == 0, "600 is still broken, which was told on Monday"
    assert steps(thursday["new"]) == [900, 1000] and thursday["raised"] == []
    assert thursday["runs"][0]["steps"] == [100, 200, 300, 400, 500, 700, 800, 900, 1000]
    # What stands there is what an undisturbed run makes of the same checkpoints.
    assert lake_rows(week.out / "lake").equals(_undisturbed(trained, tmp_path, week))

    # Friday: 600 is repaired, and training goes wrong: each checkpoint is worse than the one before.
    shutil.rmtree(week.run / "step_600")
    arrive(trained[5], week.run, 600)
    for step, worse in ((1100, 6), (1200, 4), (1300, 1)):
        arrive(trained[worse], week.run, step)
    code, friday = week.night(6)
    assert code == 5
    assert steps(friday["new"]) == [600, 1100, 1200, 1300] and friday["broken"] == []
    rules = [a["rule"] for a in friday["alerts"]]
    assert "proxy_fell" in rules and "failed_to_load" not in rules
    (fell,) = (a for a in friday["alerts"] if a["rule"] == "proxy_fell")
    assert "at each of the last 3 checkpoints (steps 1,100, 1,200, 1,300)" in fell["text"]

    # Saturday nothing comes, which is no alert yet, and what was told is not told again. On Sunday it is.
    told = week.told()
    code, saturday = week.night(7)
    assert code == 0 and saturday["new"] == [] and saturday["raised"] == [] and week.told() == told
    assert "proxy_fell" in [a["rule"] for a in saturday["alerts"]], "it stands"
    code, sunday = week.night(8)
    assert code == 5 and week.told() == [*told, "nothing_new"]

    reports = sorted(p.name for p in (week.out / "reports").iterdir() if p.is_dir())
    assert reports == [date(day) for day in (1, 2, 4, 5, 6, 7, 8)]
    assert all((week.out / "reports" / name / "report.html").exists() for name in reports)


def _undisturbed(trained: list[Path], folder: Path, week: Week) -> pl.DataFrame:
    """The lake of a run over the same checkpoints, listed as candidates and scored at once."""
    content = yaml.safe_load(week.config.read_text())
    content["output"] = str(folder / "calm")
    del content["nightly"]
    content["candidates"] = [{"name": str(i), "source": str(trained[i])} for i in (0, 1, 2, 3, 4, 6, 7, 8, 9)]
    path = folder / "calm.yaml"
    path.write_text(yaml.safe_dump(content))
    code, _, err = run_forecast("score", path)
    assert code == 0, err
    return lake_rows(folder / "calm" / "lake")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_night_in_an_object_store(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints, results, state, lock and reports, all of it at s3://."""
    monkeypatch.setenv("FORECAST_CACHE", str(tmp_path / "models"))
    week = Week(tmp_path / "week")
    week.set_up()
    for i, checkpoint in enumerate(train(tmp_path / "trained", 3)):
        for path in checkpoint.iterdir():
            storage.write_bytes(f"{bucket}/run/step_{i}00/{path.name}", path.read_bytes())
        if i < 2:
            storage.write_bytes(f"{bucket}/run/step_{i}00/_SUCCESS", b"")
    content = yaml.safe_load(week.config.read_text())
    content["output"] = f"{bucket}/out"
    content["nightly"]["watch"][0]["folder"] = f"{bucket}/run"
    week.config.write_text(yaml.safe_dump(content))
    code, dry, err = run_forecast("nightly", week.config, "--date", date(1), "--dry-run", "--json")
    assert code == 0, err
    assert [one["step"] for one in json.loads(dry)["to_score"]] == [0, 100]
    assert storage.list_files(f"{bucket}/out", "") == {}, "a dry run writes nothing"
    code, first = week.night(1)
    assert code == 0 and steps(first["new"]) == [0, 100] and steps(first["waiting"]) == [200]
    objects = storage.list_files(f"{bucket}/out", "")
    assert {name.removeprefix(f"{bucket}/out/") for name in objects} >= {
        "nightly/state.json",
        f"reports/{date(1)}/night.json",
        f"reports/{date(1)}/report.md",
        "warehouse.duckdb",
    }
    assert f"{bucket}/out/nightly/lock.json" not in objects

    # What is scored needs neither its files nor the copies of them.
    shutil.rmtree(tmp_path / "models")
    for name in storage.list_files(f"{bucket}/run/step_000", ""):
        storage.remove(name)
    storage.write_bytes(f"{bucket}/run/step_200/_SUCCESS", b"")
    code, second = week.night(2)
    assert code == 0 and steps(second["new"]) == [200]
    assert second["runs"][0]["steps"] == [0, 100, 200]
    assert len(list((tmp_path / "models").iterdir())) == 1


def test_the_command_line_says_what_it_cannot_do(tmp_path: Path) -> None:
    week = Week(tmp_path / "week")
    week.set_up()
    for wrong in ("yesterday", "2026-3-1", "2026-02-30"):
        with pytest.raises(ConfigError, match=f"--date {wrong}: expected a date as YYYY-MM-DD"):
            nightly(week.config, date=wrong)
    code, out, err = run_forecast("nightly", week.config, FORECAST_NIGHT=date(1))
    assert code == 0, err
    assert f"night of {date(1)}: 0 new, 0 waiting, 0 broken" in out and "report.html" in out
