"""The Models page without a browser: what it shows is what the library says."""

import json
from pathlib import Path

import pytest
import yaml
from streamlit.testing.v1 import AppTest

import app
from forecast.config_file import load_config
from forecast.engines import load_engine
from forecast.plan import Failure, make_plan
from forecast.ranking.population import load_population
from forecast.ranking.results import Ranking
from forecast.ranking.univariate import rank_candidates
from forecast.scoring import score_unit
from forecast.store.build import build_warehouse
from forecast.store.lake import write_unit
from forecast.store.warehouse import open_warehouse

MAIN = Path(app.__file__).with_name("main.py")


def make_run(
    folder: Path, measured: bool = True, failures: tuple[Failure, ...] = (), strong: float = 6
) -> Path:
    """A run of four fake candidates with its warehouse, without Ray."""
    rows = [{"prompt": f"What is {i} plus {i}?", "solution": f" The sum is {2 * i}."} for i in range(8)]
    (folder / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = {"weak": 0.2, "fair": 0.3, "good": 0.5, "best": 0.6}
    abilities = {"weak": 0.5, "fair": 2, "good": 4, "best": strong}
    lines = [f"{name},exam,accuracy,{value},0.02\n" for name, value in scores.items()]
    (folder / "scores.csv").write_text("candidate,task,metric,value,stderr\n" + "".join(lines))
    config_path = folder / "run.yaml"
    config = {
        "name": "four fakes",
        "output": "out",
        "engine": {"kind": "fake"},
        "candidates": [{"name": name, "source": f"fake://{ability}"} for name, ability in abilities.items()],
        "trajectories": [{"task": "sums", "path": "solutions.jsonl"}],
        "measured_scores": [{"format": "csv", "path": "scores.csv"}] if measured else [],
        "ranking": {"bootstraps": 50, "permutations": 50},
    }
    config_path.write_text(yaml.safe_dump(config))
    plan = make_plan(load_config(config_path))
    for unit in plan.units:
        engine = load_engine(unit.candidate, plan.config.engine)
        write_unit(plan.path(unit), unit, score_unit(unit, engine, plan.config), engine.facts)
    build_warehouse(plan, failures)
    return config_path


def open_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("FORECAST_OUTPUT", str(folder / "out"))
    return AppTest.from_file(str(MAIN), default_timeout=60).run()


def library_ranking(config_path: Path) -> Ranking:
    config = load_config(config_path)
    with open_warehouse(config.output) as db:
        return rank_candidates(load_population(db), config.ranking)


def words(page: AppTest) -> str:
    elements = [*page.title, *page.caption, *page.markdown, *page.info, *page.code, *page.subheader]
    return "\n".join(str(element.value) for element in elements)


def test_table_and_figures_are_the_library_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = library_ranking(make_run(tmp_path))
    page = open_page(tmp_path, monkeypatch)
    assert not page.exception
    table = page.dataframe[0].value
    assert list(table["candidate"]) == [s.candidate for s in ranking.standings]
    assert list(table["measured"]) == [s.measured for s in ranking.standings]
    assert list(table["± se"]) == [s.measured_stderr for s in ranking.standings]
    for name in ranking.shown:
        assert list(table[name]) == [s.values[name] for s in ranking.standings]
    best = ranking.reports[0].best()
    assert best is not None and best.spearman is not None
    assert page.metric[0].value == f"{best.spearman:+.2f}"
    assert "n = 4 candidates" in words(page)
    for warning in ranking.warnings:
        assert warning in words(page)


def test_choosing_a_proxy_changes_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = library_ranking(make_run(tmp_path))
    page = open_page(tmp_path, monkeypatch)
    page.selectbox[1].set_value("entropy").run()
    page.selectbox[2].set_value("inverse_frequency").run()
    chosen = next(c for c in ranking.reports[0].correlations if c.proxy == "entropy__inverse_frequency")
    assert chosen.spearman is not None and chosen.ci_low is not None
    assert page.metric[0].value == f"{chosen.spearman:+.2f}"
    assert f"{chosen.ci_low:+.2f}" in words(page)


def test_without_measured_scores_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, measured=False)
    page = open_page(tmp_path, monkeypatch)
    assert not page.exception
    assert "No measured scores yet" in words(page)
    assert "measured" not in page.dataframe[0].value.columns
    assert not page.metric


def test_failed_candidates_are_shown_with_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, failures=(Failure("candidate", "gone", "candidate 'gone': no model folder at /x"),))
    page = open_page(tmp_path, monkeypatch)
    assert any("no model folder at /x" in block.value for block in page.code)


def test_before_anything_is_there_it_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(tmp_path, monkeypatch)
    assert not page.exception
    assert "forecast run" in words(page)
    make_run(tmp_path)
    page.run()
    assert page.title[0].value == "four fakes"


def test_a_new_warehouse_takes_the_place_of_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path)
    page = open_page(tmp_path, monkeypatch)
    assert page.dataframe[0].value["candidate"][0] == "best"
    make_run(tmp_path, strong=-3)
    page.run()
    assert page.dataframe[0].value["candidate"].iloc[0] != "best"
