"""Warehouses that others have written to or made: read as published, or refused in one sentence."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from lakes import config_of, fill, solutions

from forecast.config.schema import Config
from forecast.errors import ForecastError, NoDataError
from forecast.plan import make_plan
from forecast.storage.errors import StorageError
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import FILE_NAME, open_warehouse
from forecast.warehouse.population import Population, load_population


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run whose warehouse stands."""
    tasks = {"t": solutions(*"abc")}
    plan = make_plan(config_of(tmp_path_factory.mktemp("run"), tasks, {"a": "fake://1", "b": "fake://2"}))
    fill(plan)
    build_warehouse(plan)
    return plan.config


@pytest.fixture
def output(made: Config, tmp_path: Path) -> Path:
    """A copy of its output."""
    return Path(shutil.copytree(made.output, tmp_path / "out"))


def population_of(output: Path) -> Population:
    with open_warehouse(str(output)) as db:
        return load_population(db)


def same(found: Population, expected: Population) -> bool:
    return found.candidates == expected.candidates and all(
        (found.proxies[task].means() == own.means()).all() for task, own in expected.proxies.items()
    )


def change(output: Path, *statements: str) -> None:
    with duckdb.connect(str(output / FILE_NAME)) as db:
        for statement in statements:
            db.execute(statement)


def killed(output: Path, statement: str) -> None:
    """Another program writes to the file and is killed before its log is taken over."""
    script = (
        f"import duckdb, os; db = duckdb.connect({str(output / FILE_NAME)!r}); "
        f"db.execute({statement!r}); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert (output / f"{FILE_NAME}.wal").exists()


@contextmanager
def written_to_elsewhere(output: Path) -> Iterator[None]:
    script = (
        f"import duckdb, sys; db = duckdb.connect({str(output / FILE_NAME)!r}); "
        "db.execute('CREATE TABLE notes AS SELECT 1 AS n'); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None
        other.stdout.readline()
        yield
        other.stdin.close()


# --- logs, locks, damage


def test_log_of_a_killed_writer_changes_nothing_and_goes_with_the_next_file(
    made: Config, output: Path
) -> None:
    expected = population_of(output)
    killed(output, "UPDATE instance_proxies SET rank__uniform = 1")
    assert same(population_of(output), expected)
    (output / f"{FILE_NAME}.tmp").mkdir()
    (output / f"{FILE_NAME}.bak").touch()  # not DuckDB's
    build_warehouse(make_plan(made.model_copy(update={"output": str(output)})))
    assert same(population_of(output), expected)
    assert sorted(p.name for p in output.glob("*warehouse*")) == [FILE_NAME, f"{FILE_NAME}.bak"]


def test_log_of_another_file_is_not_applied(output: Path, tmp_path: Path) -> None:
    expected = population_of(output)
    with duckdb.connect(str(tmp_path / "other")) as db:
        db.execute("CREATE TABLE t AS SELECT 1")
    (output / f"{FILE_NAME}.wal").write_bytes(os.urandom(5000))
    assert same(population_of(output), expected)


def test_file_open_for_writing_elsewhere_is_refused_and_can_be_replaced(made: Config, output: Path) -> None:
    with written_to_elsewhere(output):
        with pytest.raises(NoDataError, match=r"another program .* open for writing.*forecast aggregate"):
            population_of(output)
        (output / f"{FILE_NAME}.wal").unlink()
        with pytest.raises(NoDataError, match="open for writing"):
            population_of(output)
        build_warehouse(make_plan(made.model_copy(update={"output": str(output)})))
        assert population_of(output).candidates == ("a", "b")


def test_lock_of_a_reader_elsewhere_is_no_obstacle(output: Path) -> None:
    with (output / FILE_NAME).open("rb") as other:
        fcntl.lockf(other, fcntl.LOCK_SH)
        assert population_of(output).candidates == ("a", "b")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"SQLite format 3\0" + bytes(5000),
        lambda data: data[:5000],
        lambda data: data[: len(data) // 2],
        lambda data: bytes(len(data)),
        lambda data: data[:12288] + bytes(len(data) - 12288),
        lambda data: b"PAR1" + data[4:],
    ],
)
def test_damaged_file_is_one_sentence(output: Path, damage: Any) -> None:
    path = output / FILE_NAME
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(NoDataError, match=r"cannot be read|another version") as caught:
        population_of(output)
    assert "forecast aggregate" in str(caught.value) and "\n" not in str(caught.value)


def test_every_torn_block_is_one_sentence_or_harmless(output: Path) -> None:
    path, expected = output / FILE_NAME, population_of(output)
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 12):
        path.write_bytes(
            whole[:place] + bytes(b ^ 0x5A for b in whole[place : place + 64]) + whole[place + 64 :]
        )
        try:
            assert same(population_of(output), expected)
        except NoDataError as error:
            assert "forecast aggregate" in str(error)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_something_else_in_its_place_is_refused(output: Path, kind: str) -> None:
    path = output / FILE_NAME
    path.unlink()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(NoDataError, match="is no file"):
        population_of(output)


