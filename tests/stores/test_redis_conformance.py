"""The Redis store against the suite for all stores, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from asyncz.stores.base import BaseStore
from asyncz.stores.redis import RedisStore
from asyncz.testing.store_suite import PersistentStoreConformance
from tests.services.redis import new_keys


class TestRedisStore(PersistentStoreConformance):
    @pytest.fixture(autouse=True)
    def set_options(self) -> Iterator[None]:
        with new_keys() as self.options:
            yield

    async def make_store(self) -> RedisStore:
        return RedisStore(**self.options)

    async def reopen(self, store: BaseStore) -> RedisStore:
        return await self.make_store()

    async def read_record(self, store: BaseStore, task_id: str) -> bytes:
        return bytes(await self.ask("HGET", task_id.encode()))

    async def write_record(self, store: BaseStore, task_id: str, data: bytes) -> None:
        await self.ask("HSET", task_id.encode(), data)

    async def ask(self, command: str, *words: bytes) -> Any:
        async with Redis.from_url(self.options["url"]) as client:
            return await client.execute_command(command, self.options["tasks_key"], *words)  # type: ignore[no-untyped-call]
