"""A synchronous shutdown on the loop, one that a run asks for, and a setup that fails."""

from __future__ import annotations

import asyncio
import threading

import pytest

from asyncz import AsyncIOScheduler, NativeAsyncIOScheduler
from asyncz.events.constants import TASK_CANCELLED, TASK_EXECUTED
from asyncz.exceptions import PluginLookupError
from asyncz.testing import VirtualClock


def work() -> int:
    return 1


async def test_a_synchronous_shutdown_on_the_loop_works_with_a_process_pool() -> None:
    clock = VirtualClock(patience=30)
    scheduler = AsyncIOScheduler(clock=clock, timezone="UTC", executors={"default": "processpool"})
    scheduler.start()
    scheduler.add_task(_pid)
    assert len(await clock.advance(seconds=1)) == 1
    try:
        assert scheduler.shutdown()
    finally:
        if scheduler._closing is not None:
            await asyncio.wait([scheduler._closing])
        await scheduler.lookup_executor("default").shutdown()
    assert scheduler._bridge.loop is None


def _pid() -> int:
    import os

    return os.getpid()


def test_a_setup_that_fails_changes_nothing() -> None:
    scheduler = AsyncIOScheduler(timezone="UTC", identity="before")
    with pytest.raises(PluginLookupError):
        scheduler.setup(timezone="UTC", identity="after", stores={"a": "memory", "b": "nope"})
    assert (scheduler.identity, dict(scheduler.stores)) == ("before", {})


TIMEOUT = 30.0
"""The shutdown timeout: a run that waited for itself would take this long."""

AnyScheduler = AsyncIOScheduler | NativeAsyncIOScheduler


@pytest.fixture(params=[NativeAsyncIOScheduler, AsyncIOScheduler])
def ending(request: pytest.FixtureRequest) -> AnyScheduler:
    made: AnyScheduler = request.param(timezone="UTC", shutdown_timeout=TIMEOUT)
    return made


async def test_a_coroutine_run_may_shut_its_scheduler_down(ending: AnyScheduler) -> None:
    ended = asyncio.Event()
    others: list[str] = []

    async def other() -> None:
        await asyncio.sleep(0.05)
        others.append("finished")

    async def end() -> None:
        await ending.ashutdown()
        ended.set()

    await ending.astart()
    await ending.aadd_task(other)
    await ending.aadd_task(end, id="end")
    async with asyncio.timeout(TIMEOUT / 3):
        await ended.wait()
    assert others == ["finished"]
    assert not ending.running
    assert ending.instances == {}


async def test_it_may_do_so_in_a_task_of_its_own(ending: AnyScheduler) -> None:
    ended = asyncio.Event()

    async def end() -> None:
        await asyncio.gather(asyncio.sleep(0), ending.ashutdown())
        ended.set()

    await ending.astart()
    await ending.aadd_task(end)
    async with asyncio.timeout(TIMEOUT / 3):
        await ended.wait()


@pytest.mark.parametrize("executor", ["asyncio", "threadpool"])
async def test_a_run_in_a_thread_may_shut_its_scheduler_down(executor: str) -> None:
    scheduler = AsyncIOScheduler(
        timezone="UTC",
        shutdown_timeout=TIMEOUT,
        executors={"default": executor},
        isolated_event_loop=True,
    )
    ended = threading.Event()

    def end() -> None:
        scheduler.shutdown()
        ended.set()

    scheduler.start()
    scheduler.add_task(end, id="end")
    assert await asyncio.to_thread(ended.wait, TIMEOUT / 3)
    assert not scheduler.running


async def test_a_coroutine_run_on_a_loop_that_ends_with_the_scheduler_goes_on_to_its_end() -> None:
    scheduler = AsyncIOScheduler(timezone="UTC", shutdown_timeout=TIMEOUT, isolated_event_loop=True)
    ended = threading.Event()

    async def end() -> None:
        await scheduler.ashutdown()
        await asyncio.sleep(0.01)
        ended.set()

    scheduler.start()
    scheduler.add_task(end)
    assert await asyncio.to_thread(ended.wait, TIMEOUT / 3)
    assert not scheduler.running


async def test_a_task_that_shut_its_scheduler_down_runs_again_after_the_next_start() -> None:
    scheduler = NativeAsyncIOScheduler(timezone="UTC", shutdown_timeout=TIMEOUT)
    ended = asyncio.Event()

    async def end() -> None:
        await scheduler.shutdown()
        ended.set()

    for _ in range(2):
        await scheduler.start()
        await scheduler.aadd_task(end, id="end")
        async with asyncio.timeout(TIMEOUT / 3):
            await ended.wait()
        ended.clear()


async def test_a_shutdown_that_a_run_only_begins_waits_for_the_run() -> None:
    scheduler = AsyncIOScheduler(timezone="UTC", shutdown_timeout=TIMEOUT)
    codes: list[int] = []
    scheduler.add_listener(lambda event: codes.append(event.code), TASK_EXECUTED | TASK_CANCELLED)

    async def end() -> None:
        scheduler.shutdown()
        await asyncio.sleep(0.05)

    scheduler.start()
    scheduler.add_task(end)
    async with asyncio.timeout(TIMEOUT / 3):
        while scheduler._bridge.loop is not None:  # until its end is complete
            await asyncio.sleep(0.01)
    assert codes == [TASK_EXECUTED]
