"""Stores: where tasks are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncz.stores.base import BaseStore
from asyncz.stores.memory import MemoryStore

if TYPE_CHECKING:
    from asyncz.stores.file import FileStore
    from asyncz.stores.sqlalchemy import SQLAlchemyStore

__all__ = ["BaseStore", "FileStore", "MemoryStore", "SQLAlchemyStore"]


def __getattr__(name: str) -> Any:
    # A scheduler in memory does not need what the persistent stores import.
    if name == "FileStore":
        from asyncz.stores.file import FileStore

        return FileStore
    if name == "SQLAlchemyStore":
        from asyncz.stores.sqlalchemy import SQLAlchemyStore

        return SQLAlchemyStore
    raise AttributeError(f"module 'asyncz.stores' has no attribute {name!r}")