# --- SQL of strangers


def test_names_of_tables_are_no_sql(output: Path, tmp_path: Path) -> None:
    expected = population_of(output)
    written = tmp_path / "written.csv"
    name = f"x\" AS SELECT 1; COPY (SELECT 1) TO '{written}'; --"
    change(output, f'CREATE TABLE "{name.replace(chr(34), chr(34) * 2)}" (n INTEGER)')
    change(
        output,
        'CREATE TABLE "it\'s; DROP TABLE run" (n INTEGER)',
        "CREATE SCHEMA s",
        "CREATE TABLE s.run (n INT)",
    )
    assert same(population_of(output), expected)
    assert not written.exists()


def test_macros_and_views_beside_the_tables_shadow_nothing(output: Path) -> None:
    expected = population_of(output)
    change(
        output,
        "CREATE MACRO count(x) AS 42",
        "CREATE MACRO json_extract(x, y) AS 'no'",
        "CREATE MACRO coalesce_(x) AS 42",
        "CREATE MACRO duckdb_tables() AS TABLE SELECT 1 AS n",
        "CREATE VIEW duckdb_indexes AS SELECT 1 AS n",
        "CREATE VIEW notes AS SELECT * FROM run",
        "CREATE TYPE status AS ENUM ('complete')",
    )
    with open_warehouse(str(output)) as db:
        assert db.execute("SELECT count(*) FROM candidates").fetchall() == [(2,)]
    assert same(population_of(output), expected)


SECRET = "SELECT content FROM read_text('/etc/hostname')"


