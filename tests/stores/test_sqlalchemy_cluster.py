"""`SQLAlchemyStore` against the suite for shared stores, on each server with each driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asyncz.stores.base import BaseStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.testing.store_suite import ClusterStoreConformance

from .sqlalchemy_tools import SharedDatabase


@pytest.fixture(scope="class")
def database(request: pytest.FixtureRequest) -> Iterator[None]:
    """A database for all cases of a class; each empties the tables."""
    assert request.cls is not None
    with SharedDatabase.make(request.cls.backend) as request.cls.shared:
        yield


@pytest.mark.usefixtures("database")
class OnSQL(ClusterStoreConformance):
    """The same for all of them but for the database."""

    backend: str
    shared: SharedDatabase

    async def make_store(self) -> BaseStore:
        self.shared.empty()
        return SQLAlchemyStore(self.shared.url)

    async def another(self, store: BaseStore) -> SQLAlchemyStore:
        return SQLAlchemyStore(self.shared.url)


class TestSQLite(OnSQL):
    backend = "sqlite"


class TestPostgreSQLWithAsyncpg(OnSQL):
    backend = "postgresql+asyncpg"


@pytest.mark.nightly
class TestPostgreSQLWithPsycopg(OnSQL):
    backend = "postgresql+psycopg"


class TestMariaDBWithAsyncmy(OnSQL):
    backend = "mysql+asyncmy"


@pytest.mark.nightly
class TestMariaDBWithAiomysql(OnSQL):
    backend = "mysql+aiomysql"
