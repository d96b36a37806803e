"""`SQLAlchemyStore` against the suite for all stores, on each server with each driver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, Executable, delete, select, update
from sqlalchemy.ext.asyncio import create_async_engine

from asyncz.stores.base import BaseStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.stores.sqlalchemy_dialects import async_url
from asyncz.testing.store_suite import PersistentStoreConformance
from tests.services.databases import new_database


@pytest.fixture(scope="class")
def database(request: pytest.FixtureRequest) -> Iterator[None]:
    """A database for all cases of a class; each empties the table."""
    assert request.cls is not None
    with new_database(request.cls.backend) as url:
        request.cls.url = url
        yield


@pytest.mark.usefixtures("database")
class OnSQL(PersistentStoreConformance):
    """The same for all of them but for the database."""

    backend: str
    url: URL

    async def make_store(self) -> BaseStore:
        store = SQLAlchemyStore(self.url)
        async with self.running(store):
            await self.execute(delete(store.table))
        return store

    async def reopen(self, store: BaseStore) -> SQLAlchemyStore:
        return SQLAlchemyStore(self.url)

    async def read_record(self, store: BaseStore, task_id: str) -> bytes:
        assert isinstance(store, SQLAlchemyStore)
        table = store.table
        found = await self.execute(
            select(table.c.record).where(table.c.id == store.key_of(task_id))
        )
        return bytes(found.scalar_one())

    async def write_record(self, store: BaseStore, task_id: str, data: bytes) -> None:
        assert isinstance(store, SQLAlchemyStore)
        table = store.table
        row = table.c.id == store.key_of(task_id)
        await self.execute(update(table).where(row).values(record=data))

    async def execute(self, statement: Executable) -> Any:
        """Do something behind the store's back."""
        engine = create_async_engine(async_url(self.url))
        async with engine.begin() as connection:
            result = await connection.execute(statement)
        await engine.dispose()
        return result


class TestSQLite(OnSQL):
    backend = "sqlite"


class TestPostgreSQLWithAsyncpg(OnSQL):
    backend = "postgresql+asyncpg"


class TestPostgreSQLWithPsycopg(OnSQL):
    backend = "postgresql+psycopg"


class TestMariaDBWithAsyncmy(OnSQL):
    backend = "mysql+asyncmy"


class TestMariaDBWithAiomysql(OnSQL):
    backend = "mysql+aiomysql"
