"""Statements on SQLite that take one trip to the driver's thread each.

aiosqlite has a thread for each connection, and SQLAlchemy goes there to make a cursor, to execute,
to fetch, and to close. What SQLite has to do is mostly done in less time than one such trip takes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple

__all__ = ["use_one_trip"]


class _Answer(NamedTuple):
    """What a statement has come to."""

    description: Any
    rowcount: int
    lastrowid: int | None
    rows: list[Any]


NOTHING = _Answer(None, -1, None, [])


def use_one_trip(connection: Any) -> None:
    """Have a connection of aiosqlite give such cursors to SQLAlchemy, and nobody else."""
    connection.cursor = lambda: _OneTripCursor(connection)


class _OneTripCursor:
    """A cursor of aiosqlite, as far as SQLAlchemy needs it; all rows are fetched at once.

    Args:
        connection: Of aiosqlite.
    """

    arraysize = 1

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._answer = NOTHING
        self._given = 0

    # SQLAlchemy 2.0 awaits a new cursor, later ones enter it.

    def __await__(self) -> Generator[Any, None, _OneTripCursor]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> _OneTripCursor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def description(self) -> Any:
        """The columns, or None if the statement has no rows."""
        return self._answer.description

    @property
    def rowcount(self) -> int:
        """How many rows were changed, or -1."""
        return self._answer.rowcount

    @property
    def lastrowid(self) -> int | None:
        """Of the row that was inserted last."""
        return self._answer.lastrowid

    async def execute(self, statement: str, parameters: Iterable[Any] = ()) -> _OneTripCursor:
        """Execute a statement and fetch its rows."""
        return await self._go("execute", statement, parameters)

    async def executemany(
        self, statement: str, parameters: Iterable[Iterable[Any]]
    ) -> _OneTripCursor:
        """Execute a statement for each of these."""
        return await self._go("executemany", statement, parameters)

    async def _go(self, method: str, statement: str, parameters: Iterable[Any]) -> _OneTripCursor:
        self._answer, self._given = NOTHING, 0
        asked = _ask, self._connection, method, statement, parameters
        self._answer = await self._connection._execute(*asked)
        return self

    async def fetchall(self) -> Sequence[Any]:
        """The rows that were not given yet."""
        return self._give(len(self._answer.rows))

    async def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        """So many of them."""
        return self._give(size or self.arraysize)

    async def fetchone(self) -> Any:
        """The next of them, or None."""
        return next(iter(self._give(1)), None)

    def _give(self, number: int) -> list[Any]:
        begin = self._given
        self._given = begin + number
        return self._answer.rows[begin : self._given]

    async def close(self) -> None:
        """The driver's own was closed in its thread."""


def _ask(connection: Any, method: str, statement: str, parameters: Iterable[Any]) -> _Answer:
    """In the thread."""
    cursor: sqlite3.Cursor = connection._conn.cursor()
    try:
        getattr(cursor, method)(statement, parameters)
        rows = cursor.fetchall() if cursor.description else []
        return _Answer(cursor.description, cursor.rowcount, cursor.lastrowid, rows)
    finally:
        cursor.close()
