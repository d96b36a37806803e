"""Where the tasks of a test are kept: each kind of store, on a server of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from pymongo import MongoClient

from asyncz.stores.base import BaseStore
from asyncz.stores.file import FileStore
from asyncz.stores.memory import MemoryStore
from asyncz.stores.redis import RedisStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from tests.services.databases import new_database
from tests.services.processes import IN_MEMORY
from tests.services.redis import new_keys
from tests.stores.mongo_databases import Place

__all__ = ["PERSISTENT", "PLACES", "MakeStore", "place"]

MakeStore = Callable[[], BaseStore]
PERSISTENT = ["sqlite", "postgresql+asyncpg", "redis", "mongodb"]
if os.environ.get("ASYNCZ_NIGHTLY") == "1":
    PERSISTENT += ["file", "postgresql+psycopg", "mysql+asyncmy", "mysql+aiomysql"]
PLACES = ["memory", *PERSISTENT]


@contextmanager
def place(kind: str, mongodb: str = "") -> Iterator[MakeStore]:
    """What makes store objects on the same tasks, which are gone in the end.

    Args:
        kind: One of `PLACES`.
        mongodb: For `mongodb`: the server's URL.
    """
    if kind == "memory":
        yield MemoryStore
    elif kind == "file":
        parent = Path(mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        yield lambda: FileStore(parent / "tasks")
        rmtree(parent)
    elif kind == "redis":
        with new_keys() as options:
            yield lambda: RedisStore(**options)
    elif kind == "mongodb":
        client: MongoClient[dict[str, Any]] = MongoClient(mongodb)
        with client:
            there = Place(mongodb, client)
            yield there.store
            client.drop_database(there.name)
    else:
        with new_database(kind) as url:
            yield lambda: SQLAlchemyStore(url)
