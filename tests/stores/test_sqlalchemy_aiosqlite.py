"""Statements on SQLite take one trip to the driver's thread each, and do what they did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncz.stores.sqlalchemy_dialects import make_engine

MANY = 10


class Trips:
    """Counts what a connection of aiosqlite is asked to do in its thread."""

    def __init__(self, driven: Any) -> None:
        self.made = 0
        self._go = driven._execute
        driven._execute = self._counted

    async def _counted(self, *asked: Any) -> Any:
        self.made += 1
        return await self._go(*asked)


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[AsyncConnection]:
    engine = make_engine(make_url(f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}"), {}, {})
    try:
        async with engine.connect() as made:
            await made.execute(text("CREATE TABLE numbers (number INTEGER PRIMARY KEY)"))
            rows = [{"number": number} for number in range(MANY)]
            await made.execute(text("INSERT INTO numbers VALUES (:number)"), rows)
            yield made
    finally:
        await engine.dispose()


async def driver_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT number FROM numbers",
        "UPDATE numbers SET number = -number RETURNING number",
        "DELETE FROM numbers",
        "BEGIN IMMEDIATE",
    ],
)
async def test_a_statement_takes_one_trip(connection: AsyncConnection, statement: str) -> None:
    trips = Trips(await driver_of(connection))

    await connection.exec_driver_sql(statement)

    assert trips.made == 1


async def test_rows_are_given_one_after_the_other(connection: AsyncConnection) -> None:
    result = await connection.execute(text("SELECT number FROM numbers ORDER BY number"))

    assert result.fetchone() == (0,)
    assert result.fetchmany(2) == [(1,), (2,)]
    assert [row.number for row in result] == [*range(3, MANY)]


async def test_rows_can_be_streamed(connection: AsyncConnection) -> None:
    statement = text("SELECT number FROM numbers ORDER BY number")
    async with connection.stream(statement) as result:
        parts = [[row.number for row in part] async for part in result.partitions(3)]

    assert parts == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


async def test_a_cursor_of_the_driver_is_one_for_whoever_asks(connection: AsyncConnection) -> None:
    driven = await driver_of(connection)
    async with driven.cursor() as cursor:
        assert await cursor.fetchone() is None
        await cursor.execute("SELECT number FROM numbers ORDER BY number LIMIT 3")
        assert await cursor.fetchone() == (0,)
        assert await cursor.fetchmany() == [(1,)]
        assert await cursor.fetchall() == [(2,)]
        await cursor.execute("INSERT INTO numbers VALUES (77)")
        assert cursor.lastrowid == 77
        assert await cursor.fetchall() == []
    assert (await driven.cursor()).description is None


async def test_how_many_rows_were_changed_is_known(connection: AsyncConnection) -> None:
    changed = await connection.execute(text("DELETE FROM numbers WHERE number < 4"))
    returned = await connection.execute(text("DELETE FROM numbers RETURNING number"))

    assert changed.rowcount == 4
    assert len(returned.all()) == MANY - 4


async def test_what_is_wrong_is_said_and_the_connection_goes_on(
    connection: AsyncConnection,
) -> None:
    with pytest.raises(OperationalError, match="no such table"):
        await connection.execute(text("SELECT * FROM letters"))
    with pytest.raises(IntegrityError):
        await connection.execute(text("INSERT INTO numbers VALUES (1)"))

    assert len((await connection.execute(text("SELECT * FROM numbers"))).all()) == MANY
