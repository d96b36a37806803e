"""Databases of the tests' own on MongoDB servers, looked at behind the store's back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from asyncz.stores.mongo import MongoDBStore
from asyncz.testing.store_suite_tools import SuiteHost
from tests.services.mongodb import MongoServer, mongodb_url, warm_motor

__all__ = [
    "Place",
    "mongo_place",
    "mongodb_url",
    "open_stores",
    "place_on",
    "standalone",
    "standalone_place",
]

Document = dict[str, Any]


class Place:
    """A database that is dropped after the test."""

    def __init__(self, url: str, client: MongoClient[Document]) -> None:
        self.url = url
        self.name = f"asyncz-test-{uuid4().hex}"
        self.client = client

    @property
    def database(self) -> Database[Document]:
        return self.client[self.name]

    def store(self, **options: Any) -> MongoDBStore:
        """A store in this place, not started."""
        return MongoDBStore(**{"database": self.name, "uri": self.url, **options})

    def record(self, task_id: str) -> bytes:
        """The bytes that are stored for a task."""
        found = self.database.tasks.find_one({"_id": task_id})
        assert found is not None
        return bytes(found["record"])

    def write(self, task_id: str, data: bytes) -> None:
        """Put other bytes in their place."""
        done = self.database.tasks.update_one({"_id": task_id}, {"$set": {"record": data}})
        assert done.matched_count == 1


def place_on(url: str) -> Iterator[Place]:
    """A new place on a server."""
    with MongoClient[Document](url) as client:
        place = Place(url, client)
        yield place
        client.drop_database(place.name)


@pytest.fixture
def mongo_place(mongodb_url: str) -> Iterator[Place]:
    """A new place on the replica set that all tests share."""
    yield from place_on(mongodb_url)


@pytest.fixture(scope="session")
def standalone() -> Iterator[str]:
    """The URL of a server that is in no replica set."""
    warm_motor()
    server = MongoServer(replica_set=False).start()
    yield server.url
    server.close()


@pytest.fixture
def standalone_place(standalone: str) -> Iterator[Place]:
    """A new place on it."""
    yield from place_on(standalone)


@asynccontextmanager
async def open_stores(place: Place, count: int, **options: Any) -> AsyncIterator[list[Any]]:
    """Stores in one place, started; shut down in the end."""
    stores = [place.store(**options) for _ in range(count)]
    try:
        for store in stores:
            await store.start(SuiteHost(), "mongo")
        yield stores
    finally:
        for store in stores:
            await store.shutdown()
