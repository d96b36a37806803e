"""Databases of the tests' own on the shared MongoDB server, looked at behind the store's back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from services.mongodb import mongodb_url

__all__ = ["Place", "mongo_place", "mongodb_url"]

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

    def record(self, task_id: str) -> bytes:
        """The bytes that are stored for a task."""
        found = self.database.tasks.find_one({"_id": task_id})
        assert found is not None
        return bytes(found["record"])

    def write(self, task_id: str, data: bytes) -> None:
        """Put other bytes in their place."""
        done = self.database.tasks.update_one({"_id": task_id}, {"$set": {"record": data}})
        assert done.matched_count == 1


@pytest.fixture
def mongo_place(mongodb_url: str) -> Iterator[Place]:
    """A new place on the server that all tests share."""
    with MongoClient[Document](mongodb_url) as client:
        place = Place(mongodb_url, client)
        yield place
        client.drop_database(place.name)
