"""The tables of a `SQLAlchemyStore`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from asyncz.exceptions import ConfigurationError

__all__ = [
    "DEFAULT_TABLENAME",
    "UNLUCKY",
    "Tables",
    "attempt_columns",
    "check_identifier",
    "family_of",
    "make_tables",
    "mark_columns",
    "member_columns",
]

DEFAULT_TABLENAME = "asyncz_tasks"
KEY_LENGTH = 255
LONGEST_TABLENAME = 48
"""Of the 63 characters that PostgreSQL keeps of a name, the rest is for our endings."""
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
UNLUCKY = text("active IS NULL AND state <> 'succeeded'")
"""What is settled and has not succeeded. A query has to say so in these words, or else SQLite and
PostgreSQL do not see that the index of such runs has all that it wants."""


def family_of(dialect: Dialect) -> str:
    """`sqlite`, `postgresql` or `mysql`, which stands for MariaDB too."""
    return "mysql" if dialect.name == "mariadb" else dialect.name


class ExactText(TypeDecorator[str]):
    """Text that is equal to itself only, and in the order of its UTF-8 bytes."""

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        kind: TypeEngine[Any]
        if family_of(dialect) == "mysql":
            # Not utf8mb4_bin: to that one, blanks at the end are nothing.
            mariadb = getattr(dialect, "is_mariadb", False)
            collation = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
            if self.length is None:
                kind = mysql.MEDIUMTEXT(charset="utf8mb4", collation=collation)
            else:
                kind = mysql.VARCHAR(self.length, charset="utf8mb4", collation=collation)
        else:
            collation_of = {"postgresql": "C"}.get(dialect.name)
            kind = String(self.length, collation=collation_of)
        return dialect.type_descriptor(kind)


class _BytesAsText(mysql.LONGBLOB):
    """For aiomysql, which fails on bytes since PyMySQL has renamed what it needed for them.

    The server takes the same bytes from a text, and what is no UTF-8 the driver lets through.
    """

    def bind_processor(self, dialect: Dialect) -> Callable[[bytes | None], str | None]:
        def process(value: bytes | None) -> str | None:
            return None if value is None else value.decode("utf-8", "surrogateescape")

        return process


class RecordBytes(TypeDecorator[bytes]):
    """Bytes of any length."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        kind: TypeEngine[Any] = LargeBinary()
        if family_of(dialect) == "mysql":
            kind = _BytesAsText() if dialect.driver == "aiomysql" else mysql.LONGBLOB()
        return dialect.type_descriptor(kind)


class Tables(NamedTuple):
    """The tables of one store.

    Args:
        tasks: A row for each task.
        aside: Unreadable records that a new task of their id took the place of.
        nodes: A row for each scheduler, with its lease and the last claim it made; and one
            without a state for each store object that has only moved tasks on.
        runs: A row for each occurrence of a task, from due to done and a while longer.
        meta: The version of the schema.
    """

    tasks: Table
    aside: Table
    nodes: Table
    runs: Table
    meta: Table


def check_identifier(name: str, what: str, longest: int = 63) -> str:
    """The name, if it may stand in SQL. Raises ConfigurationError, which says what is allowed."""
    if not IDENTIFIER.fullmatch(name) or len(name) > longest:
        raise ConfigurationError(
            f"{what} must be a letter or _ and then letters, digits and _, at most {longest} "
            f"characters in all, not {name!r}."
        )
    return name


def make_tables(
    metadata: MetaData | None = None, tablename: str = DEFAULT_TABLENAME, schema: str | None = None
) -> Tables:
    """The tables, as objects; nothing is done in any database.

    Args:
        metadata: Where they are noted down, such as the app's own. Tables of these names that it
            has already are taken. Left out: one of ours, with the same tables for the same names.
        tablename: Of the tasks; the others begin with it.
        schema: Where they are; left out: the connection's default.

    Raises:
        ConfigurationError: A name is not allowed.
    """
    check_identifier(tablename, "tablename", LONGEST_TABLENAME)
    if schema is not None:
        check_identifier(schema, "schema")
    if metadata is None:
        return _our_tables(tablename, schema)
    return _tables_in(metadata, tablename, metadata.schema if schema is None else schema)


@lru_cache(maxsize=64)
def _our_tables(tablename: str, schema: str | None) -> Tables:
    return _tables_in(MetaData(), tablename, schema)


def _tables_in(metadata: MetaData, tablename: str, schema: str | None) -> Tables:
    options: dict[str, Any] = {"schema": schema, "mysql_engine": "InnoDB"}
    options |= {"mariadb_engine": "InnoDB"}
    prefix = f"{schema}." if schema else ""

    def table(ending: str, *columns: Column[Any] | Index) -> Table:
        name = tablename + ending
        known = metadata.tables.get(prefix + name)
        return Table(name, metadata, *columns, **options) if known is None else known

    return Tables(
        table("", *_task_columns(), *_task_indexes(tablename)),
        table("_aside", *_aside_columns()),
        table("_nodes", *_node_columns()),
        table("_runs", *_run_columns(), *_run_indexes(f"{tablename}_runs")),
        table(
            "_meta",
            Column("name", String(64), primary_key=True),
            Column("value", Integer, nullable=False),
        ),
    )


