"""Stores that are flooded refuse, and grow no further."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncz import FileStore, MemoryStore, NativeAsyncIOScheduler
from asyncz.exceptions import SerializationError, StoreFullError
from asyncz.stores.base import BaseStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.testing import VirtualClock
from asyncz.testing.store_suite_tools import make_task
from tests.services.databases import new_database
from tests.services.mongodb import mongodb_url

from .dict_store import DictStore
from .places import SERVER_KINDS, Place, motor_is_warm, place_of

__all__ = ["mongodb_url", "motor_is_warm"]

CAP = 50


async def job(*args: object) -> None: ...


def stores(directory: Path) -> dict[str, BaseStore]:
    return {
        "default": MemoryStore(max_tasks=CAP),
        "files": FileStore(directory, max_tasks=CAP, max_payload=10_000),
        "rows": DictStore(max_tasks=CAP, max_payload=10_000),
    }


def flooded(directory: Path, clock: VirtualClock) -> NativeAsyncIOScheduler:
    return NativeAsyncIOScheduler(clock=clock, timezone="UTC", stores=stores(directory))


def objects_in_use() -> int:
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.parametrize("alias", ["default", "files", "rows"])
async def test_a_flood_of_tasks_is_refused_and_memory_does_not_grow(
    alias: str, directory: Path, clock: VirtualClock
) -> None:
    async with flooded(directory, clock) as scheduler:
        for _ in range(CAP):
            await scheduler.aadd_task(job, "interval", hours=1, store=alias)

        async def flood(number: int) -> int:
            refused = 0
            for _ in range(number):
                with pytest.raises(StoreFullError, match=f"max_tasks={CAP}"):
                    await scheduler.aadd_task(job, "interval", hours=1, store=alias)
                refused += 1
                await asyncio.sleep(0)  # the loop forgets cancelled timers when it gets its turn
            return refused

        await flood(4_500)  # until the caches are full
        before = objects_in_use()
        assert await flood(2_000) == 2_000
        grown = objects_in_use() - before
        assert len(await scheduler.aget_tasks(alias)) == CAP
        await clock.advance(hours=1)
    assert grown < 2_000, "less than one object for each task that was refused"


@pytest.mark.parametrize("alias", ["files", "rows"])
async def test_large_arguments_are_refused_at_the_size_that_was_set(
    alias: str, directory: Path, clock: VirtualClock
) -> None:
    async with flooded(directory, clock) as scheduler:
        await scheduler.aadd_task(job, args=["x" * 9_000], id="fits", store=alias)
        with pytest.raises(SerializationError, match=r"'too large'.*max_payload=10,000"):
            await scheduler.aadd_task(job, args=["x" * 10_000], id="too large", store=alias)


async def test_one_that_ends_makes_room_for_another(directory: Path, clock: VirtualClock) -> None:
    async with flooded(directory, clock) as scheduler:
        for alias in scheduler.stores:
            for _ in range(CAP):
                await scheduler.aadd_task(job, next_run_time=clock.now(), store=alias)
        await clock.advance(seconds=1)
        for alias in scheduler.stores:
            for _ in range(CAP):
                await scheduler.aadd_task(job, "interval", hours=1, store=alias)
            assert len(await scheduler.aget_tasks(alias)) == CAP


@pytest.fixture(params=SERVER_KINDS)
def place(request: pytest.FixtureRequest, directory: Path) -> Iterator[Place]:
    with place_of(request, directory) as made:
        yield made


async def test_a_flood_of_a_store_with_a_server_is_refused(
    place: Place, clock: VirtualClock
) -> None:
    store = place.store(max_tasks=500)
    async with NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", stores={"default": store}
    ) as scheduler:
        await store.add_tasks([make_task(f"t{number}") for number in range(500)])
        with pytest.raises(StoreFullError, match="max_tasks=500"):
            await store.add_tasks([make_task(f"more{number}") for number in range(1_500)])
        for number in range(200):
            with pytest.raises(StoreFullError, match="max_tasks=500"):
                await scheduler.aadd_task(job, "interval", hours=1, id=f"one{number}")
        assert len(await scheduler.aget_tasks()) == 500
        await store.delete_task("t0")
        await scheduler.aadd_task(job, "interval", hours=1, id="fits")
        with pytest.raises(StoreFullError):
            await scheduler.aadd_task(job, "interval", hours=1, id="does not")


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_million_tasks_are_refused_and_the_process_does_not_grow(
    kind: str, clock: VirtualClock
) -> None:
    with new_database("sqlite") as url:
        store: BaseStore = MemoryStore(max_tasks=CAP)
        if kind == "sqlite":
            store = SQLAlchemyStore(url, max_tasks=CAP)
        async with NativeAsyncIOScheduler(
            clock=clock, timezone="UTC", stores={"default": store}
        ) as scheduler:
            for _ in range(CAP):
                await scheduler.aadd_task(job, "interval", hours=1)
            before = resident()
            for number in range(1_000_000):
                with pytest.raises(StoreFullError):
                    await scheduler.aadd_task(job, "interval", hours=1)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            grown = resident() - before
            assert len(await scheduler.aget_tasks()) == CAP
    assert grown < 50 * 2**20, f"it grew by {grown:,} bytes"


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
