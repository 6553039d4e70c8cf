"""The warehouse: one DuckDB file with everything that tables, rankings and the app read.

It is built elsewhere and renamed, so a reader has the old file or the new one. DuckDB allows one writer or
many readers of a file: the file that is being served is never written to.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from forecast import storage
from forecast.errors import NoDataError
from forecast.plan import Failure

FILE_NAME = "warehouse.duckdb"
LAYOUT = 2  # of the tables; a reader of another layout would look for what is not there


def warehouse_path(output: str) -> str:
    """The serving file of an output folder."""
    return storage.join(output, FILE_NAME)


def _existing(output: str) -> str:
    path = warehouse_path(output)
    if not storage.exists(path):
        raise NoDataError(f"no warehouse at {path}; run `forecast aggregate` (or `forecast run`) first")
    return path


@contextmanager
def open_warehouse(output: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the serving file as it is now; an object store's file is fetched first.

    Tables are seen through views, also by the connection's cursors: within one process DuckDB would hand a
    file that is opened by its path to every later reader of that path, even when another has taken its place.

    Raises:
        NoDataError: nothing has been aggregated yet, or by another version of this program.
    """
    path = _existing(output)
    with tempfile.TemporaryDirectory(prefix="forecast-") as scratch:
        local = path
        if storage.is_remote(path):
            local = str(Path(scratch) / FILE_NAME)
            Path(local).write_bytes(storage.read_bytes(path))
        with duckdb.connect(config={"temp_directory": scratch}) as db:
            quoted = local.replace("'", "''")
            db.execute(f"ATTACH '{quoted}' AS served (READ_ONLY)")
            found = db.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'served'")
            tables = [table for (table,) in found.fetchall()]
            for table in tables:
                db.execute(f'CREATE VIEW "{table}" AS FROM served."{table}"')
            if "layout" not in tables or db.execute("FROM layout").fetchall() != [(LAYOUT,)]:
                raise NoDataError(
                    f"{path} was built by another version of forecast; run `forecast aggregate` with this "
                    "one (seconds; nothing is scored again that this version has scored)"
                )
            yield db


def serving_identity(output: str) -> str:
    """Changes whenever another serving file takes the place of the present one.

    Raises:
        NoDataError: nothing has been aggregated yet.
    """
    path = _existing(output)
    if storage.is_remote(path):
        fs, inner = storage.filesystem(path)
        info = fs.get_file_info(inner)
        return f"{info.mtime_ns} {info.size}"
    stat = Path(path).stat()
    return f"{stat.st_ino} {stat.st_mtime_ns} {stat.st_size}"


def read_failures(db: duckdb.DuckDBPyConnection) -> list[Failure]:
    """What failed when the warehouse was built."""
    rows = db.execute("SELECT subject, name, error, task, instance_id FROM failures ORDER BY place")
    return [Failure(*row) for row in rows.fetchall()]


@contextmanager
def published(path: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A new database that takes the place of `path` if the block ends well, and else leaves no trace."""
    if not storage.is_remote(path):
        storage.sweep_temporaries(str(Path(path).parent))
    # In a folder of its own: DuckDB keeps a log beside its file, and no path may hold a question mark.
    with tempfile.TemporaryDirectory(prefix="forecast-") as scratch:
        built = Path(scratch) / FILE_NAME
        with duckdb.connect(str(built), config={"temp_directory": scratch}) as db:
            db.execute(f"CREATE TABLE layout AS SELECT {LAYOUT} AS version")
            yield db
            db.execute("CHECKPOINT")
        storage.write_bytes(path, built.read_bytes())