def _task_columns() -> Iterator[Column[Any]]:
    yield Column("id", ExactText(KEY_LENGTH), primary_key=True)
    yield Column("next_run_us", BigInteger, nullable=True)
    yield Column("added", BigInteger, nullable=False)
    yield Column("rev", BigInteger, nullable=False)
    yield Column("record", RecordBytes(), nullable=False)
    for name in ("lower_id", "lower_name", "executor", "trigger_alias", "trigger_class", "search"):
        yield Column(name, ExactText(), nullable=True)
    yield from mark_columns()


def mark_columns() -> Iterator[Column[Any]]:
    """What version 3 has brought for tasks."""
    yield Column("expects", SmallInteger, nullable=True)  # 1: the task has `expect_every`


def _task_indexes(name: str) -> Iterator[Index]:
    yield Index(f"{name}_due", "next_run_us", "added")
    marked = text("expects IS NOT NULL")
    where: dict[str, Any] = {"postgresql_where": marked, "sqlite_where": marked}
    yield Index(f"{name}_expects", "expects", "id", **where)


def _aside_columns() -> Iterator[Column[Any]]:
    yield Column("id", ExactText(KEY_LENGTH), primary_key=True)
    yield Column("added", BigInteger, primary_key=True, autoincrement=False)
    yield Column("set_aside_us", BigInteger, primary_key=True, autoincrement=False)
    yield Column("next_run_us", BigInteger, nullable=True)
    yield Column("record", RecordBytes(), nullable=False)


def _node_columns() -> Iterator[Column[Any]]:
    yield Column("id", String(64), primary_key=True)
    yield Column("claim", String(64), nullable=False)
    yield Column("seen_us", BigInteger, nullable=False)
    yield from member_columns()


def member_columns() -> Iterator[Column[Any]]:
    """What version 2 has brought; each may be left out, as the release before does."""
    yield Column("state", ExactText(16), nullable=True)
    yield Column("number", BigInteger, nullable=True)
    yield Column("identity", ExactText(), nullable=True)
    yield Column("host", ExactText(), nullable=True)
    yield Column("pid", BigInteger, nullable=True)
    yield Column("joined_us", BigInteger, nullable=True)
    yield Column("lease_until_us", BigInteger, nullable=True)
    yield Column("running", Integer, nullable=True)


def _run_columns() -> Iterator[Column[Any]]:
    # The first four are what makes a run the same one; the fourth tells a task from one that was
    # added anew under its id. Their order is also that in which the latest of a task are found.
    yield Column("task", ExactText(KEY_LENGTH), primary_key=True)
    yield Column("run_us", BigInteger, primary_key=True, autoincrement=False)
    yield Column("kind", ExactText(16), primary_key=True)
    yield Column("added", BigInteger, primary_key=True, autoincrement=False)
    yield Column("task_id", RecordBytes(), nullable=True)  # UTF-8, where the key is not it
    yield Column("state", ExactText(16), nullable=False)
    # 1: claimed or running; 2: queued; 3: waits for its next attempt; nothing once it is settled.
    # MySQL has no partial indexes.
    yield Column("active", SmallInteger, nullable=True)
    yield Column("head_us", BigInteger, nullable=True)
    yield Column("followers", Integer, nullable=False)
    yield Column("occurrences", Integer, nullable=False)
    yield Column("last_us", BigInteger, nullable=True)
    yield Column("delivery", ExactText(16), nullable=True)
    yield Column("owner", String(64), nullable=True)
    yield Column("token", Integer, nullable=False)
    yield Column("attempt", Integer, nullable=False)
    for name in ("claimed_us", "started_us", "finished_us"):
        yield Column(name, BigInteger, nullable=True)
    yield Column("details", RecordBytes(), nullable=True)
    yield Column("record", RecordBytes(), nullable=True)
    yield from attempt_columns()


def attempt_columns() -> Iterator[Column[Any]]:
    """What version 3 has brought; few runs have any of it."""
    # When somebody has to see to it: at its next attempt; 0 if it is to be cancelled.
    yield Column("attend_us", BigInteger, nullable=True)
    yield Column("retries", Integer, nullable=True)  # attempts that no death has brought about
    yield Column("asked", RecordBytes(), nullable=True)  # who wants it cancelled


def _run_indexes(name: str) -> Iterator[Index]:
    is_open, is_done = text("active IS NOT NULL"), text("finished_us IS NOT NULL")
    is_due = text("attend_us IS NOT NULL")
    where: dict[str, Any] = {"postgresql_where": is_open, "sqlite_where": is_open}
    yield Index(f"{name}_own", "active", "owner", "run_us", **where)
    yield Index(f"{name}_open", "active", "task", "run_us", "kind", unique=True, **where)
    yield Index(f"{name}_late", "run_us", "task")
    where = {"postgresql_where": is_done, "sqlite_where": is_done}
    yield Index(f"{name}_done", "finished_us", **where)
    where = {"postgresql_where": is_due, "sqlite_where": is_due}
    yield Index(f"{name}_attend", "attend_us", "task", "run_us", "kind", **where)
    # Those that succeed, as nearly all do, cost nothing here, but on MySQL.
    where = {"postgresql_where": UNLUCKY, "sqlite_where": UNLUCKY}
    yield Index(f"{name}_unlucky", "state", "run_us", "task", **where)
