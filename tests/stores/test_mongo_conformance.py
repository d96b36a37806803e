"""The MongoDB store against the suite for all stores, with each driver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from asyncz.stores.base import BaseStore
from asyncz.stores.mongo import MongoDBStore
from asyncz.testing.store_suite import ClusterStoreConformance, PersistentStoreConformance

from .mongo_databases import Place, mongodb_url, place_on

__all__ = ["mongodb_url"]


@pytest.fixture(scope="module")
def kept_place(mongodb_url: str) -> Iterator[Place]:
    """One for all, whose indexes need not be made hundreds of times."""
    yield from place_on(mongodb_url)


@pytest.fixture
def mongo_place(kept_place: Place) -> Place:
    """The same, with nothing in it."""
    for name in kept_place.database.list_collection_names():
        kept_place.database[name].delete_many({})
    return kept_place


class OnMongoDB(PersistentStoreConformance, ClusterStoreConformance):
    """What the classes below have in common."""

    place: Place
    given: dict[str, Any]

    async def make_store(self) -> MongoDBStore:
        return MongoDBStore(database=self.place.name, **self.given)

    async def another(self, store: BaseStore) -> MongoDBStore:
        return await self.make_store()

    async def reopen(self, store: BaseStore) -> MongoDBStore:
        return await self.make_store()

    async def read_record(self, store: BaseStore, task_id: str) -> bytes:
        return self.place.record(task_id)

    async def write_record(self, store: BaseStore, task_id: str, data: bytes) -> None:
        self.place.write(task_id, data)


@pytest.mark.nightly
class TestWithAURI(OnMongoDB):
    """With a client of Motor's, as the class below; how it is made has tests of its own."""

    @pytest.fixture(autouse=True)
    def set_place(self, mongo_place: Place) -> None:
        self.place = mongo_place
        self.given = {"uri": mongo_place.url}


class TestWithAClientOfMotor(OnMongoDB):
    @pytest_asyncio.fixture(autouse=True)
    async def set_place(self, mongo_place: Place) -> AsyncIterator[None]:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongo_place.url)
        self.place, self.given = mongo_place, {"client": client}
        yield
        client.close()


class TestWithAClientOfPyMongo(OnMongoDB):
    @pytest_asyncio.fixture(autouse=True)
    async def set_place(self, mongo_place: Place) -> AsyncIterator[None]:
        async with AsyncMongoClient[dict[str, Any]](mongo_place.url) as client:
            self.place, self.given = mongo_place, {"client": client}
            yield
