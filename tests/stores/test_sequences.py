"""Random sequences of operations: every store answers them as the model does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, func, select

from asyncz.stores.base import BaseStore
from asyncz.stores.file import FileStore
from asyncz.stores.memory import MemoryStore
from asyncz.stores.redis import RedisStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore, make_tables
from asyncz.testing.store_sequences import ClusterStoreSequences, StoreSequences
from asyncz.testing.store_suite_tools import SuiteHost
from tests.services.databases import new_database
from tests.services.redis import new_keys

from .dict_store import DictStore
from .model_store import ModelStore
from .mongo_databases import Place, mongo_place, mongodb_url
from .redis_tools import keys_of
from .sqlalchemy_tools import engine_for

__all__ = ["mongo_place", "mongodb_url"]

DOCUMENTED = (".run_times:of", ".tasks:meta")
"""The keys of an empty store: to whom the run times belong, and the version of the layout."""

NIGHTLY = os.environ.get("ASYNCZ_NIGHTLY") == "1"


class Tasks(StoreSequences):
    """The same sequences on every ordinary run; the nightly run looks for new ones."""

    examples = 500 if NIGHTLY else 40
    is_random = NIGHTLY


class Runs(ClusterStoreSequences):
    """Likewise."""

    examples = 500 if NIGHTLY else 40
    is_random = NIGHTLY


class TestMemoryStore(Tasks):
    async def make_store(self) -> BaseStore:
        return MemoryStore()


class TestDictStore(Tasks):
    async def make_store(self) -> BaseStore:
        return DictStore()


class TestModelStore(Runs):
    """The other model, which is served to several workers in the chaos tests."""

    async def make_store(self) -> BaseStore:
        return ModelStore()


class TestFileStore(Runs):
    @pytest.fixture(autouse=True)
    def set_directory(self, directory: Path) -> None:
        self.directory = directory
        self.number = 0

    async def make_store(self) -> BaseStore:
        self.number += 1
        return FileStore(self.directory.with_name(f"tasks-{self.number}"))

    async def another(self, store: Any) -> BaseStore:
        return FileStore(store.directory)

    async def leftovers(self, store: Any) -> list[str]:
        return [path.name for path in store.directory.glob("*.task*")]


class OnSQL(Runs):
    """The same for all of them but for the database."""

    backend: str
    url: URL

    @pytest.fixture(autouse=True)
    def set_databases(self) -> Iterator[None]:
        with ExitStack() as self.stack:
            yield

    async def make_store(self) -> BaseStore:
        self.url = self.stack.enter_context(new_database(self.backend))
        return SQLAlchemyStore(self.url)

    async def another(self, store: Any) -> BaseStore:
        return SQLAlchemyStore(self.url)

    async def leftovers(self, store: Any) -> list[str]:
        tables = make_tables()
        left = []
        async with engine_for(self.url) as engine, engine.connect() as connection:
            for table in (tables.tasks, tables.aside, tables.runs):
                count = (await connection.execute(select(func.count()).select_from(table))).scalar()
                left += [table.name] if count else []
        return left


class TestSQLite(OnSQL):
    backend = "sqlite"


class TestPostgreSQL(OnSQL):
    backend = "postgresql+asyncpg"


class TestMariaDB(OnSQL):
    backend = "mysql+asyncmy"


class TestRedis(Runs):
    @pytest.fixture(autouse=True)
    def set_keys(self) -> Iterator[None]:
        with ExitStack() as self.stack:
            yield
            assert sorted(keys_of(self.options)) == sorted(DOCUMENTED)

    async def make_store(self) -> BaseStore:
        self.options = self.stack.enter_context(new_keys())
        return RedisStore(**self.options)

    async def another(self, store: Any) -> BaseStore:
        return RedisStore(**self.options)

    async def leftovers(self, store: Any) -> list[str]:
        """All keys but those of the layout, and the answers to calls, which go by themselves."""
        return [
            key
            for key, seconds in keys_of(self.options).items()
            if key not in DOCUMENTED and not (key.startswith(".tasks:call:") and seconds > 0)
        ]


class TestMongoDB(Runs):
    @pytest.fixture(autouse=True)
    def set_place(self, mongo_place: Place) -> None:
        self.place = mongo_place
        self.number = 0

    async def make_store(self) -> BaseStore:
        self.number += 1
        return self.place.store(collection=f"tasks{self.number}")

    async def another(self, store: Any) -> BaseStore:
        return self.place.store(collection=store.collection)

    async def leftovers(self, store: Any) -> list[str]:
        """All documents but those of tasks that came to their end, which go by themselves.

        What is left of tasks that were deleted while they were run, a store sweeps up from time
        to time, and when it starts.
        """
        sweeper = self.place.store(collection=store.collection)
        await sweeper.start(SuiteHost(), "sweeper")
        await sweeper.shutdown()
        left = []
        for name in ("", ".runs", ".nodes", ".unreadable"):
            found = self.place.database[store.collection + name].find({"ended": {"$exists": False}})
            left += [f"{name}: {document}" for document in found]
        return left
