"""The store in a SQL database, by way of SQLAlchemy: SQLite, PostgreSQL, MySQL, MariaDB."""

from __future__ import annotations

try:
    # SQLAlchemy does not bring greenlet everywhere, and says so at the first query only.
    import greenlet  # type: ignore[import-untyped]  # noqa: F401
    import sqlalchemy.ext.asyncio  # noqa: F401
except ImportError as exc:
    raise ImportError(
        "SQLAlchemyStore needs SQLAlchemy 2 with greenlet; pip install 'asyncz[sqlalchemy]'.",
        name=exc.name,
    ) from exc

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set
from copy import copy
from hashlib import sha256
from typing import Any

from pydantic import ConfigDict, Field
from sqlalchemy import URL, ColumnElement, Connection, MetaData, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from asyncz.clock import SystemClock
from asyncz.exceptions import StoreError
from asyncz.serializers.json import to_microseconds
from asyncz.stores.base import ExpectingTasks
from asyncz.stores.cluster import Pulse
from asyncz.stores.expecting import MARKED, expecting_tasks
from asyncz.stores.records import Place, Row, Step, StoredRow
from asyncz.stores.sqlalchemy_claims import make_steps
from asyncz.stores.sqlalchemy_cluster import SQLClusterStore
from asyncz.stores.sqlalchemy_database import CallersTransaction, Database, OwnDatabase, TakenError
from asyncz.stores.sqlalchemy_dialects import (
    async_url,
    check_database,
    check_server,
    check_settings,
    is_in_memory,
    missing_directory,
    running_loop,
)
from asyncz.stores.sqlalchemy_migrations import (
    SCHEMA_VERSION,
    check_not_newer,
    drop_tables,
    read_version,
    upgrade,
    upgrade_tables,
)
from asyncz.stores.sqlalchemy_notices import channel_of
from asyncz.stores.sqlalchemy_pulse import SQLPulse
from asyncz.stores.sqlalchemy_queries import find_rows
from asyncz.stores.sqlalchemy_rows import Rows
from asyncz.stores.sqlalchemy_schema import DEFAULT_TABLENAME, Tables, make_tables
from asyncz.stores.sqlalchemy_sharing import Sharing
from asyncz.tasks.base import Task
from asyncz.tasks.query import TaskQuery

__all__ = ["SCHEMA_VERSION", "SQLAlchemyStore", "drop_tables", "make_tables", "upgrade_tables"]

LONGEST_PLAIN_ID = 255
HASHED = "sha256:"
GOODBYE = 2.0
"""Seconds that saying goodbye to the server may take."""


