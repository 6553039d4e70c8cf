"""The Models page without a browser: what it shows is what the library says."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import pytest
import streamlit as st
import yaml
from streamlit.testing.v1 import AppTest

import app
import forecast
from app.text import plain
from forecast.analysis.ranking.report import answer
from forecast.analysis.ranking.single_proxy import Ranking, rank_candidates
from forecast.config.loader import load_config
from forecast.engines import load_engine
from forecast.lake.files import write_unit
from forecast.plan import Failure, Plan, make_plan
from forecast.scoring import score_units
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse
from forecast.warehouse.population import load_population

MAIN = Path(app.__file__).with_name("main.py")
SCORES = {
    "exam": {"weak": 0.2, "fair": 0.3, "good": 0.5, "best": 0.6},
    "essay": {"weak": 0.4, "fair": 0.1, "good": 0.2, "best": 0.3},
}


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    """The app keeps what it has read for as long as the process lives."""
    yield
    st.cache_resource.clear()


def make_run(
    folder: Path,
    scores: Mapping[str, Mapping[str, float]] = SCORES,
    failures: tuple[Failure, ...] = (),
    strong: float = 6,
    name: str = "four fakes",
    unfinished: str | None = None,
) -> Path:
    """A run of four fake candidates with its warehouse, without Ray; `unfinished`: who has not read all."""
    plan = make_plan(load_config(write_config(folder, scores, strong, name)))
    score(plan, unfinished)
    build_warehouse(plan, failures)
    return folder / "run.yaml"


def write_config(folder: Path, scores: Mapping[str, Mapping[str, float]], strong: float, name: str) -> Path:
    rows = [{"prompt": f"What is {i} plus {i}?", "solution": f" The sum is {2 * i}."} for i in range(8)]
    (folder / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    abilities = {"weak": 0.5, "fair": 2, "good": 4, "best": strong}
    lines = [f"{who},{task},acc,{value},0.02\n" for task in scores for who, value in scores[task].items()]
    (folder / "scores.csv").write_text("candidate,task,metric,value,stderr\n" + "".join(lines))
    config = {
        "name": name,
        "output": "out",
        "engine": {"kind": "fake"},
        "candidates": [{"name": who, "source": f"fake://{ability}"} for who, ability in abilities.items()],
        "trajectories": [
            {"task": "sums", "path": "solutions.jsonl"},
            {"task": "more sums", "path": "solutions.jsonl"},
        ],
        "measured_scores": [{"format": "csv", "path": "scores.csv"}] if scores else [],
        "ranking": {"bootstraps": 50, "permutations": 50},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def score(plan: Plan, unfinished: str | None) -> None:
    for unit in plan.units:
        if unit.candidate.name == unfinished and unit.shard.task == "more sums":
            continue
        engine = load_engine(unit.candidate, plan.config.engine)
        write_unit(plan.path(unit), unit, score_units([unit], engine, plan.config)[0], engine.facts)


def open_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("FORECAST_OUTPUT", str(folder / "out"))
    return AppTest.from_file(str(MAIN), default_timeout=60).run()


def library_ranking(config_path: Path) -> Ranking:
    config = load_config(config_path)
    with open_warehouse(config.output) as db:
        return rank_candidates(load_population(db), config.ranking)


def words(page: AppTest) -> str:
    """All that the page says, as one text; what comes from names is escaped, see `plain`."""
    kinds = [page.title, page.caption, page.markdown, page.info, page.warning, page.error, page.code]
    return "\n".join(str(element.value) for elements in kinds for element in elements)


def change_warehouse(folder: Path, sql: str) -> None:
    with duckdb.connect(str(folder / "out" / "warehouse.duckdb")) as db:
        db.execute(sql)


def test_the_leader_is_that_of_the_run_s_held_out_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked = forecast.load(make_run(tmp_path)).rank()
    assert ranked.evaluated is not None and ranked.leader == ranked.evaluated.leader
    assert plain(" ".join(answer(ranked.ranking))) in words(open_page(tmp_path, monkeypatch))


def test_table_and_figures_are_the_library_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = library_ranking(make_run(tmp_path))
    page = open_page(tmp_path, monkeypatch)
    assert not page.exception
    table = page.dataframe[0].value
    assert list(table["", "rank"]) == [s.rank for s in ranking.standings]
    assert list(table["", "candidate"]) == [s.candidate for s in ranking.standings]
    assert list(table["measured", "score"]) == [s.measured for s in ranking.standings]
    assert list(table["measured", "± se"]) == [s.measured_stderr for s in ranking.standings]
    assert list(table["measured", "rank"]) == [s.measured_rank for s in ranking.standings]
    for name in ranking.shown:
        metric, _, weighting = name.partition("__")
        assert list(table[metric, f"× {weighting}"]) == [s.values[name] for s in ranking.standings]
    best = ranking.reports[0].best()
    assert best is not None and best.spearman is not None
    assert page.metric[0].value == f"{best.spearman:+.2f}"
    assert "n \\= 4 candidates" in words(page)
    for warning in ranking.warnings:
        assert plain(warning) in words(page)


def test_choosing_a_proxy_changes_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = library_ranking(make_run(tmp_path))
    page = open_page(tmp_path, monkeypatch)
    page.selectbox[1].set_value("entropy").run()
    page.selectbox[2].set_value("inverse_frequency").run()
    chosen = next(c for c in ranking.reports[0].correlations if c.proxy == "entropy__inverse_frequency")
    assert chosen.spearman is not None and chosen.ci_low is not None
    assert page.metric[0].value == f"{chosen.spearman:+.2f}"
    assert plain(f"{chosen.ci_low:+.2f}") in words(page)
    assert "Best of 80, selected post hoc" in words(page)


def test_choosing_a_target_changes_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = library_ranking(make_run(tmp_path))
    page = open_page(tmp_path, monkeypatch)
    assert page.selectbox[0].options == [report.target for report in ranking.reports]
    page.selectbox[0].set_value("essay").run()
    report = next(r for r in ranking.reports if r.target == "essay")
    best = report.best()
    assert best is not None
    assert (page.selectbox[1].value, page.selectbox[2].value) == (best.metric, best.weighting)
    assert page.metric[0].value == f"{best.spearman:+.2f}"
    assert f"p = {report.best_p:.3f}" in words(page)


def test_candidates_without_the_score_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exam = {name: value for name, value in SCORES["exam"].items() if name != "fair"}
    make_run(tmp_path, scores={"exam": exam})
    assert "Not shown: 1 candidates without a score of exam" in words(open_page(tmp_path, monkeypatch))


def test_without_measured_scores_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, scores={})
    page = open_page(tmp_path, monkeypatch)
    assert not page.exception
    assert "No measured scores yet" in words(page)
    assert "measured" not in page.dataframe[0].value.columns.get_level_values(0)
    assert not page.metric and not page.get("vega_lite_chart")


def test_with_too_few_scores_it_claims_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, scores={"exam": {"weak": 0.2, "best": 0.6}})
    page = open_page(tmp_path, monkeypatch)
    assert not page.exception
    assert page.metric[0].value == "undefined"
    assert "rho is undefined" in words(page)
    assert "agrees best" not in words(page)


def test_failed_candidates_are_shown_with_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, failures=(Failure("candidate", "gone", "candidate 'gone': no model folder at /x"),))
    page = open_page(tmp_path, monkeypatch)
    assert any("no model folder at /x" in block.value for block in page.code)


def test_unfinished_candidates_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, unfinished="good")
    page = open_page(tmp_path, monkeypatch)
    assert "good" not in list(page.dataframe[0].value["", "candidate"])
    assert "**good** · incomplete" in words(page)
    assert page.code[0].value == "1 of 2 units are not scored yet"


def test_names_are_not_read_as_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, name=":red[run] *a* $b$ <i>")
    page = open_page(tmp_path, monkeypatch)
    assert page.title[0].value == r"\:red\[run\] \*a\* \$b\$ \<i\>"


def test_before_anything_is_there_it_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(tmp_path, monkeypatch)
    assert not page.exception
    assert "`forecast run CONFIG`" in words(page)
    make_run(tmp_path)
    page.run()
    assert page.title[0].value == "four fakes"


def test_a_run_that_cannot_be_ranked_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: a page that draws itself again for as long as there is no ranking would never be there."""
    make_run(tmp_path, failures=(Failure("measured_scores", "x.csv", "x.csv: line 2 is torn"),))
    change_warehouse(tmp_path, "DELETE FROM instance_proxies")
    page = open_page(tmp_path, monkeypatch)
    assert not page.exception
    assert page.title[0].value == "four fakes"
    assert "nothing to rank by" in words(page)
    assert "x.csv: line 2 is torn" in words(page)


def test_a_warehouse_of_another_version_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path)
    change_warehouse(tmp_path, "ALTER TABLE candidates DROP COLUMN place")
    page = open_page(tmp_path, monkeypatch)
    assert not page.exception
    assert "another version" in words(page) and "forecast aggregate" in words(page)


def test_a_new_warehouse_takes_the_place_of_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path)
    page = open_page(tmp_path, monkeypatch)
    assert page.dataframe[0].value["", "candidate"][0] == "best"
    page.selectbox[0].set_value("essay").run()
    make_run(tmp_path, strong=-3, scores={"exam": SCORES["exam"]})  # what was chosen is there no more
    page.run()
    assert not page.exception
    assert page.dataframe[0].value["", "candidate"].iloc[0] != "best"
    assert page.selectbox[0].value == "exam"


def test_the_app_never_writes_to_the_warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    open_page(tmp_path, monkeypatch)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_the_app_needs_neither_ray_nor_torch() -> None:
    code = (
        "import sys, app.data, app.ranking_table, app.charts.proxy_heatmap, app.charts.proxy_scatter;"
        "print(*{'ray', 'actors', 'torch', 'transformers'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
