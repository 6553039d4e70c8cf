"""`forecast corpora` and `forecast convert`: outputs, files and errors."""

import csv
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer
from analysis.corpora.small_runs import world, write
from driving import run_forecast
from typer.testing import CliRunner

import forecast
from forecast.analysis.corpora.compare import compare_corpora
from forecast.analysis.corpora.corpora_result import CorporaOptions
from forecast.analysis.corpora.observations_from_run import tables_of
from forecast.cli.convert import convert
from forecast.cli.corpora import corpora
from forecast.errors import ConfigError, InputError, NoDataError

DATA = Path(__file__).parents[2] / "configs" / "data"
QUICK = ("--bootstraps", "50", "--permutations", "20", "--workers", "1")
app = typer.Typer()
app.command()(corpora)
app.command()(convert)


def call(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write(tmp_path_factory.mktemp("tables"), *world(corpora=6))


def test_json_has_the_keys_that_scripts_read(paths: tuple[str, str]) -> None:
    result = call("corpora", "--table", paths[0], "--targets", paths[1], "--json", *QUICK)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    row = record["rows"][0]
    assert {
        *("metric", "size", "seed", "step", "task", "decision_accuracy", "spearman", "n_pairs", "n_ties"),
        *("compute_fraction", "ci_low", "ci_high", "reason"),
    } <= set(row)
    assert {row["seed"] for row in record["rows"]} == {0, 1, 2, "mean"}
    assert record["target"]["metric"] == "accuracy" and record["noise_ceilings"][0]["decision_accuracy"] > 0.5
    assert record["failed"] == [] and any("the target's size is not told" in w for w in record["warnings"])


def test_corpora_are_ranked_with_and_without_targets(paths: tuple[str, str], tmp_path: Path) -> None:
    keys = {"corpus", "rank", "rank_low", "rank_high", "p_best", "expected_regret", "basis"}
    for arguments in (("--targets", paths[1]), ()):
        result = call("corpora", "--table", paths[0], *arguments, "--json", *QUICK)
        assert result.exit_code == 0, result.output
        record = json.loads(result.stdout)
        assert len(record["corpora"]) == 6 and all(keys <= set(one) for one in record["corpora"])
        ranks = [one["rank"] for one in record["corpora"]]
        assert ranks == sorted(ranks)
        assert sum(one["p_best"] for one in record["corpora"]) == pytest.approx(1)
        assert record["ranking"]["over"] == ("corpora" if arguments else "seeds")
        for one in record["corpora"]:
            assert one["rank_low"] <= one["rank"] <= one["rank_high"]
            assert (one["measured"] is None) == (not arguments)
    text = call("corpora", "--table", paths[0], *QUICK).output
    first = record["corpora"][0]["corpus"]
    assert f"\n{first} leads for macro by nll at 300M" in text and "no targets" in text
    assert len(text.splitlines()) <= 25
    refused = call("corpora", "--table", paths[0], "--budget", "0.1", *QUICK)
    assert refused.exit_code == 1 and "give --targets FILE" in str(refused.exception)


def test_one_run_of_each_corpus_has_ranks_and_says_why_no_more(tmp_path: Path) -> None:
    table = tmp_path / "small.csv"
    rows = [f"c{i},10M,x,cross_entropy__uniform,{2 - i / 10}" for i in range(3)]
    rows += [f"c{i},30M,x,cross_entropy__gaussian_nll,{2 + i / 10}" for i in range(3)]
    table.write_text("\n".join(["corpus,size,task,metric,value", *rows]) + "\n")
    record = json.loads(call("corpora", "--table", table, "--json", *QUICK).stdout)
    assert [one["corpus"] for one in record["corpora"]] == ["c2", "c1", "c0"]
    assert record["corpora"][0]["basis"] == "cross_entropy__uniform at 10M"
    assert {(one["rank_low"], one["p_best"], one["expected_regret"]) for one in record["corpora"]} == {
        (None, None, None)
    }
    assert "one run of each corpus" in record["ranking"]["reason"]


def test_tables_and_page_are_printed(paths: tuple[str, str], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    sizes = [
        o
        for s, n in (("10M", 1e9), ("30M", 3e9), ("100M", 1e10), ("300M", 3e10))
        for o in ("--training-tokens", f"{s}={n}")
    ]
    result = call(
        "corpora",
        "--table",
        paths[0],
        "--targets",
        paths[1],
        "--all",
        "--html",
        page,
        "--budget",
        "0.1",
        *sizes,
        *QUICK,
    )
    assert result.exit_code == 0, result.output
    for words in (
        "Against accuracy of macro",
        "Pareto frontier",
        "Choice within a budget",
        "Scaling laws",
    ):
        assert words in result.stdout
    text = page.read_text()
    assert text.count("<svg") == 3 and "<script" not in text and "What is counted as compute" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either CONFIG"),
        (("x.yaml", "--table", "t.csv"), "not both"),
        (("x.yaml", "--targets", "t.csv"), "x.yaml"),
        (("--table", "t.csv", "--targets", "u.csv", "--budget", "0"), "--budget 0: expected a share"),
        (("--table", "t.csv", "--targets", "u.csv", "--parameters", "4M"), "expected SIZE=NUMBER"),
        (("--table", "t.csv", "--targets", "u.csv", "--training-tokens", "4M=-1"), "expected SIZE=NUMBER"),
        (("--table", "t.csv", "--targets", "u.csv", "--expert-tokens", "5"), "give both"),
    ],
)
def test_wrong_usage_names_the_option(arguments: tuple[str, ...], message: str) -> None:
    error = call("corpora", *arguments).exception
    assert isinstance(error, ConfigError) and message in str(error)


