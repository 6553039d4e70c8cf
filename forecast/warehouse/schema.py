"""The tables of a warehouse: how they are made, and whether a file holds these and nothing in their place."""

from functools import cache

import duckdb

from forecast.proxies.byte_proxies import byte_columns
from forecast.proxies.token_proxies import PROXIES
from forecast.warehouse.sql import statement

LAYOUT = 2  # of the tables; a reader of another layout would look for what is not there

OPTIONAL = "byte_task_proxies"  # warehouses of earlier versions lack it, and only `diagnose` reads it


def create_tables(db: duckdb.DuckDBPyConnection) -> None:
    """The tables that are filled from the lake, still empty."""
    db.execute(f"CREATE TABLE layout AS SELECT {LAYOUT} AS version")
    db.execute(statement("tables", proxy_columns=",\n    ".join(f"{p.name} DOUBLE" for p in PROXIES)))
    db.execute(statement("byte_tables", byte_columns=byte_columns()))


def create_means(db: duckdb.DuckDBPyConnection) -> None:
    """The tables that follow from those."""
    db.execute(statement("task_proxies"))
    db.execute(statement("byte_task_proxies"))


@cache
def known_tables() -> dict[str, str]:
    """Every table with the statement that DuckDB would create it by."""
    with duckdb.connect() as db:
        create_tables(db)
        create_means(db)
        return {name: sql for name, sql, _ in _tables(db, "memory")}


def unlike_ours(db: duckdb.DuckDBPyConnection, database: str, most_bytes: float) -> str | None:
    """What is wrong with the tables of an attached database that a stranger may have made; None if nothing.

    The statement covers columns, types, collations, computed columns, defaults and checks. A view or macro in
    a table's place is no table, and an index may contradict its table. What else the file holds is not looked
    at. Nothing of the database is evaluated.

    Args:
        most_bytes: a table of more is refused: some kilobytes can stand for billions of equal rows.
    """
    found = {name: (sql, size) for name, sql, size in _tables(db, database)}
    indexed = db.execute("SELECT table_name FROM duckdb_indexes() WHERE database_name = ?", [database])
    indexes = {name for (name,) in indexed.fetchall()}
    for name, sql in known_tables().items():
        if name == OPTIONAL and name not in found:
            continue
        if name not in found:
            return f"it has no table {name}"
        if found[name][0] != sql or name in indexes:
            return f"its table {name} is defined in another way"
        if found[name][1] > most_bytes:
            return f"its table {name} does not fit into the memory of this machine"
    return None


def names_of(db: duckdb.DuckDBPyConnection, database: str) -> list[str]:
    """Those of our tables that an attached database has."""
    return [name for name, _, _ in _tables(db, database) if name in known_tables()]


def _tables(db: duckdb.DuckDBPyConnection, database: str) -> list[tuple[str, str, int]]:
    """Name, statement, and bytes that its values take at least."""
    rows = db.execute(
        "SELECT table_name, sql, 8 * estimated_size::DOUBLE * column_count FROM duckdb_tables() "
        "WHERE database_name = ? AND schema_name = 'main'",
        [database],
    )
    return rows.fetchall()
