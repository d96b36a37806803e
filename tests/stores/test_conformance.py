"""The stores of this package against the suite for all stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asyncz.serializers import EncryptedSerializer
from asyncz.stores.base import BaseStore
from asyncz.stores.file import FileStore
from asyncz.stores.memory import MemoryStore
from asyncz.testing.store_suite import (
    ClusterStoreConformance,
    PersistentStoreConformance,
    StoreConformance,
)

from .conftest import file_of
from .dict_store import DictStore
from .model_store import ModelStore

KEY = "a key for the tests, long enough for that"


class TestMemoryStore(StoreConformance):
    async def make_store(self) -> BaseStore:
        return MemoryStore()


class TestModelStore(StoreConformance, ClusterStoreConformance):
    async def make_store(self) -> BaseStore:
        return ModelStore()


class TestFileStore(PersistentStoreConformance, ClusterStoreConformance):
    @pytest.fixture(autouse=True)
    def set_directory(self, directory: Path) -> None:
        self.directory = directory

    async def make_store(self) -> FileStore:
        return FileStore(self.directory)

    async def reopen(self, store: BaseStore) -> FileStore:
        return await self.make_store()

    async def another(self, store: Any) -> FileStore:
        return await self.make_store()

    async def read_record(self, store: BaseStore, task_id: str) -> bytes:
        return file_of(self.directory, task_id).read_bytes()

    async def write_record(self, store: BaseStore, task_id: str, data: bytes) -> None:
        file_of(self.directory, task_id).write_bytes(data)


class TestEncryptedFileStore(TestFileStore):
    async def make_store(self) -> FileStore:
        return FileStore(self.directory, serializer=EncryptedSerializer(KEY))

    async def read_record(self, store: BaseStore, task_id: str) -> bytes:
        return store.conditional_decrypt(await super().read_record(store, task_id))

    async def write_record(self, store: BaseStore, task_id: str, data: bytes) -> None:
        await super().write_record(store, task_id, store.conditional_encrypt(data))


class TestDictStore(PersistentStoreConformance):
    async def make_store(self) -> DictStore:
        return DictStore()

    async def reopen(self, store: BaseStore) -> DictStore:
        assert isinstance(store, DictStore)
        return DictStore(store.server)

    async def read_record(self, store: BaseStore, task_id: str) -> bytes:
        assert isinstance(store, DictStore)
        return store.server[task_id].data

    async def write_record(self, store: BaseStore, task_id: str, data: bytes) -> None:
        assert isinstance(store, DictStore)
        store.server[task_id] = store.server[task_id]._replace(data=data)


@pytest.mark.nightly
class TestEncryptedDictStore(TestDictStore):
    async def make_store(self) -> DictStore:
        return DictStore(serializer=EncryptedSerializer(KEY))

    async def reopen(self, store: BaseStore) -> DictStore:
        assert isinstance(store, DictStore)
        return DictStore(store.server, serializer=EncryptedSerializer(KEY))

    async def read_record(self, store: BaseStore, task_id: str) -> bytes:
        return store.conditional_decrypt(await super().read_record(store, task_id))

    async def write_record(self, store: BaseStore, task_id: str, data: bytes) -> None:
        await super().write_record(store, task_id, store.conditional_encrypt(data))
