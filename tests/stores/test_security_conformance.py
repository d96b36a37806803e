"""The stores with a server, their records encrypted, against the suite for all stores."""

from __future__ import annotations

import pytest

from asyncz.serializers.envelope import KEY_VARIABLE
from asyncz.stores.base import BaseStore
from asyncz.testing.store_suite import PersistentStoreConformance

from . import test_mongo_conformance as on_mongodb
from . import test_redis_conformance as on_redis
from . import test_sqlalchemy_conformance as on_sql
from .mongo_databases import mongo_place, mongodb_url
from .test_sqlalchemy_conformance import database

__all__ = ["database", "mongo_place", "mongodb_url"]

KEY = "a key for the tests and long enough for that"


class Encrypted(PersistentStoreConformance):
    """What the store writes is encrypted, and so is what people write behind its back."""

    @pytest.fixture(autouse=True)
    def set_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY_VARIABLE, KEY)

    async def read_record(self, store: BaseStore, task_id: str) -> bytes:
        return store.conditional_decrypt(await super().read_record(store, task_id))

    async def write_record(self, store: BaseStore, task_id: str, data: bytes) -> None:
        await super().write_record(store, task_id, store.conditional_encrypt(data))


@pytest.mark.nightly
class TestRedis(Encrypted, on_redis.TestRedisStore):
    """See `on_redis`."""


@pytest.mark.nightly
class TestMongoDB(Encrypted, on_mongodb.TestWithAClientOfPyMongo):
    """See `on_mongodb`."""


@pytest.mark.nightly
class TestSQLite(Encrypted, on_sql.TestSQLite):
    """See `on_sql`."""


@pytest.mark.nightly
class TestPostgreSQL(Encrypted, on_sql.TestPostgreSQLWithAsyncpg):
    """See `on_sql`."""
