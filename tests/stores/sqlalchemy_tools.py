"""What the tests of `SQLAlchemyStore` share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import URL, Connection, create_engine, delete, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from asyncz.serializers.json import to_microseconds
from asyncz.stores.sqlalchemy import SQLAlchemyStore, make_tables
from asyncz.stores.sqlalchemy_dialects import async_url
from asyncz.testing.store_suite_tools import NOON, SuiteHost
from tests.services.databases import execute_on, new_database

__all__ = [
    "TABLES",
    "SharedDatabase",
    "engine_for",
    "fill_with_settled",
    "opened",
    "plan_of",
    "questions",
    "take_back_to_version_1",
    "take_back_to_version_2",
]


TABLES = make_tables()
PLAIN = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
"""Synchronous drivers."""


class SharedDatabase:
    """A database for many cases, whose tables are made once.

    Args:
        url: Where it is, with the driver of the store.
        connection: For what is done behind the store's back, in one word: each commits at once.
    """

    def __init__(self, url: URL, connection: Connection) -> None:
        self.url = url
        self.connection = connection

    def empty(self) -> None:
        """Remove what the case before has left."""
        for table in TABLES[:-1]:  # all but the one that has the version
            self.connection.execute(delete(table))

    @classmethod
    @contextmanager
    def make(cls, backend: str) -> Iterator[SharedDatabase]:
        """One on this kind of server, which is dropped in the end."""

        async def make_its_tables() -> None:
            async with opened(url):
                pass

        with new_database(backend) as url:
            asyncio.run(make_its_tables())
            plain = url.set(drivername=PLAIN[url.get_backend_name()])
            engine = create_engine(plain, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                yield cls(url, connection)
            engine.dispose()


@asynccontextmanager
async def opened(
    database: str | URL | AsyncEngine, **options: Any
) -> AsyncIterator[SQLAlchemyStore]:
    """A store that is open."""
    store = SQLAlchemyStore(database, **options)
    await store.start(SuiteHost(), "tasks")
    try:
        yield store
    finally:
        await store.shutdown()


@asynccontextmanager
async def engine_for(url: URL) -> AsyncIterator[AsyncEngine]:
    """An engine as an app has one."""
    engine = create_async_engine(async_url(url))
    yield engine
    await engine.dispose()


async def take_back_to_version_1(url: URL) -> None:
    """Make the tables in a database what the first release with tables had."""
    new = ("state", "number", "identity", "host", "pid", "joined_us", "lease_until_us", "running")
    async with engine_for(url) as engine, engine.begin() as connection:
        await connection.execute(text("DROP TABLE asyncz_tasks_runs"))
        for name in new:
            await connection.execute(text(f"ALTER TABLE asyncz_tasks_nodes DROP COLUMN {name}"))
        await connection.execute(text("UPDATE asyncz_tasks_meta SET value = 1"))


async def take_back_to_version_2(url: URL) -> None:
    """Make the tables in a database what the first release with runs had."""
    of_the_table = " ON asyncz_tasks_runs" if url.get_backend_name() == "mysql" else ""
    async with engine_for(url) as engine, engine.begin() as connection:
        for name in ("attend", "unlucky"):
            await connection.execute(text(f"DROP INDEX asyncz_tasks_runs_{name}{of_the_table}"))
        for name in ("attend_us", "retries", "asked"):
            await connection.execute(text(f"ALTER TABLE asyncz_tasks_runs DROP COLUMN {name}"))
        await connection.execute(text("UPDATE asyncz_tasks_meta SET value = 2"))


async def questions(store: SQLAlchemyStore, asking: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """What an operation comes to, and the statements that it has the server carry out."""
    asked: list[tuple[str, Any]] = []

    def note_down(_: Any, __: Any, statement: str, parameters: Any, *more: Any) -> None:
        asked.append((statement, parameters))

    engine = store._shared.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note_down)
    found = await asking
    event.remove(engine, "before_cursor_execute", note_down)
    return found, asked


async def plan_of(connection: AsyncConnection, statement: str, parameters: Any = None) -> str:
    """How a statement is carried out, in words that name an index."""
    explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    explained = await connection.exec_driver_sql(explain + statement, parameters)
    return " ".join(map(str, explained))


async def fill_with_settled(url: URL) -> None:
    """Many settled runs, of which the planner knows."""
    instants = range(to_microseconds(NOON), to_microseconds(NOON) + 3_000)
    common = {"kind": "scheduled", "added": 1, "state": "succeeded", "followers": 0}
    common |= {"occurrences": 1, "owner": "one", "token": 1, "attempt": 1}
    rows = [common | {"task": "a", "run_us": each, "finished_us": each} for each in instants]
    async with engine_for(url) as engine, engine.begin() as connection:
        await connection.execute(make_tables().runs.insert(), rows)
    analyze = "ANALYZE TABLE" if url.get_backend_name() == "mysql" else "ANALYZE"
    execute_on(url, f"{analyze} asyncz_tasks_runs")