class SQLAlchemyStore(SQLClusterStore):
    """Keeps tasks in tables of a SQL database, with SQLAlchemy 2 and drivers that can be awaited.

    Args:
        database: A URL, such as `sqlite:///jobs.db` or `postgresql://user:password@host/name`;
            that of a synchronous driver stands for one that can be awaited. Or an `AsyncEngine`,
            which is used on the loop it belongs to, and not closed.
        tablename: Of the table of tasks; others begin with it.
        schema: The database schema of the tables. Left out: the connection's own.
        metadata: Where the tables are noted down, such as the app's. Left out: one of their own.
        create_tables: Make tables and bring them forward at `start`. False: the app's own
            migrations do, with `upgrade_tables`.
        session_settings: For each connection: PostgreSQL's settings, MySQL's session variables,
            SQLite's pragmas, over our own ones, such as `{"statement_timeout": "30s"}`; None
            leaves one as the server has it. Not for an `AsyncEngine`.
        engine_options: For SQLAlchemy's `create_async_engine`, over our own. Not for an
            `AsyncEngine`.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        extra="forbid",
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    database: Any = Field(repr=False)
    tablename: str = DEFAULT_TABLENAME
    database_schema: str | None = Field(default=None, alias="schema")
    metadata: MetaData | None = Field(default=None, repr=False)
    create_tables: bool = True
    session_settings: Mapping[str, str | int | float | None] = Field(default_factory=dict)
    engine_options: Mapping[str, Any] = Field(default_factory=dict, repr=False)

    def __init__(self, database: str | URL | AsyncEngine, **options: Any) -> None:
        # Not in validators, which would make ValidationErrors of our own errors.
        given = database if isinstance(database, AsyncEngine) else async_url(database)
        options["database"] = given
        super().__init__(**options)
        check_database(given if isinstance(given, URL) else given.url, self.database_schema)
        check_settings(self.session_settings)
        self._tables = make_tables(self.metadata, self.tablename, self.database_schema)
        self._rows = Rows(self._tables)
        self._own: OwnDatabase | None = None
        self._joined: CallersTransaction | None = None
        self._home = running_loop() if isinstance(given, AsyncEngine) else None

    @property
    def table(self) -> Table:
        """The table of tasks, for queries and for `get_tasks`."""
        return self._tables.tasks

    async def get_tasks(
        self,
        conditions: ColumnElement[bool] | Sequence[Any] | None = None,
        limit: int | None = None,
    ) -> list[Task]:
        """The readable tasks that meet conditions, by next run time, paused last.

        Args:
            conditions: SQLAlchemy's, on the columns of `table`; several of them must all be met.
            limit: At most so many.
        """
        if conditions is None:
            conditions = []
        elif not isinstance(conditions, list | tuple):
            conditions = [conditions]
        columns = self.table.c
        wanted = select(*self._rows.columns).where(*conditions).limit(limit)
        wanted = wanted.order_by(
            columns.next_run_us.is_(None), columns.next_run_us, columns.added, columns.id
        )

        def read(connection: Connection, _: bool) -> list[StoredRow]:
            return [StoredRow._make(row) for row in connection.execute(wanted)]

        rows = await self._database.run(read)
        return [task async for _, task in self._tasks_of(rows) if task is not None]

    async def get_expecting_tasks(self, rest: Any = None) -> ExpectingTasks:
        return await expecting_tasks(self, self._fetch_expecting, rest)

    async def _fetch_expecting(self, after: Any) -> tuple[list[StoredRow], Any]:
        def work(connection: Connection, _: bool) -> list[StoredRow]:
            return self._rows.expecting(connection, after, MARKED)

        rows = await self._database.run(work)
        return rows, rows[-1].key if len(rows) == MARKED else None

    def within(self, connection: Any) -> SQLAlchemyStore:
        """This store inside a transaction of the caller's.

        Args:
            connection: An `AsyncConnection` or `AsyncSession` of the database that the tasks are
                in. It is not committed here.

        Raises:
            StoreError: It is something else.
        """
        _ = self.host  # raises
        if not isinstance(connection, AsyncConnection | AsyncSession):
            raise StoreError(
                f"The store {self.alias!r} joins the transaction of an AsyncConnection or an "
                f"AsyncSession, not of a {type(connection).__name__}."
            )
        joined = copy(self)
        joined._joined = CallersTransaction(connection, str(self.alias))
        return joined

    async def when_ended(self, tell: Callable[[bool], None]) -> None:
        if self._joined is None:
            raise StoreError(f"The store {self.alias!r} is not within a transaction.")
        await self._joined.when_ended(tell)

    def key_of(self, task_id: str) -> str:
        """The id itself if it is short and all of it can be seen, otherwise a hash of it."""
        if (
            len(task_id) <= LONGEST_PLAIN_ID
            and task_id.isprintable()
            and task_id.strip() == task_id
            and not task_id.startswith(HASHED)
        ):
            return task_id
        return HASHED + sha256(task_id.encode()).hexdigest()

    def pulse(self, node_id: str) -> Pulse | None:
        url = self.database.url if isinstance(self.database, AsyncEngine) else self.database
        if not isinstance(self.host.clock, SystemClock) or is_in_memory(url):
            return None
        return SQLPulse(
            self.database,
            self.session_settings,
            self.engine_options,
            self._shared.nodes,
            channel_of(self._tables),
            node_id,
            str(self.alias),
        )

    @property
    def _all_tables(self) -> Tables:
        return self._tables

    # The operations of RecordStore.

    async def _open(self) -> None:
        if isinstance(self.database, AsyncEngine) and self._home is None:
            # It was made before any loop ran: for the app's, which is not always the engine's.
            self._home = getattr(self.host, "task_loop", None)
        self._own = OwnDatabase(
            self.database,
            str(self.alias),
            self.session_settings,
            self.engine_options,
            self._home,
        )
        try:
            await self._prepare_tables(self._own)
        except StoreError as exc:
            if (directory := missing_directory(self._own.engine.url)) is None:
                raise
            raise StoreError(
                f"The store {self.alias!r} cannot make its SQLite database: there is no directory "
                f"{directory!r}; make it, or name another one in the URL."
            ) from exc
        self._sharing = Sharing(self._own, self._tables, self.host.clock)
        await self._sharing.forget_nodes()

    async def _close(self) -> None:
        own, sharing, self._own, self._sharing = self._own, self._sharing, None, None
        if own is None:
            return
        answers = False
        try:
            if sharing is not None:
                async with asyncio.timeout(GOODBYE):
                    await sharing.close()
                    answers = True
        except (StoreError, TimeoutError):
            pass  # its leases run out, and it is forgotten in a week
        finally:
            await own.close(at_once=not answers)

    async def _prepare_tables(self, own: OwnDatabase) -> None:
        """See to it that the tables are there, of the version that this release needs."""

        def look(connection: Connection, _: bool) -> int:
            check_server(connection.dialect)
            return read_version(connection, self._tables)

        def change(connection: Connection, _: bool) -> None:
            upgrade(connection, self._tables)

        version = await own.run(look)
        check_not_newer(version, self._tables, self.alias)
        if version == SCHEMA_VERSION:
            return
        if not self.create_tables:
            raise StoreError(
                f"The tables of the store {self.alias!r} have the schema version {version}, this "
                f"release of asyncz needs {SCHEMA_VERSION} (0: there are none). Call "
                "asyncz.stores.sqlalchemy.upgrade_tables in a migration, or leave out "
                "create_tables=False."
            )
        await own.run(change, transaction=True)

    @property
    def _database(self) -> Database:
        database = self._joined or self._own
        if database is None:
            _ = self.host  # raises
            raise StoreError(f"The store {self.alias!r} is being opened or closed.")
        return database

    async def _insert(self, rows: Sequence[Row]) -> str | None:
        if len(rows) == 1 or self._joined is not None:
            return await self._insert_singly(rows)
        in_doubt = False

        def work(connection: Connection, repeated: bool) -> None:
            nonlocal in_doubt
            in_doubt = repeated
            self._rows.insert_many(connection, rows)

        def look(connection: Connection, _: bool) -> Row | None:
            if in_doubt and self._rows.has(connection, rows[0]):
                return None  # the first try was made after all, with all of its rows
            taken = self._rows.first_taken(connection, rows)
            if taken is None:
                raise StoreError(
                    f"The store {self.alias!r} refused tasks whose ids were taken a moment ago; "
                    "add them again."
                )
            return taken

        if rows:
            try:
                await self._database.run(work, transaction=True)
            except TakenError:
                taken = await self._database.run(look)
                return None if taken is None else taken.key
        return None

    async def _insert_singly(self, rows: Sequence[Row]) -> str | None:
        for number, row in enumerate(rows):

            def work(connection: Connection, repeated: bool, row: Row = row) -> bool:
                inserted = self._rows.insert_one(connection, row)
                return inserted or (repeated and self._rows.has(connection, row))

            if not await self._database.run(work):
                await self._remove([before.key for before in rows[:number]])
                return row.key
        return None

    async def _replace(self, row: Row, before: StoredRow | None = None) -> bool:
        def work(connection: Connection, _: bool) -> bool:
            return self._rows.replace(connection, row, before)

        return await self._database.run(work)

    async def _remove(self, keys: Sequence[str]) -> int:
        def work(connection: Connection, in_doubt: bool) -> int:
            count = self._rows.remove(connection, keys)
            return len(keys) if in_doubt else count

        return await self._database.run(work, transaction=len(keys) > 1) if keys else 0

    async def _set_aside(self, row: StoredRow) -> bool:
        now = to_microseconds(self.host.clock.now())

        def work(connection: Connection, _: bool) -> bool:
            return self._rows.set_aside(connection, row, now)

        return await self._database.run(work, transaction=True)

    async def _fetch(self, key: str) -> StoredRow | None:
        is_joined = self._joined is not None

        def work(connection: Connection, _: bool) -> StoredRow | None:
            row = self._rows.fetch(connection, key)
            if row is None or not is_joined:
                return row
            # As it is now, and not when the caller's transaction began; until that ends, nobody
            # else changes it. Not at once: MySQL would lock the gap where there is no row.
            return self._rows.fetch(connection, key, lock=True)

        return await self._database.run(work)

    async def _fetch_page(
        self, after: Place | None, limit: int, until: int | None = None
    ) -> list[StoredRow]:
        def work(connection: Connection, _: bool) -> list[StoredRow]:
            return self._rows.page(connection, after, limit, until)

        return await self._database.run(work) if limit else []

    async def _find_place(self, number: int, until: int) -> Place | None:
        def work(connection: Connection, _: bool) -> Place | None:
            return self._rows.find_place(connection, number, until)

        return await self._database.run(work)

    async def _advance(self, steps: Sequence[Step]) -> list[bool]:
        if not steps:
            return []

        def work(connection: Connection, _: object) -> list[bool]:
            return make_steps(connection, self._rows, steps)

        if self._joined is None:
            return await self._shared.nobody.make(tuple(steps), work)
        return await self._database.run(work, transaction=True)

    async def _count(self) -> tuple[int, int]:
        def work(connection: Connection, _: bool) -> tuple[int, int]:
            return self._rows.count(connection)

        return await self._database.run(work)

    async def _find(
        self, query: TaskQuery, exclude: Set[str]
    ) -> tuple[list[StoredRow], int] | None:
        def work(connection: Connection, _: bool) -> tuple[list[StoredRow], int] | None:
            return find_rows(connection, self._rows, query, exclude, str(self.alias))

        return await self._database.run(work)