def test_a_size_that_no_table_has_is_refused(paths: tuple[str, str]) -> None:
    error = call(
        "corpora", "--table", paths[0], "--targets", paths[1], "--parameters", "7B=7e9", *QUICK
    ).exception
    assert isinstance(error, ConfigError) and "--parameters 7B=...: no such size; sizes are 10M, 30M" in str(
        error
    )


def test_the_example_configuration_is_ready_to_run_and_to_be_calibrated() -> None:
    """`--dry-run` reads all of its inputs; small runs have seeds and sizes, five groups have a target."""
    code, out, _ = run_forecast("run", str(DATA.parent / "corpora.yaml"), "--dry-run", "--json")
    assert code == 0 and len(json.loads(out)["candidates"]) == 34
    run = forecast.load(DATA.parent / "corpora.yaml")
    runs = [c for c in run.config.candidates if not c.name.endswith("-1B")]
    assert len({(c.corpus, c.parameters, c.seed) for c in runs}) == len(runs) == 28
    measured = {name for name, *_ in csv.reader((DATA / "corpora_scores.csv").open())} - {"candidate"}
    large = [c for c in run.config.candidates if c.name in measured]
    assert len(large) == 6 and len({c.corpus_group or c.corpus for c in large}) == 5


def test_published_tables_are_converted(tmp_path: Path) -> None:
    for name in ("t.csv", "t.parquet"):
        result = call("convert", "datadecide", DATA / "datadecide_target_1b_accuracy.csv", tmp_path / name)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "t.csv").read_text().startswith("corpus,seed,task,metric,value\n")
    result = call("convert", "olmo", DATA / "olmo2_7b_evals.csv", tmp_path / "run.csv")
    assert result.exit_code == 0 and (tmp_path / "run.csv").read_text().startswith("run,step,tokens,")
    error = call("convert", "datadecid", "a.csv", "b.csv").exception
    assert isinstance(error, ConfigError) and "did you mean 'datadecide'" in str(error)
    assert "ends in .csv" in str(call("convert", "olmo", "a.csv", "b.txt").exception)


@pytest.fixture
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    """Three corpora at two sizes, and a candidate of no corpus; the better the corpus, the lower its loss."""
    db = duckdb.connect()
    text = (files("forecast.warehouse") / "sql" / "tables.sql").read_text(encoding="utf-8")
    db.execute(text.replace("{proxy_columns}", "cross_entropy__uniform DOUBLE"))
    db.execute("CREATE TABLE task_proxies (candidate_id VARCHAR, task VARCHAR, proxy VARCHAR, value DOUBLE)")
    db.execute(
        "CREATE TABLE bits_per_byte (candidate_id VARCHAR, task VARCHAR, expert VARCHAR, "
        "bits_per_byte DOUBLE)"
    )
    place = 0
    for size, parameters in (("small", 10_000_000), ("large", 1_000_000_000)):
        for c in range(3):
            for step in (100, 200):
                place += 1
                name = f"{size}-{c}-{step}"
                db.execute(
                    "INSERT INTO candidates (place, candidate, candidate_id, parameters, training_tokens, "
                    "corpus, step, status) VALUES (?, ?, ?, ?, ?, ?, ?, 'complete')",
                    [place, name, name, parameters, step * 1_000_000, f"c{c}", step],
                )
                db.execute(
                    "INSERT INTO task_proxies VALUES (?, 'proofs', 'cross_entropy__uniform', ?)",
                    [name, 3.0 - c],
                )
                for expert in ("p", "q"):
                    db.execute(
                        "INSERT INTO bits_per_byte VALUES (?, 'proofs', ?, ?)", [name, expert, 1.0 + c]
                    )
                db.execute(
                    "INSERT INTO measured (candidate, task, metric, value) VALUES (?, 'sciq', 'accuracy', ?)",
                    [name, 0.5 + 0.1 * c + 0.0001 * step],
                )
                db.execute(
                    "INSERT INTO units (candidate, kind, task, tokens_read) "
                    "VALUES (?, 'trajectories', 'proofs', 500)",
                    [name],
                )
    db.execute(
        "INSERT INTO candidates (place, candidate, candidate_id, status) "
        "VALUES (99, 'other', 'o', 'complete')"
    )
    yield db
    db.close()


