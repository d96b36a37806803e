"""`SQLAlchemyStore` against the suite for all stores, on each server with each driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select, update

from asyncz.stores.base import BaseStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.testing.store_suite import PersistentStoreConformance

from .sqlalchemy_tools import TABLES, SharedDatabase

TASKS = TABLES.tasks


@pytest.fixture(scope="class")
def database(request: pytest.FixtureRequest) -> Iterator[None]:
    """A database for all cases of a class; each empties the tables."""
    assert request.cls is not None
    with SharedDatabase.make(request.cls.backend) as request.cls.shared:
        yield


@pytest.mark.usefixtures("database")
class OnSQL(PersistentStoreConformance):
    """The same for all of them but for the database."""

    backend: str
    shared: SharedDatabase

    async def make_store(self) -> BaseStore:
        self.shared.empty()
        return SQLAlchemyStore(self.shared.url)

    async def reopen(self, store: BaseStore) -> SQLAlchemyStore:
        return SQLAlchemyStore(self.shared.url)

    async def read_record(self, store: BaseStore, task_id: str) -> bytes:
        assert isinstance(store, SQLAlchemyStore)
        record = select(TASKS.c.record).where(TASKS.c.id == store.key_of(task_id))
        return bytes(self.shared.connection.execute(record).scalar_one())

    async def write_record(self, store: BaseStore, task_id: str, data: bytes) -> None:
        assert isinstance(store, SQLAlchemyStore)
        row = TASKS.c.id == store.key_of(task_id)
        self.shared.connection.execute(update(TASKS).where(row).values(record=data))


class TestSQLite(OnSQL):
    backend = "sqlite"


class TestPostgreSQLWithAsyncpg(OnSQL):
    backend = "postgresql+asyncpg"


class TestPostgreSQLWithPsycopg(OnSQL):
    backend = "postgresql+psycopg"


class TestMariaDBWithAsyncmy(OnSQL):
    backend = "mysql+asyncmy"


@pytest.mark.nightly
class TestMariaDBWithAiomysql(OnSQL):
    backend = "mysql+aiomysql"
