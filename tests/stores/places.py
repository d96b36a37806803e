"""Where the tasks of a test lie, in each kind of store, and their bytes there behind its back."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from redis import Redis
from sqlalchemy import URL

from asyncz.stores.file import FileStore
from asyncz.stores.mongo import MongoDBStore
from asyncz.stores.records import Row
from asyncz.stores.redis import RedisStore
from asyncz.stores.serializing import SerializingStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from tests.services.databases import new_database
from tests.services.mongodb import warm_motor
from tests.services.redis import new_keys

from . import mongo_databases
from .conftest import SetHost, file_of
from .dict_store import DictStore

__all__ = [
    "KINDS", "SERVER_KINDS", "InMongoDB", "InRedis", "InSQLite", "Place", "motor_is_warm",
    "new_place", "place_of",
]  # fmt: skip

SERVER_KINDS = ["sqlite", "redis", "mongodb"]
KINDS = ["file", "records", *SERVER_KINDS]


class Place(ABC):
    """Makes stores on the same tasks, whose ids are plain words."""

    @abstractmethod
    def store(self, **options: Any) -> SerializingStore:
        """A store, not started."""

    @abstractmethod
    def read(self, task_id: str) -> bytes:
        """The bytes that are stored for a task."""

    @abstractmethod
    def write(self, task_id: str, data: bytes) -> None:
        """Put others in their place."""

    async def started(self, **options: Any) -> Any:
        """A store that has started."""
        store = self.store(**options)
        await store.start(SetHost(), "jobs")
        return store


class InFiles(Place):
    """Each record is a file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def store(self, **options: Any) -> FileStore:
        return FileStore(self.directory, **options)

    def read(self, task_id: str) -> bytes:
        return file_of(self.directory, task_id).read_bytes()

    def write(self, task_id: str, data: bytes) -> None:
        file_of(self.directory, task_id).write_bytes(data)


class InADictionary(Place):
    """What all server stores inherit, without a server."""

    def __init__(self) -> None:
        self.server: dict[str, Row] = {}

    def store(self, **options: Any) -> DictStore:
        return DictStore(self.server, **options)

    def read(self, task_id: str) -> bytes:
        return self.server[task_id].data

    def write(self, task_id: str, data: bytes) -> None:
        self.server[task_id] = self.server[task_id]._replace(data=data)


class InSQLite(Place):
    """Each record is a row."""

    def __init__(self, url: URL, connection: sqlite3.Connection) -> None:
        self.url = url
        self.connection = connection

    def store(self, **options: Any) -> SQLAlchemyStore:
        return SQLAlchemyStore(self.url, **options)

    def read(self, task_id: str) -> bytes:
        found = self.connection.execute("SELECT record FROM asyncz_tasks WHERE id = ?", [task_id])
        return bytes(found.fetchone()[0])

    def write(self, task_id: str, data: bytes) -> None:
        change = "UPDATE asyncz_tasks SET record = ? WHERE id = ?"
        assert self.connection.execute(change, [data, task_id]).rowcount == 1


class InRedis(Place):
    """Each record is a field of a hash."""

    def __init__(self, options: dict[str, Any], client: Redis) -> None:
        self.options = options
        self.client = client

    def store(self, **options: Any) -> RedisStore:
        return RedisStore(**self.options, **options)

    def read(self, task_id: str) -> bytes:
        found: Any = self.client.hget(self.options["tasks_key"], task_id)
        return bytes(found)

    def write(self, task_id: str, data: bytes) -> None:
        added: Any = self.client.hset(self.options["tasks_key"], task_id, data)
        assert added == 0


class InMongoDB(Place):
    """Each record is a field of a document."""

    def __init__(self, there: mongo_databases.Place) -> None:
        self.there = there

    def store(self, **options: Any) -> MongoDBStore:
        return self.there.store(**options)

    def read(self, task_id: str) -> bytes:
        return self.there.record(task_id)

    def write(self, task_id: str, data: bytes) -> None:
        self.there.write(task_id, data)


@pytest.fixture(scope="session", autouse=True)
def motor_is_warm() -> None:
    """The threads that it keeps for good are there before a test that could be to blame."""
    warm_motor()


@contextmanager
def new_place(kind: str, directory: Path, mongodb: str = "") -> Iterator[Place]:
    """One with nothing in it, which is gone in the end.

    Args:
        kind: One of `KINDS`.
        directory: For `file`.
        mongodb: For `mongodb`: the server's URL.
    """
    if kind == "file":
        yield InFiles(directory)
    elif kind == "records":
        yield InADictionary()
    elif kind == "sqlite":
        with new_database(kind) as url:
            connection = sqlite3.connect(str(url.database), isolation_level=None, timeout=10)
            with closing(connection):
                yield InSQLite(url, connection)
    elif kind == "redis":
        with new_keys() as options, Redis.from_url(options["url"]) as client:
            yield InRedis(options, client)
    else:
        with MongoClient[dict[str, Any]](mongodb) as client_of_mongo:
            there = mongo_databases.Place(mongodb, client_of_mongo)
            yield InMongoDB(there)
            client_of_mongo.drop_database(there.name)


@contextmanager
def place_of(request: pytest.FixtureRequest, directory: Path) -> Iterator[Place]:
    """A place of the kind that is the parameter of a fixture; for `mongodb` with `mongodb_url`."""
    kind = request.param
    url = request.getfixturevalue("mongodb_url") if kind == "mongodb" else ""
    with new_place(kind, directory, url) as made:
        yield made
