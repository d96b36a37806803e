"""`SQLAlchemyStore` against the suite for shared stores, on each server with each driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import URL, delete
from sqlalchemy.ext.asyncio import create_async_engine

from asyncz.stores.base import BaseStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore, make_tables
from asyncz.stores.sqlalchemy_dialects import async_url
from asyncz.testing.store_suite import ClusterStoreConformance
from tests.services.databases import new_database

from .sqlalchemy_tools import opened


@pytest.fixture(scope="class")
def database(request: pytest.FixtureRequest) -> Iterator[None]:
    """A database for all cases of a class; each empties the tables."""
    assert request.cls is not None
    with new_database(request.cls.backend) as url:
        request.cls.url = url
        yield


@pytest.mark.usefixtures("database")
class OnSQL(ClusterStoreConformance):
    """The same for all of them but for the database."""

    backend: str
    url: URL

    async def make_store(self) -> BaseStore:
        async with opened(self.url):
            tables = make_tables()
            engine = create_async_engine(async_url(self.url))
            async with engine.begin() as connection:
                for table in (tables.tasks, tables.nodes, tables.runs):
                    await connection.execute(delete(table))
            await engine.dispose()
        return SQLAlchemyStore(self.url)

    async def another(self, store: BaseStore) -> SQLAlchemyStore:
        return SQLAlchemyStore(self.url)


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