@pytest.mark.parametrize(
    "statements",
    [
        ["DROP TABLE run", f"CREATE VIEW run AS {SECRET}"],
        ["ALTER TABLE run RENAME TO old", "CREATE VIEW run AS SELECT * REPLACE ('x' AS name) FROM old"],
        ["DROP TABLE failures", "CREATE MACRO failures() AS TABLE SELECT 1"],
        ["DROP TABLE measured"],
        ["DROP TABLE layout", "CREATE TABLE layout AS SELECT 1::BIGINT AS version"],
        ["ALTER TABLE candidates ADD COLUMN further INTEGER"],
        ["ALTER TABLE candidates DROP COLUMN status"],
        ["ALTER TABLE candidates RENAME COLUMN parameters TO weights"],
        ["ALTER TABLE candidates ALTER parameters TYPE HUGEINT"],
        ["ALTER TABLE candidates ALTER family TYPE BLOB"],
        ["ALTER TABLE candidates ALTER status SET DEFAULT 'complete'"],
        ["ALTER TABLE candidates ALTER candidate SET NOT NULL"],
        ["CREATE INDEX own ON candidates (candidate)"],
        ["CREATE UNIQUE INDEX own ON run ((length(name)))"],
        ["DELETE FROM candidates", "ALTER TABLE candidates ALTER status TYPE ENUM ('complete')"],
        ["DROP TABLE rbridge", "CREATE TABLE rbridge (candidate_id VARCHAR, task VARCHAR, expert VARCHAR, "
         "instance_id VARCHAR, rbridge DOUBLE AS (length(task)::DOUBLE))"],
        ["DROP TABLE rbridge", "CREATE TABLE rbridge (candidate_id VARCHAR, task VARCHAR COLLATE NOCASE, "
         "expert VARCHAR, instance_id VARCHAR, rbridge DOUBLE)"],
        ["DROP TABLE rbridge", "CREATE TABLE rbridge (candidate_id VARCHAR, task VARCHAR, expert VARCHAR, "
         "instance_id VARCHAR, rbridge DOUBLE, CHECK (rbridge > 0))"],
        ["DROP TABLE rbridge", "CREATE SEQUENCE s", "CREATE TABLE rbridge (candidate_id VARCHAR, "
         "task VARCHAR, expert VARCHAR, instance_id VARCHAR, rbridge DOUBLE DEFAULT nextval('s'))"],
    ],
    ids=lambda statements: statements[-1][:40],
)  # fmt: skip
def test_tables_that_are_made_otherwise_are_refused(output: Path, statements: list[str]) -> None:
    change(output, *statements)
    with pytest.raises(NoDataError, match=r"another version of forecast.*: its? .*forecast aggregate"):
        population_of(output)


def test_table_beyond_memory_is_refused(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 32)  # a machine with one KiB
    with pytest.raises(NoDataError, match="does not fit into the memory"):
        population_of(output)


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{0}'",
        "SELECT * FROM read_text('{0}')",
        "SELECT * FROM '{0}'",
        "ATTACH '{0}'",
        "EXPORT DATABASE '{0}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 1",
        "SELECT * FROM stranger",
        "DELETE FROM served.run",
    ],
)
def test_connection_reaches_nothing_else(output: Path, tmp_path: Path, statement: str) -> None:
    target = tmp_path / "target.csv"
    stranger = {"n": [1]}  # DuckDB's Python client would look variables up as tables
    with open_warehouse(str(output)) as db, pytest.raises(duckdb.Error):
        db.execute(statement.format(target))
    assert stranger and not target.exists()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE run SET config = '{'",
        "UPDATE run SET config = '[]'",
        "UPDATE run SET config = NULL",
        "UPDATE run SET config = repeat('[', 200_000)",
        """UPDATE run SET config = '{"trajectories": 5}'""",
        "DELETE FROM instance_proxies WHERE instance_id = 'a' AND expert = 'human' AND rowid % 2 = 0",
        "UPDATE candidates SET candidate_id = 'x' WHERE candidate = 'a'",
        "INSERT INTO candidates (candidate, candidate_id, status, place) VALUES ('c', 'c', 'complete', 3)",
        "UPDATE instance_proxies SET task = NULL",
        "UPDATE instance_proxies SET instance_id = NULL, expert = NULL",
        "INSERT INTO choice_results VALUES ('x', 'c', 'i', 1, 0, 0)",
    ],
)
def test_contents_that_contradict_each_other_are_one_sentence(output: Path, statement: str) -> None:
    change(output, statement)
    try:
        assert population_of(output).candidates[:2] == ("a", "b")
    except NoDataError as error:
        assert "\n" not in str(error)


# --- room


def test_disk_that_is_full_while_the_warehouse_is_built_is_one_sentence(
    made: Config, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = population_of(output)
    plan = make_plan(made.model_copy(update={"output": str(output)}))
    monkeypatch.setattr(
        "forecast.warehouse.build.create_means",
        lambda db: (_ for _ in ()).throw(duckdb.IOException("IO Error: no space left\nmore")),
    )
    with pytest.raises(StorageError, match=r"no space left; make room there, or set TMPDIR"):
        build_warehouse(plan)
    assert same(population_of(output), expected)
    assert isinstance(StorageError("x"), ForecastError)
