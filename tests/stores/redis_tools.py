"""What the tests of the Redis store share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis import Redis

from asyncz.stores.redis import RedisStore
from asyncz.testing.store_suite_tools import SuiteHost

__all__ = ["keys_of", "opened", "until"]

PATIENCE = 15.0


@asynccontextmanager
async def opened(alias: str = "tasks", **options: Any) -> AsyncIterator[RedisStore]:
    """A store that is started with these options; shut down in the end."""
    store = RedisStore(**options)
    await store.start(SuiteHost(), alias)
    try:
        yield store
    finally:
        await store.shutdown()


def keys_of(options: dict[str, Any]) -> dict[str, int]:
    """The keys there are for these options: the end of each name, and its seconds to live."""
    name = options["tasks_key"].removesuffix(".tasks")
    with Redis.from_url(options["url"]) as client:
        found = [key.decode() for key in client.scan_iter(f"{name}*", count=1_000)]
        return {key.removeprefix(name): client.ttl(key) for key in sorted(found)}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something, but not for long."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)
