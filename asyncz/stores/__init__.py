"""Stores: where tasks are kept."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asyncz.stores.base import BaseStore
from asyncz.stores.memory import MemoryStore

if TYPE_CHECKING:
    from asyncz.stores.file import FileStore
    from asyncz.stores.mongo import MongoDBStore
    from asyncz.stores.redis import RedisStore
    from asyncz.stores.sqlalchemy import SQLAlchemyStore

__all__ = [
    "BaseStore",
    "FileStore",
    "MemoryStore",
    "MongoDBStore",
    "RedisStore",
    "SQLAlchemyStore",
]

MODULES = {
    "FileStore": "file",
    "MongoDBStore": "mongo",
    "RedisStore": "redis",
    "SQLAlchemyStore": "sqlalchemy",
}


def __getattr__(name: str) -> Any:
    # A scheduler in memory does not need what the persistent stores import.
    if name in MODULES:
        return getattr(import_module(f"asyncz.stores.{MODULES[name]}"), name)
    raise AttributeError(f"module 'asyncz.stores' has no attribute {name!r}")
