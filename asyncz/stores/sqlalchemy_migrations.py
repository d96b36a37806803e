"""The version of a store's tables, and the way from an older one to this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Executable,
    Table,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.schema import CreateColumn

from asyncz.exceptions import StoreError, StoreFormatError
from asyncz.stores.sqlalchemy_schema import (
    DEFAULT_TABLENAME,
    Tables,
    attempt_columns,
    family_of,
    make_tables,
    mark_columns,
    member_columns,
)

__all__ = [
    "SCHEMA_VERSION",
    "check_not_newer",
    "drop_tables",
    "read_version",
    "upgrade",
    "upgrade_tables",
]

LOCK_PATIENCE = 30
"""Seconds to wait for somebody else who changes the same tables."""


def _create(connection: Connection, tables: Tables) -> None:
    existing = inspect(connection)
    name, schema = tables.tasks.name, tables.tasks.schema
    if existing.has_table(name, schema=schema):
        columns = {column["name"] for column in existing.get_columns(name, schema=schema)}
        if not columns >= {"id", "next_run_us", "added", "rev", "record"}:
            raise StoreFormatError(
                f"There is a table {name!r} in the database that is not one of this store; "
                "give another tablename, or rename the table."
            )
    tables.tasks.metadata.create_all(connection, tables=list(tables), checkfirst=True)


def _add_runs(connection: Connection, tables: Tables) -> None:
    """Runs, and nodes that are more than their last claim."""
    _add_columns(connection, tables.nodes, member_columns())
    tables.runs.create(connection, checkfirst=True)


def _add_attempts(connection: Connection, tables: Tables) -> None:
    """Runs that wait for their next attempt, or that somebody wants cancelled; and the tasks that
    are watched for being overdue."""
    _add_columns(connection, tables.runs, attempt_columns())
    _add_indexes(connection, tables.runs)
    _add_columns(connection, tables.tasks, mark_columns())
    _add_indexes(connection, tables.tasks)


def _add_indexes(connection: Connection, table: Table) -> None:
    """Make those indexes of a table that are not there yet."""
    known = {index["name"] for index in inspect(connection).get_indexes(table.name, table.schema)}
    for index in table.indexes:
        if index.name not in known:
            index.create(connection)


def _add_columns(connection: Connection, table: Table, columns: Iterable[Column[Any]]) -> None:
    """Add those columns to a table that it does not have yet."""
    dialect = connection.dialect
    name = dialect.identifier_preparer.format_table(table)
    found = inspect(connection).get_columns(table.name, schema=table.schema)
    known = {column["name"] for column in found}
    for column in columns:
        if column.name not in known:
            wanted = CreateColumn(table.c[column.name]).compile(dialect=dialect)
            connection.execute(text(f"ALTER TABLE {name} ADD COLUMN {wanted}"))


MIGRATIONS: dict[int, Callable[[Connection, Tables], None]] = {
    1: _create,
    2: _add_runs,
    3: _add_attempts,
}
"""What makes a database of the version before one of this version. Each can be done again, since
some servers do not take back half of one."""

SCHEMA_VERSION = max(MIGRATIONS)


def read_version(connection: Connection, tables: Tables) -> int:
    """The version of the schema in the database; 0: there is none."""
    meta = tables.meta
    if not inspect(connection).has_table(meta.name, schema=meta.schema):
        return 0
    found = connection.execute(select(meta.c.value).where(meta.c.name == "version")).scalar()
    return found or 0


def upgrade_tables(
    connection: Connection, tablename: str = DEFAULT_TABLENAME, schema: str | None = None
) -> None:
    """Make the tables of a store, or bring them forward to what this release needs.

    For migrations of your own, with `create_tables=False` for the store:
    `upgrade_tables(op.get_bind())` in one of Alembic. Several at once wait for each other; on
    tables that are as they should be nothing is done.

    Args:
        connection: In a transaction, which the caller commits.
        tablename, schema: As for the store.

    Raises:
        StoreFormatError: The tables are those of a newer release, or somebody else's.
    """
    upgrade(connection, make_tables(None, tablename, schema))


def drop_tables(
    connection: Connection, tablename: str = DEFAULT_TABLENAME, schema: str | None = None
) -> None:
    """Drop the tables of a store, with all tasks, and with the records that were set aside.

    Args:
        connection, tablename, schema: As for `upgrade_tables`.
    """
    tables = make_tables(None, tablename, schema)
    tables.tasks.metadata.drop_all(connection, tables=list(tables), checkfirst=True)


def upgrade(connection: Connection, tables: Tables) -> None:
    """`upgrade_tables`, for tables that were made already."""
    with _alone(connection, tables):
        version = read_version(connection, tables)
        check_not_newer(version, tables)
        for number in range(version + 1, SCHEMA_VERSION + 1):
            MIGRATIONS[number](connection, tables)
            _write_version(connection, tables.meta, number)


def check_not_newer(version: int, tables: Tables, alias: str | None = None) -> None:
    """Raise StoreFormatError if the schema has a version that this release does not know."""
    if version > SCHEMA_VERSION:
        whose = "" if alias is None else f"The store {alias!r} cannot be opened: the "
        raise StoreFormatError(
            f"{whose or 'The '}tables of {tables.tasks.name!r} have the schema version {version}, "
            f"this release of asyncz knows those up to {SCHEMA_VERSION}; install the newer release "
            "that made them, or give another tablename."
        )


def _write_version(connection: Connection, meta: Table, number: int) -> None:
    done = connection.execute(update(meta).where(meta.c.name == "version").values(value=number))
    if not done.rowcount:
        connection.execute(insert(meta).values(name="version", value=number))


@contextmanager
def _alone(connection: Connection, tables: Tables) -> Iterator[None]:
    """Keep others out who do the same. On SQLite the transaction itself does."""
    family = family_of(connection.dialect)
    digest = sha256(f"asyncz {tables.tasks.fullname}".encode())
    if family == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        number = int.from_bytes(digest.digest()[:8], "big", signed=True)
        connection.execute(select(func.pg_advisory_xact_lock(number)))
    if family != "mysql":
        yield
        return
    name = digest.hexdigest()[:60]
    with _without_limit(connection):
        if connection.execute(select(func.get_lock(name, LOCK_PATIENCE))).scalar() != 1:
            raise StoreError(
                f"Somebody else has been changing the tables of {tables.tasks.name!r} for "
                f"{LOCK_PATIENCE} s; try again when that is done."
            )
        with _afterwards(connection, select(func.release_lock(name))):
            yield


@contextmanager
def _without_limit(connection: Connection) -> Iterator[None]:
    """Let statements take their time on MySQL and MariaDB: they may wait for others' changes."""
    dialect: Any = connection.dialect
    name = "max_statement_time" if dialect.is_mariadb else "max_execution_time"
    limit = connection.execute(text(f"SELECT @@SESSION.{name}")).scalar()
    connection.execute(text(f"SET SESSION {name} = 0"))
    with _afterwards(connection, text(f"SET SESSION {name} = {limit}")):
        yield


@contextmanager
def _afterwards(connection: Connection, statement: Executable) -> Iterator[None]:
    """Execute this in the end; where something has failed, that is what counts."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the connection may be gone, and with it what there is to undo
            connection.execute(statement)
        raise
    connection.execute(statement)
