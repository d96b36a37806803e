"""The stores of this package against the suite for all stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncz.stores.base import BaseStore
from asyncz.stores.file import FileStore
from asyncz.stores.memory import MemoryStore
from asyncz.testing.store_suite import PersistentStoreConformance, StoreConformance

from .conftest import file_of


class TestMemoryStore(StoreConformance):
    async def make_store(self) -> BaseStore:
        return MemoryStore()


class TestFileStore(PersistentStoreConformance):
    @pytest.fixture(autouse=True)
    def set_directory(self, directory: Path) -> None:
        self.directory = directory

    async def make_store(self) -> FileStore:
        return FileStore(self.directory)

    async def reopen(self, store: BaseStore) -> FileStore:
        return await self.make_store()

    async def read_record(self, store: BaseStore, task_id: str) -> bytes:
        return file_of(self.directory, task_id).read_bytes()

    async def write_record(self, store: BaseStore, task_id: str, data: bytes) -> None:
        file_of(self.directory, task_id).write_bytes(data)