def test_candidates_of_a_warehouse_are_runs(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = compare_corpora(tables_of(warehouse), CorporaOptions(bootstraps=20, permutations=20, laws=False))
    assert (found.accounting.target_size, found.targets.corpora) == ("1B", ("c0", "c1", "c2"))
    assert found.targets.tasks[0].mean.tolist() == pytest.approx([0.52, 0.62, 0.72])  # last steps
    rows = {(r.metric, r.size, r.step): r for r in found.rows if r.seed == "mean"}
    proxy = rows["cross_entropy__uniform", "10M", 100.0]
    assert (proxy.decision_accuracy, proxy.observed_tasks) == (1.0, ("proofs",))
    target = 6 * 1e9 * 200e6
    assert proxy.compute_fraction == pytest.approx((6 * 1e7 * 100e6 + 2 * 1e7 * 500) / target)
    assert rows["bits_per_byte", "10M", 200.0].decision_accuracy == 0.0
    assert rows["accuracy", "10M", 200.0].observed_tasks == ("sciq",)


def test_warehouse_without_runs_or_scores_says_why(warehouse: duckdb.DuckDBPyConnection) -> None:
    assert {t.size for t in tables_of(warehouse, "10M").targets} == {"10M"}
    with pytest.raises(InputError, match="--target-size 2B: no measured score"):
        tables_of(warehouse, "2B")
    warehouse.execute("UPDATE candidates SET step = 100 WHERE candidate = 'small-0-200'")
    with pytest.raises(
        InputError, match="candidates small-0-100 and small-0-200 are both corpus c0, 10M, seed 0"
    ):
        tables_of(warehouse)
    warehouse.execute("DELETE FROM measured")
    warehouse.execute("UPDATE candidates SET step = 200 WHERE candidate = 'small-0-200'")
    assert tables_of(warehouse).observations and not tables_of(warehouse).targets
    warehouse.execute("UPDATE candidates SET corpus = NULL")
    with pytest.raises(NoDataError, match="no complete candidate has a `corpus`"):
        tables_of(warehouse)


def test_candidates_count_without_an_input_embedding_of_its_own(warehouse: duckdb.DuckDBPyConnection) -> None:
    assert any("input embedding" in words for words in tables_of(warehouse).warnings)
    warehouse.execute(
        "UPDATE candidates SET input_embedding = CASE WHEN parameters = 10000000 THEN 4000000 ELSE 0 END"
    )
    read = tables_of(warehouse)
    assert not read.warnings
    found = compare_corpora(read, CorporaOptions(bootstraps=20, permutations=20, laws=False))
    row = next(r for r in found.rows if (r.size, r.step, r.seed) == ("10M", 100.0, "mean"))
    assert row.training_flops == 6 * 6e6 * 100e6
    assert found.accounting.target_parameters == 1e9


def test_candidates_have_variants_and_groups(warehouse: duckdb.DuckDBPyConnection) -> None:
    warehouse.execute(
        "UPDATE candidates SET variant = step, step = 200, "
        "corpus_group = CASE WHEN corpus = 'c1' THEN '1' ELSE '0' END"
    )
    read = tables_of(warehouse)
    assert {o.variant for o in read.observations} == {"100", "200"}
    assert {(o.corpus, o.group) for o in read.observations} == {("c0", "0"), ("c1", "1"), ("c2", "0")}
    assert {t.seed for t in read.targets} == {"100 0", "200 0"}
    warehouse.execute("UPDATE candidates SET corpus_group = 'x' WHERE candidate = 'small-0-200'")
    with pytest.raises(InputError, match="a corpus has one group"):
        tables_of(warehouse)
