"""The warehouse: one DuckDB file with everything that tables, rankings and the app read.

It is built elsewhere and renamed, so a reader has the old file or the new one. DuckDB allows one writer or
many readers of a file: the file that is being served is never written to.

A warehouse may have come from a stranger, as one in a folder of results does. So it is opened without access
to other files, extensions or settings, and nothing of it is evaluated but tables that are made as ours are.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from forecast import storage
from forecast.errors import NoDataError
from forecast.plan import Failure
from forecast.storage.errors import StorageError, explained
from forecast.warehouse.schema import names_of, unlike_ours

FILE_NAME = "warehouse.duckdb"

_REBUILD = "run `forecast aggregate` (seconds; nothing that this version has scored is scored again)"
# What DuckDB keeps beside a file that is open for writing, and leaves there if its process is killed.
_BESIDE = (".wal", ".wal.checkpoint", ".wal.recovery", ".tmp")
_CONFINED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}


def warehouse_path(output: str) -> str:
    """The serving file of an output folder."""
    return storage.join(output, FILE_NAME)


def _existing(output: str) -> str:
    path = warehouse_path(output)
    if not storage.exists(path):
        raise NoDataError(f"no warehouse at {path}; run `forecast aggregate` (or `forecast run`) first")
    if not storage.is_remote(path) and not Path(path).is_file():
        raise NoDataError(f"{path} is no file; move it away and {_REBUILD}")
    return path


@contextmanager
def open_warehouse(output: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the serving file as it is now; an object store's file is fetched first.

    Tables are seen through views, also by the connection's cursors: within one process DuckDB would hand a
    file that is opened by its path to every later reader of that path, even when another has taken its place.

    Raises:
        NoDataError: nothing has been aggregated yet, or by another version of this program, or the file is
            damaged or another program writes to it.
    """
    path = _existing(output)
    with (
        storage.scratch() as scratch,
        duckdb.connect(config={**_CONFINED, "temp_directory": str(scratch)}) as db,
    ):
        try:
            quoted = _readable(path, scratch).replace("'", "''")
            db.execute(f"ATTACH '{quoted}' AS served (READ_ONLY, TYPE duckdb)")
            db.execute("SET enable_external_access = false")
            db.execute("SET lock_configuration = true")
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if (wrong := unlike_ours(db, "served", memory)) is not None:
                raise NoDataError(
                    f"{path} was built by another version of forecast, or by another program: {wrong}; "
                    + _REBUILD
                )
            for table in names_of(db, "served"):
                db.execute(f'CREATE VIEW "{table}" AS FROM served.main."{table}"')
            yield db
        except duckdb.ProgrammingError:
            raise  # a mistake of ours
        except duckdb.Error as error:
            raise NoDataError(_unreadable(path, error)) from error


def _readable(path: str, scratch: Path) -> str:
    """The file as it was published: DuckDB would apply the log that another program has left beside it."""
    alone = scratch / FILE_NAME
    if storage.is_remote(path):
        alone.write_bytes(storage.read_bytes(path))
        return str(alone)
    if not any(Path(path + suffix).exists() for suffix in _BESIDE):
        return path
    with explained(path), Path(path).open("rb") as published:
        try:
            fcntl.lockf(published, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            raise duckdb.IOException("Could not set lock on file") from None
        with alone.open("wb") as copy:
            shutil.copyfileobj(published, copy)
    return str(alone)


def _unreadable(path: str, error: duckdb.Error) -> str:
    reason = str(error).partition("\n")[0]
    if "Could not set lock" in reason:
        return f"another program has {path} open for writing; close it there, or replace the file: {_REBUILD}"
    return f"{path} cannot be read: {reason}; {_REBUILD}"


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
    """A new database that takes the place of `path` if the block ends well, and else leaves no trace.

    What other programs have left beside the old file goes with it.

    Raises:
        StorageError: no room for it, here or there.
    """
    if not storage.is_remote(path):
        storage.sweep_temporaries(str(Path(path).parent))
    # In a folder of its own: DuckDB keeps a log beside its file, and no path may hold a question mark.
    with storage.scratch() as scratch:
        built = scratch / FILE_NAME
        try:
            with duckdb.connect(str(built), config={"temp_directory": str(scratch)}) as db:
                yield db
                db.execute("CHECKPOINT")
        except duckdb.ProgrammingError:
            raise
        except duckdb.Error as error:
            raise StorageError(
                f"the warehouse cannot be built in {scratch}: {str(error).partition(chr(10))[0]}; make room "
                "there, or set TMPDIR to a folder with room, and run `forecast aggregate` again"
            ) from error
        content = built.read_bytes()
        if not storage.is_remote(path):
            for suffix in _BESIDE:  # before the old file goes: a log beside another file breaks that one
                _remove(Path(path + suffix))
        storage.write_bytes(path, content)


def _remove(stray: Path) -> None:
    with explained(str(stray)):
        if stray.is_dir() and not stray.is_symlink():
            shutil.rmtree(stray)
        else:
            stray.unlink(missing_ok=True)
