"""Schedulers that are started and shut down again and again leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asyncz import NativeAsyncIOScheduler
from asyncz.stores.base import BaseStore
from asyncz.stores.file import FileStore
from asyncz.stores.memory import MemoryStore
from asyncz.stores.redis import RedisStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from tests.services.databases import new_database
from tests.services.redis import new_keys

from .mongo_databases import Place, mongo_place, mongodb_url

__all__ = ["mongo_place", "mongodb_url"]

TASKS = 10
TIMES = 50
STOPS_WITHIN = 5.0
"""Seconds (`faults.md`, 23)."""
SCHEDULERS = 1_000
SETTLED = 3
"""Rounds after which drivers have loaded all that they load, and keep nothing new."""

Make = Callable[[], BaseStore]


def note() -> None:
    """The callable of the tasks."""


@pytest.fixture(params=["memory", "file", "sqlite", "postgresql+asyncpg", "mysql+asyncmy", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes stores in one place."""
    kind: str = request.param
    if kind == "memory":
        yield MemoryStore
    elif kind == "file":
        yield lambda: FileStore(tmp_path / "tasks", allowed_callables=("*:note",))
    elif kind == "redis":
        with new_keys() as options:
            yield lambda: RedisStore(**options, allowed_callables=("*:note",))
    else:
        with new_database(kind) as url:
            yield lambda: SQLAlchemyStore(database=url, allowed_callables=("*:note",))


def handles() -> tuple[int, int]:
    """How many threads this process has, and how many files and sockets are open."""
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


async def start_and_stop(scheduler: NativeAsyncIOScheduler, times: int) -> None:
    for _ in range(times):
        async with asyncio.timeout(20):
            await scheduler.start()
        async with asyncio.timeout(STOPS_WITHIN):
            await scheduler.shutdown()


def scheduler_on(store: BaseStore) -> NativeAsyncIOScheduler:
    scheduler = NativeAsyncIOScheduler(stores={"default": store}, timezone="UTC")
    for number in range(TASKS):
        scheduler.add_task(note, "interval", seconds=1, id=f"t{number}", replace_existing=True)
    return scheduler


async def check(make: Make, more_threads: int = 1) -> None:
    scheduler = scheduler_on(make())
    await start_and_stop(scheduler, SETTLED)
    before = handles()
    await start_and_stop(scheduler, TIMES)
    async with asyncio.timeout(20):
        # The monitors of a driver close their sockets a moment after its client.
        while handles()[1] > before[1] + 1:
            await asyncio.sleep(0.05)
    threads, files = handles()
    # An executor of the loop's makes threads as they are needed, up to some number.
    assert threads <= before[0] + more_threads
    assert files <= before[1] + 1


async def test_one_that_is_started_again_and_again_leaves_no_thread_and_no_connection(
    make: Make,
) -> None:
    await check(make)


async def test_nor_does_one_on_mongodb(mongo_place: Place) -> None:
    # Motor's executor is one for the process, and may still be growing.
    await check(lambda: mongo_place.store(allowed_callables=("*:note",)), more_threads=10)


async def test_a_thousand_schedulers_leave_no_memory() -> None:
    async def make_and_close(number: int) -> None:
        for _ in range(number):
            async with scheduler_on(MemoryStore()):
                pass

    def resident() -> int:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    await make_and_close(SCHEDULERS // 10)
    before, size = handles(), resident()
    await make_and_close(SCHEDULERS)
    threads, files = handles()
    assert threads <= before[0]  # those of a test before this one may have gone meanwhile
    assert files <= before[1]
    assert resident() - size < 5 * 2**20
