"""The serving file: replaced whole, under the eyes of its readers."""

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from lakes import config_of, fill, solutions

from forecast import storage
from forecast.errors import NoDataError
from forecast.plan import Failure, make_plan
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import FILE_NAME, open_warehouse, published, read_failures, warehouse_path
from forecast.warehouse.schema import create_means, create_tables


def put(folder: Path, value: int) -> None:
    with published(str(folder / FILE_NAME)) as db:
        create_tables(db)
        create_means(db)
        db.execute("INSERT INTO run (name) VALUES (?)", [str(value)])


def got(db: duckdb.DuckDBPyConnection) -> int:
    (row,) = db.execute("SELECT name FROM run").fetchall()
    return int(row[0])


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_readers_keep_the_old_file_and_new_readers_get_the_new_one(tmp_path: Path) -> None:
    put(tmp_path, 1)
    with open_warehouse(str(tmp_path)) as old:
        assert got(old) == 1
        put(tmp_path, 2)
        with open_warehouse(str(tmp_path)) as new:  # in one process, where DuckDB shares files by their path
            assert got(new) == got(new.cursor()) == 2
            assert got(old) == got(old.cursor()) == 1
    assert files(tmp_path) == [FILE_NAME]


def test_another_process_keeps_reading_the_old_file(tmp_path: Path) -> None:
    put(tmp_path, 1)
    script = (
        "import sys\n"
        "from forecast.warehouse.connect import open_warehouse\n"
        "with open_warehouse(sys.argv[1]) as db:\n"
        "    print(db.execute('SELECT name FROM run').fetchall(), flush=True)\n"
        "    sys.stdin.readline()\n"
        "    print(db.execute('SELECT name FROM run').fetchall(), flush=True)\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None and reader.stdin is not None
    assert reader.stdout.readline() == "[('1',)]\n"
    put(tmp_path, 2)
    out, _ = reader.communicate("go on\n", timeout=60)
    assert out == "[('1',)]\n"
    with open_warehouse(str(tmp_path)) as db:
        assert got(db) == 2


def test_a_relation_can_be_the_first_query(tmp_path: Path) -> None:
    put(tmp_path, 3)
    with open_warehouse(str(tmp_path)) as db:
        assert db.sql("SELECT name FROM run").fetchall() == [("3",)]


def test_an_error_in_the_middle_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    put(tmp_path, 1)
    with pytest.raises(ZeroDivisionError), published(str(tmp_path / FILE_NAME)) as db:
        db.execute("CREATE TABLE t AS SELECT 2 AS v")
        raise ZeroDivisionError
    assert files(tmp_path) == [FILE_NAME]
    with open_warehouse(str(tmp_path)) as db:
        assert got(db) == 1


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    gone = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    mine = storage.temporary_beside(tmp_path / FILE_NAME)  # of a process that is alive
    leftover = mine.with_name(mine.name.replace(f"@{os.getpid()}@", f"@{gone}@"))
    mine.touch()
    leftover.touch()
    put(tmp_path, 1)
    assert files(tmp_path) == sorted([FILE_NAME, mine.name])


def test_readers_cannot_write(tmp_path: Path) -> None:
    put(tmp_path, 1)
    with open_warehouse(str(tmp_path)) as db, pytest.raises(duckdb.Error):
        db.execute("DELETE FROM served.run")


def test_a_folder_with_characters_that_mean_something_to_sql_and_to_globs(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path / "it's [a] {run}*?", {"t": solutions("1")}, {"a": "fake://1"}))
    fill(plan)
    build_warehouse(plan)
    with open_warehouse(plan.config.output) as db:
        assert db.execute("SELECT count(*) FROM instance_proxies").fetchall() == [(1,)]


def test_nothing_aggregated_yet(tmp_path: Path) -> None:
    with pytest.raises(NoDataError, match="forecast aggregate"), open_warehouse(str(tmp_path)):
        pass


def test_failures_come_back_as_they_were(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("1")}, {"a": "fake://1", "b": "fake://2"}))
    fill(plan, only=["a"])
    failures = [
        Failure("task", "u", "no such file"),
        Failure("candidate", "b", "NaN"),
        Failure("candidate", "a", "too long", "t", "7"),
    ]
    build_warehouse(plan, failures)
    with open_warehouse(plan.config.output) as db:
        assert read_failures(db) == failures


def test_lake_and_warehouse_on_an_object_store(tmp_path: Path, bucket: str) -> None:
    tasks = {"t": solutions(*"abcd")}
    choices = {"c": [{"id": "1", "prompt": "p", "options": ["x", "y"], "answer": 0}]}
    candidates = {"a": "fake://1", "b": "fake://2"}
    tables = {}
    for name, output in (("local", str(tmp_path / "out")), ("remote", f"{bucket}/some run/out")):
        plan = make_plan(config_of(tmp_path, tasks, candidates, choices, output=output, shard_trajectories=3))
        fill(plan)
        assert plan.done() == {unit.address for unit in plan.units}
        assert build_warehouse(plan) == []
        with open_warehouse(output) as db:
            tables[name] = [
                db.execute(f"FROM {t}").fetchall() for t in ("task_proxies", "measured", "candidates")
            ]
    assert storage.exists(warehouse_path(f"{bucket}/some run/out"))
    assert tables["remote"] == tables["local"]
    build_warehouse(plan)  # replaces the object
    with open_warehouse(output) as db:
        assert db.execute("SELECT count(*) FROM candidates").fetchall() == [(2,)]


def test_a_file_of_another_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with duckdb.connect(str(path)) as db:
        db.execute("CREATE TABLE t AS SELECT 1 AS v")
    with (
        pytest.raises(NoDataError, match=r"another version.*forecast aggregate"),
        open_warehouse(str(tmp_path)),
    ):
        pass
    put(tmp_path, 1)
    with open_warehouse(str(tmp_path)) as db:
        assert got(db) == 1
